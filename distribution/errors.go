package distribution

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	remoteerrors "github.com/containerd/containerd/v2/core/remotes/errors"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/internal/errclass"
)

// askedError marks an error of asking a registry for a name or a document, so that
// ExplainPull knows what a missing or forbidden one means.
type askedError struct{ error }

func (e askedError) Unwrap() error { return e.error }

func asked(err error) error {
	if err == nil {
		return nil
	}
	return askedError{err}
}

// ExplainPull puts what went wrong with pulling ref, be it here or at the registry, in
// Docker's words and gives it its class: NotFound (no such image, or no access to it),
// Unauthenticated, Unavailable (registry not reachable, or it limits the rate),
// ResourceExhausted (no space). Errors that have a class of another kind, and
// context.Canceled, stay as they are. auth tells whether credentials were sent.
func ExplainPull(err error, ref reference.Named, auth bool) error {
	return explain(err, reference.FamiliarString(ref), reference.FamiliarName(ref), auth)
}

// explain is ExplainPull for the familiar form of a reference and its repository.
func explain(err error, ref, repo string, auth bool) error {
	var f askedError
	switch {
	case err == nil || errors.Is(err, context.Canceled):
		return err
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return errclass.With(errdefs.ErrResourceExhausted, fmt.Errorf("failed to pull %s: %w", ref, err))
	case errors.As(err, &f):
		return explainFailure(err, ref, repo, auth)
	case errclass.Of(err) != errdefs.ErrUnknown:
		return err
	case isNetwork(err):
		return errclass.With(errdefs.ErrUnavailable, fmt.Errorf("failed to pull %s: %w", ref, err))
	}
	return fmt.Errorf("failed to pull %s: %w", ref, err)
}

func explainFailure(err error, ref, repo string, auth bool) error {
	var status remoteerrors.ErrUnexpectedStatus
	code := 0
	if errors.As(err, &status) {
		code = status.StatusCode
	}
	text := err.Error()
	switch {
	case errdefs.IsInvalidArgument(err), errdefs.IsPermissionDenied(err):
		return err
	case code == http.StatusTooManyRequests:
		return errclass.With(errdefs.ErrUnavailable, errors.New("toomanyrequests: You have reached your pull rate limit. You may increase the limit by authenticating and upgrading: https://www.docker.com/increase-rate-limit"))
	case auth && (code == http.StatusUnauthorized || errors.Is(err, docker.ErrInvalidAuthorization) || strings.Contains(text, "failed to fetch oauth token")):
		return errclass.Unauthorized("pull access denied for %s, repository does not exist or may require 'docker login': unauthorized: authentication required", repo)
	case code == http.StatusUnauthorized, code == http.StatusForbidden, errors.Is(err, docker.ErrInvalidAuthorization):
		return errclass.NotFound("pull access denied for %s, repository does not exist or may require 'docker login': denied: requested access to the resource is denied", repo)
	case errdefs.IsNotFound(err):
		return errclass.NotFound("manifest for %s not found: manifest unknown: manifest unknown", ref)
	case code >= 500, isNetwork(err):
		return errclass.With(errdefs.ErrUnavailable, fmt.Errorf("failed to resolve reference %q: %w", ref, err))
	}
	return fmt.Errorf("failed to resolve reference %q: %w", ref, err)
}

func isNetwork(err error) bool {
	var op *net.OpError
	var dns *net.DNSError
	var ne net.Error
	return errors.As(err, &op) || errors.As(err, &dns) || errors.As(err, &ne)
}
