package image

import (
	"context"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/registry"
)

// Login asks a registry whether it takes the credentials. The error is of class
// Unauthenticated when it does not.
func (s *Service) Login(ctx context.Context, a registry.AuthConfig) (registry.AuthResponse, error) {
	host := strings.TrimPrefix(strings.TrimPrefix(a.ServerAddress, "https://"), "http://")
	host, _, _ = strings.Cut(host, "/")
	if host == "" || host == "index.docker.io" || host == "registry-1.docker.io" {
		host = "docker.io"
	}
	if a.Username == "" && a.IdentityToken == "" && a.RegistryToken == "" {
		return registry.AuthResponse{}, errclass.Invalid("username is required")
	}
	a.ServerAddress = ""
	sess, err := s.live.Load().remote.Session(host, &a, nil)
	if err != nil {
		return registry.AuthResponse{}, err
	}
	if err := sess.Check(withoutLog(ctx)); err != nil {
		return registry.AuthResponse{}, err
	}
	return registry.AuthResponse{Status: "Login Succeeded"}, nil
}
