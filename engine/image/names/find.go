package names

import (
	"slices"
	"strings"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Found is what a reference of the user's led to.
type Found struct {
	Target ocispec.Descriptor
	Name   string // the database name that matched; "" when found by ID
	Repo   string // set when found as repo@digest: the repository's full name
}

// Find looks a reference up: as a name, as a name with digest, as an ID or the beginning
// of one. The error is of class NotFound, "No such image: …", when there is none,
// InvalidArgument when a beginning is ambiguous, or ref is no reference.
func (s *Store) Find(ref string) (Found, error) {
	parsed, err := reference.ParseAnyReference(ref)
	if err != nil && !isHexPrefix(ref) {
		if t, ok := strings.CutPrefix(ref, "sha256:"); ok && isHexPrefix(t) {
			return s.findID(ref)
		}
		return Found{}, errclass.Invalid("invalid reference format")
	}
	named, isNamed := parsed.(reference.Named)
	if !isNamed {
		return s.findID(ref)
	}
	if canonical, ok := named.(reference.Canonical); ok {
		return s.findDigest(named, canonical.Digest(), ref)
	}
	full := reference.TagNameOnly(named)
	s.mu.RLock()
	img, ok := s.names[full.String()]
	s.mu.RUnlock()
	if ok {
		return Found{Target: img.Target, Name: img.Name}, nil
	}
	if t, _ := strings.CutPrefix(ref, "sha256:"); isHexPrefix(t) {
		f, err := s.findID(ref)
		if !errdefs.IsNotFound(err) {
			return f, err
		}
	}
	return Found{}, ErrNoSuchImage(reference.FamiliarString(full))
}

// ErrNoSuchImage is the error, of class NotFound, for a reference that leads nowhere.
func ErrNoSuchImage(ref string) error { return errclass.NotFound("No such image: %s", ref) }

// findDigest finds name@digest: an image of that ID which has a name in the repository.
func (s *Store) findDigest(named reference.Named, d digest.Digest, ref string) (Found, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	repo := named.Name()
	for n, img := range s.names {
		if img.Target.Digest != d {
			continue
		}
		if r, err := reference.ParseNormalizedNamed(n); err == nil && !IsDangling(n) && r.Name() == repo {
			name := ""
			if n == named.String() {
				name = n
			}
			return Found{Target: img.Target, Name: name, Repo: repo}, nil
		}
	}
	return Found{}, ErrNoSuchImage(ref)
}

// findID finds an image by its ID or the beginning of it.
func (s *Store) findID(ref string) (Found, error) {
	prefix := strings.TrimPrefix(ref, "sha256:")
	s.mu.RLock()
	defer s.mu.RUnlock()
	var f Found
	for _, img := range s.names {
		if !strings.HasPrefix(img.Target.Digest.Encoded(), prefix) {
			continue
		}
		if f.Target.Digest != "" && f.Target.Digest != img.Target.Digest {
			return Found{}, errclass.Invalid("multiple IDs found with provided prefix: %s", prefix)
		}
		f.Target = img.Target
	}
	if f.Target.Digest == "" {
		if len(prefix) == 64 {
			ref = "sha256:" + prefix
		}
		return Found{}, ErrNoSuchImage(ref)
	}
	return f, nil
}

func isHexPrefix(s string) bool {
	return s != "" && len(s) <= 64 && !slices.ContainsFunc([]byte(s), func(c byte) bool {
		return (c < '0' || c > '9') && (c < 'a' || c > 'f')
	})
}
