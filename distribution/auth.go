package distribution

import (
	"context"
	"log/slog"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/core/remotes/docker/auth"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/registry"
)

// guard answers a registry's demand for credentials, but only the registry's own: a
// host it redirects to gets none, and the token server it names is used over TLS only,
// unless it is as insecure as the registry itself.
type guard struct {
	docker.Authorizer
	host     string
	insecure bool
}

func newGuard(host string, insecure bool, client *http.Client, a *registry.AuthConfig, header http.Header) *guard {
	creds := func(h string) (string, string, error) {
		switch {
		case a == nil || h != host:
			return "", "", nil
		case a.IdentityToken != "":
			return "", a.IdentityToken, nil
		}
		return a.Username, a.Password, nil
	}
	return &guard{
		Authorizer: docker.NewDockerAuthorizer(docker.WithAuthClient(client), docker.WithAuthCreds(creds), docker.WithAuthHeader(header)),
		host:       host, insecure: insecure,
	}
}

// Authorize implements docker.Authorizer.
func (g *guard) Authorize(ctx context.Context, req *http.Request) error {
	if req.URL.Host != g.host {
		return nil
	}
	return g.Authorizer.Authorize(ctx, req)
}

// AddResponses implements docker.Authorizer.
func (g *guard) AddResponses(ctx context.Context, responses []*http.Response) error {
	last := responses[len(responses)-1]
	if last.Request.URL.Host != g.host {
		return errclass.Forbidden("registry %s sent us to %s, which wants credentials", g.host, last.Request.URL.Host)
	}
	for _, c := range auth.ParseAuthHeader(last.Header) {
		if c.Scheme != auth.BearerAuth {
			continue
		}
		realm, err := url.Parse(c.Parameters["realm"])
		if err != nil || realm.Host == "" {
			return errclass.Forbidden("registry %s names an invalid token server", g.host)
		}
		same := realm.Hostname() == hostname(g.host)
		if realm.Scheme != "https" && (!g.insecure || !same || realm.Scheme != "http") {
			return errclass.Forbidden("registry %s names a token server without TLS: %s", g.host, realm.Host)
		}
		if !same {
			slog.Debug("token server of registry", "registry", g.host, "server", realm.Host)
		}
	}
	return g.Authorizer.AddResponses(ctx, responses)
}

func hostname(host string) string {
	u := url.URL{Host: host}
	return u.Hostname()
}
