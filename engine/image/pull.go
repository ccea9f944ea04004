package image

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/errdefs"
	"github.com/containerd/log"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/remote"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

const (
	// pullLease prefixes the leases that hold what a pull has got so far. They outlive
	// the pull when it fails, so that the next one goes on from there, until they expire.
	pullLease   = "gantry/pull/"
	pullExpires = 24 * time.Hour
)

// Pull fetches an image, or all tags of a repository, and unpacks it. Progress gets
// Docker's lines. Nobody sees the image by its name before all of it is there. Several
// pulls of the same at a time share one transfer. Errors are Docker's words; their
// classes: NotFound (no such image, or no access to it), Unauthenticated, Unavailable
// (registry not reachable), InvalidArgument (reference, or an invalid image), DataLoss
// (digest mismatch), ResourceExhausted (no space).
func (s *Service) Pull(ctx context.Context, o PullOptions, p Progress) error {
	named, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return errclass.Invalid("invalid reference format")
	}
	if !o.AllTags {
		return s.pullShared(ctx, reference.TagNameOnly(named), o, p)
	}
	if !reference.IsNameOnly(named) {
		return errclass.Invalid("tag can't be used with --all-tags/-a")
	}
	sess, err := s.session(named, o)
	if err != nil {
		return err
	}
	tags, err := sess.Tags(withoutLog(ctx), reference.Path(named))
	if err != nil {
		repo := reference.FamiliarName(named)
		return remote.Explain(remote.Error{Err: err}, repo, repo, o.Auth != nil)
	}
	for _, t := range tags {
		tagged, err := reference.WithTag(named, t)
		if err != nil {
			return errclass.Invalid("registry lists an invalid tag %q", t)
		}
		if err := s.pullShared(ctx, tagged, o, p); err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) pullShared(ctx context.Context, named reference.Named, o PullOptions, p Progress) error {
	// Credentials are part of the key: nobody gets an image by another one's.
	key := named.String()
	if o.Platform != nil {
		key += " " + platforms.FormatAll(platforms.Normalize(*o.Platform))
	}
	if o.Auth != nil {
		key += fmt.Sprintf(" %q %q %q %q", o.Auth.Username, o.Auth.Password, o.Auth.IdentityToken, o.Auth.RegistryToken)
	}
	return s.pulls.do(ctx, key, p, func(ctx context.Context, p Progress) error {
		err := s.pull(withoutLog(ctx), named, o, p)
		return remote.Explain(err, reference.FamiliarString(named), reference.FamiliarName(named), o.Auth != nil)
	})
}

// withoutLog keeps the libraries' own log lines out of the daemon's log: what matters is in
// the errors.
func withoutLog(ctx context.Context) context.Context {
	return log.WithLogger(ctx, quietLog())
}

func (s *Service) session(named reference.Named, o PullOptions) (*remote.Session, error) {
	return s.live.Load().remote.Session(reference.Domain(named), o.Auth, http.Header(o.Headers))
}

// puller is one pull under way.
type puller struct {
	*Service
	p       Progress
	fetcher remotes.Fetcher
	want    ocispec.Platform
	chosen  bool // the caller chose the platform
	ref     string
	fetched bool // something came over the network
}

func (s *Service) pull(ctx context.Context, named reference.Named, o PullOptions, p Progress) (err error) {
	what := ""
	switch n := named.(type) {
	case reference.Digested:
		what = n.Digest().String()
	case reference.Tagged:
		what = n.Tag()
	}
	sess, err := s.session(named, o)
	if err != nil {
		return err
	}
	resolver := sess.Resolver()
	name, desc, err := resolver.Resolve(ctx, named.String())
	if err != nil {
		return remote.Error{Err: err}
	}
	pl := &puller{Service: s, p: p, want: s.platform, chosen: o.Platform != nil, ref: reference.FamiliarString(named)}
	if pl.chosen {
		pl.want = platforms.Normalize(*o.Platform)
	}
	if pl.fetcher, err = resolver.Fetcher(ctx, name); err != nil {
		return err
	}
	p.Update(what, "Pulling from "+reference.Path(named), 0, 0)
	ctx, done, err := s.leased(storage.Context(ctx))
	if err != nil {
		return err
	}
	defer func() { done(err, true) }()
	target, err := pl.target(ctx, desc)
	if err != nil {
		return err
	}
	old, err := s.setName(ctx, named.String(), target)
	if err != nil {
		return err
	}
	p.Update("", "Digest: "+target.Digest.String(), 0, 0)
	if old != nil && old.Digest == target.Digest && !pl.fetched {
		p.Update("", "Status: Image is up to date for "+pl.ref, 0, 0)
	} else {
		p.Update("", "Status: Downloaded newer image for "+pl.ref, 0, 0)
	}
	s.emit(events.ActionPull, pl.ref, reference.FamiliarName(named))
	return nil
}

