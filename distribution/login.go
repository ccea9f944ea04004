package distribution

import (
	"context"
	"net/http"
	"net/url"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/quiet"
	"github.com/moby/moby/api/types/registry"
)

// Login asks a registry (a.ServerAddress; none is Docker Hub) whether it takes the
// credentials. The error is of class Unauthenticated when it does not, Unavailable when
// it cannot be reached, InvalidArgument when there is nothing to ask with.
func (c *Client) Login(ctx context.Context, a registry.AuthConfig) error {
	host := strings.TrimPrefix(strings.TrimPrefix(a.ServerAddress, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "" || host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return errclass.Invalid("username is required")
	}
	a.ServerAddress = ""
	s, err := c.session(host, &a, nil)
	if err != nil {
		return err
	}
	return s.check(quiet.Context(ctx))
}

// check asks the registry whether it takes the session's credentials.
func (s *session) check(ctx context.Context) error {
	host := s.own()
	u := &url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/"}
	resp, err := s.get(ctx, host, u)
	if err != nil {
		if isNetwork(err) {
			return errclass.With(errdefs.ErrUnavailable, err)
		}
		return errclass.Unauthorized("Get %q: unauthorized: incorrect username or password", u)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return errclass.Unauthorized("login attempt to %s failed with status: %s", u, resp.Status)
	}
	return nil
}
