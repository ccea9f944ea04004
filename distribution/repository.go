package distribution

import (
	"context"
	"fmt"
	"io"
	"net/http"

	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/quiet"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Repository is one repository of a registry, used with one set of credentials. There is
// nothing to close. Safe for concurrent use.
type Repository struct {
	name     reference.Named
	session  *session
	resolver remotes.Resolver
	fetcher  remotes.Fetcher
}

// Repository prepares to use the repository that name is in (its tag or digest is not
// looked at), with auth when that is not nil and is for the repository's registry.
// header goes along with every request. Nothing is sent yet; the error is of class
// InvalidArgument when the configuration says something impossible about the registry.
func (c *Client) Repository(name reference.Named, auth *registry.AuthConfig, header http.Header) (*Repository, error) {
	s, err := c.session(reference.Domain(name), auth, header)
	if err != nil {
		return nil, err
	}
	r := &Repository{name: reference.TrimNamed(name), session: s}
	r.resolver = docker.NewResolver(docker.ResolverOptions{
		Hosts:   func(string) ([]docker.RegistryHost, error) { return s.hosts, nil },
		Headers: s.header,
	})
	// It sends nothing either, so it needs no context of its own.
	if r.fetcher, err = r.resolver.Fetcher(context.Background(), r.name.Name()); err != nil {
		return nil, err
	}
	return r, nil
}

// Resolve asks what ref, which must be of this repository and have a tag or a digest,
// points to. Errors are of class NotFound when the registry knows no such name, and as
// ExplainPull tells them apart.
func (r *Repository) Resolve(ctx context.Context, ref reference.Named) (ocispec.Descriptor, error) {
	_, desc, err := r.resolver.Resolve(quiet.Context(ctx), ref.String())
	return desc, asked(err)
}

// Document fetches an index, manifest or configuration whole and verifies its digest.
// Errors are of class InvalidArgument when it is larger than limit (bytes), DataLoss
// when it is not what its digest says, else as Resolve's.
func (r *Repository) Document(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if desc.Size > limit {
		return nil, errclass.Invalid("%s of %d bytes is larger than %d", desc.Digest, desc.Size, limit)
	}
	rc, err := r.fetcher.Fetch(quiet.Context(ctx), desc)
	if err != nil {
		return nil, asked(err)
	}
	defer rc.Close()
	data, err := io.ReadAll(io.LimitReader(rc, limit+1))
	if err != nil {
		return nil, asked(err)
	}
	if int64(len(data)) > limit {
		return nil, errclass.Invalid("%s is larger than %d bytes", desc.Digest, limit)
	}
	if got := desc.Digest.Algorithm().FromBytes(data); got != desc.Digest {
		return nil, errclass.With(errdefs.ErrDataLoss, fmt.Errorf("manifest failed verification: its digest is %s, expected %s", got, desc.Digest))
	}
	return data, nil
}

// Fetch opens a blob. Its content is not verified. The stream is an io.Seeker: seeking
// before the first read fetches from there on. It may ask the registry with the first
// read only. The caller closes it. Errors, of both, have the class that the answer
// implies (NotFound, PermissionDenied, …), or none: those of the network, after which
// another try may succeed.
func (r *Repository) Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error) {
	return r.fetcher.Fetch(quiet.Context(ctx), desc)
}

// Tags lists the repository's tags, asking the registry itself, not a mirror. Errors as
// Resolve's; InvalidArgument when the list is no list, or has no end.
func (r *Repository) Tags(ctx context.Context) ([]string, error) {
	tags, err := r.session.tags(quiet.Context(ctx), reference.Path(r.name))
	return tags, asked(err)
}