// leased gives ctx a lease for what is stored with it. done ends it: what shall stay
// must be referred to by then. With keep it is left to expire instead, so that another
// attempt finds what this one got, unless the disk is full.
func (s *Service) leased(ctx context.Context) (_ context.Context, done func(err error, keep bool), err error) {
	l, err := s.store.Leases.Create(ctx, leases.WithExpiration(pullExpires), func(l *leases.Lease) error {
		l.ID = pullLease + id.New()
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("leasing storage: %w", err)
	}
	return leases.WithLease(ctx, l.ID), func(err error, keep bool) {
		if keep && err != nil && !isFull(err) {
			return
		}
		ctx := context.WithoutCancel(ctx)
		_ = s.store.Leases.Delete(ctx, l)
		switch {
		case isFull(err):
			_ = s.store.CollectNow(ctx) // whoever tries next shall find the space
		case err != nil:
			s.store.Collect()
		}
	}, nil
}

// target fetches what a name points to and the platform's image in it.
func (pl *puller) target(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if manifest.IsSchema1(desc.MediaType) {
		return desc, manifest.ErrSchema1(pl.ref)
	}
	data, err := pl.document(ctx, desc, manifest.MaxSize)
	if err != nil {
		return desc, err
	}
	mt, err := manifest.Sniff(data, desc.MediaType)
	if err != nil {
		return desc, err
	}
	desc.MediaType, desc.Size = mt, int64(len(data))
	return desc, pl.descend(ctx, desc, data, 0)
}

// descend goes from an index to the manifest of the platform, and pulls that.
func (pl *puller) descend(ctx context.Context, desc ocispec.Descriptor, data []byte, depth int) error {
	if manifest.IsSchema1(desc.MediaType) {
		return manifest.ErrSchema1(pl.ref)
	}
	if manifest.IsManifest(desc.MediaType) {
		return pl.image(ctx, desc, data)
	}
	if depth >= manifest.MaxDepth {
		return errclass.Invalid("image index is nested too deeply")
	}
	ix, err := manifest.ParseIndex(data, desc.MediaType)
	if err != nil {
		return err
	}
	for _, d := range manifest.Select(ix, platforms.Only(pl.want)) {
		child, err := pl.document(ctx, d, manifest.MaxSize)
		if err != nil {
			return err
		}
		mt, err := manifest.Sniff(child, d.MediaType)
		if err != nil {
			return err
		}
		d.MediaType = mt
		err = pl.descend(ctx, d, child, depth+1)
		if errdefs.IsNotFound(err) && d.Platform == nil {
			continue // of another platform, as it turned out
		}
		if err != nil {
			return err
		}
		return pl.save(ctx, desc, data, indexLabels(ix))
	}
	return pl.noPlatform()
}

func (pl *puller) noPlatform() error {
	return errclass.NotFound("no matching manifest for %s in the manifest list entries: no match for platform in manifest: not found", platforms.FormatAll(pl.want))
}

// image pulls the image of one manifest.
func (pl *puller) image(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	m, err := manifest.ParseManifest(data, desc.MediaType)
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		if _, err := manifest.Compression(l.MediaType); err != nil {
			return err
		}
	}
	conf, err := pl.document(ctx, m.Config, manifest.MaxConfig)
	if err != nil {
		return err
	}
	c, err := manifest.ParseConfig(conf)
	if err != nil {
		return err
	}
	if c.OS != "" && c.Architecture != "" && desc.Platform == nil && !platforms.Only(pl.want).Match(platforms.Normalize(c.Platform)) {
		return pl.noPlatform()
	}
	layers, err := layersOf(m, c)
	if err != nil {
		return err
	}
	t := &transfer{Service: pl.Service, p: pl.p, fetcher: pl.fetcher}
	if err := t.run(ctx, layers); err != nil {
		return err
	}
	if t.fetched.Load() {
		pl.fetched = true
	}
	chain := ""
	if len(layers) > 0 {
		chain = layers[len(layers)-1].chain.String()
	}
	if err := pl.save(ctx, m.Config, conf, configLabels(chain)); err != nil {
		return err
	}
	return pl.save(ctx, desc, data, manifestLabels(m))
}

func configLabels(chain string) map[string]string {
	if chain == "" {
		return nil
	}
	return map[string]string{"containerd.io/gc.ref.snapshot." + storage.SnapshotterName: chain}
}

func manifestLabels(m *ocispec.Manifest) map[string]string {
	labels := map[string]string{"containerd.io/gc.ref.content.config": m.Config.Digest.String()}
	for i, l := range m.Layers {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.l.%d", i)] = l.Digest.String()
	}
	return labels
}

func indexLabels(ix *ocispec.Index) map[string]string {
	labels := map[string]string{}
	for i, m := range ix.Manifests {
		labels[fmt.Sprintf("containerd.io/gc.ref.content.m.%d", i)] = m.Digest.String()
	}
	return labels
}

// repoDigests are the repositories of names with the target's digest.
func repoDigests(names []string, target string) []string {
	var out []string
	for _, n := range names {
		if strings.HasPrefix(n, dangling) {
			continue
		}
		ref, err := reference.ParseNormalizedNamed(n)
		if err != nil {
			continue
		}
		if d := reference.FamiliarName(ref) + "@" + target; !slices.Contains(out, d) {
			out = append(out, d)
		}
	}
	return out
}
