// Package pull fetches images from registries. It resolves the name, fetches the documents of
// the requested platform, then the layers, and stores the name last, so that nobody sees an
// incomplete image.
package pull

import (
	"context"
	"fmt"
	"net/http"
	"sync/atomic"

	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/distribution"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/layers"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	"github.com/moby/moby/api/types/events"
	"github.com/moby/moby/api/types/registry"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Options as POST /images/create takes them.
type Options struct {
	Ref      string // familiar reference, or "repo@digest"
	AllTags  bool
	Platform *ocispec.Platform
	Auth     *registry.AuthConfig // nil: anonymous
	// Headers of the client's request that go on to the registry (X-Meta-*).
	Headers map[string][]string
}

// Settings are what a new configuration may change.
type Settings struct {
	Registries *distribution.Client
	// Concurrent bounds the layers fetched at a time, Attempts the tries for one without
	// getting on; both are at least 1.
	Concurrent, Attempts int
}

// Names is what pulling asks of package names.
type Names interface {
	// Set makes name point to target, and returns what it pointed to before, or nil.
	Set(ctx context.Context, name string, target ocispec.Descriptor) (*ocispec.Descriptor, error)
	// Emit tells what happened to the image of that ID and name.
	Emit(action events.Action, id, name string)
}

// Puller pulls into one store. Safe for concurrent use.
type Puller struct {
	store    *storage.Store
	docs     *document.Store
	layers   *layers.Unpacker
	names    Names
	platform ocispec.Platform
	live     atomic.Pointer[live]
	flights  flights
}

// live are settings as they are used. They are replaced as a whole and never written to:
// work that is under way goes on with those it began with.
type live struct {
	registries *distribution.Client
	slots      chan struct{} // downloads at a time
	attempts   int
}

// New returns a puller over services that stay the caller's. platform is what is pulled
// when nobody says otherwise.
func New(store *storage.Store, docs *document.Store, l *layers.Unpacker, n Names, platform ocispec.Platform, s Settings) *Puller {
	p := &Puller{store: store, docs: docs, layers: l, names: n, platform: platform}
	p.Reconfigure(s)
	return p
}

// Reconfigure takes over new settings. Pulls under way go on as they began.
func (pl *Puller) Reconfigure(s Settings) {
	pl.live.Store(&live{registries: s.Registries, slots: make(chan struct{}, s.Concurrent), attempts: s.Attempts})
}

// Pull fetches an image, or all tags of a repository, and unpacks it. p gets Docker's
// lines. Several pulls of the same at a time share one transfer. Errors are Docker's
// words; their classes: NotFound (no such image, or no access to it), Unauthenticated,
// Unavailable (registry not reachable), InvalidArgument (reference, or an invalid image),
// DataLoss (digest mismatch), ResourceExhausted (no space).
func (pl *Puller) Pull(ctx context.Context, o Options, p progress.Sink) error {
	named, err := reference.ParseNormalizedNamed(o.Ref)
	if err != nil {
		return errclass.Invalid("invalid reference format")
	}
	if !o.AllTags {
		return pl.shared(ctx, reference.TagNameOnly(named), o, p)
	}
	if !reference.IsNameOnly(named) {
		return errclass.Invalid("tag can't be used with --all-tags/-a")
	}
	repo, err := pl.live.Load().registries.Repository(named, o.Auth, http.Header(o.Headers))
	if err != nil {
		return err
	}
	tags, err := repo.Tags(ctx)
	if err != nil {
		return distribution.ExplainPull(err, named, o.Auth != nil)
	}
	for _, t := range tags {
		tagged, err := reference.WithTag(named, t)
		if err != nil {
			return errclass.Invalid("registry lists an invalid tag %q", t)
		}
		if err := pl.shared(ctx, tagged, o, p); err != nil {
			return err
		}
	}
	return nil
}

func (pl *Puller) shared(ctx context.Context, named reference.Named, o Options, p progress.Sink) error {
	// Credentials are part of the key: nobody gets an image by another one's.
	key := named.String()
	if o.Platform != nil {
		key += " " + platforms.FormatAll(platforms.Normalize(*o.Platform))
	}
	if o.Auth != nil {
		key += fmt.Sprintf(" %q %q %q %q", o.Auth.Username, o.Auth.Password, o.Auth.IdentityToken, o.Auth.RegistryToken)
	}
	return pl.flights.do(ctx, key, p, func(ctx context.Context, p progress.Sink) error {
		return distribution.ExplainPull(pl.one(ctx, named, o, p), named, o.Auth != nil)
	})
}

// attempt is one pull under way.
type attempt struct {
	docs    *document.Store
	layers  *layers.Unpacker
	p       progress.Sink
	repo    *distribution.Repository
	source  layers.Source
	driver  string // of the storage
	want    ocispec.Platform
	ref     string
	fetched bool // something came over the network
}

// one pulls one name.
func (pl *Puller) one(ctx context.Context, named reference.Named, o Options, p progress.Sink) (err error) {
	set := pl.live.Load()
	repo, err := set.registries.Repository(named, o.Auth, http.Header(o.Headers))
	if err != nil {
		return err
	}
	desc, err := repo.Resolve(ctx, named)
	if err != nil {
		return err
	}
	a := &attempt{
		docs: pl.docs, layers: pl.layers, p: p, repo: repo,
		source: layers.Source{Fetcher: repo, Slots: set.slots, Attempts: set.attempts},
		driver: pl.store.Driver().Name, want: pl.platform, ref: reference.FamiliarString(named),
	}
	if o.Platform != nil {
		a.want = platforms.Normalize(*o.Platform)
	}
	p.Update(tagOf(named), "Pulling from "+reference.Path(named), 0, 0)
	ctx, done, err := pl.store.Work(ctx)
	if err != nil {
		return err
	}
	defer func() { done(err, true) }()
	target, err := a.target(ctx, desc)
	if err != nil {
		return err
	}
	old, err := pl.names.Set(ctx, named.String(), target)
	if err != nil {
		return err
	}
	p.Update("", "Digest: "+target.Digest.String(), 0, 0)
	if old != nil && old.Digest == target.Digest && !a.fetched {
		p.Update("", "Status: Image is up to date for "+a.ref, 0, 0)
	} else {
		p.Update("", "Status: Downloaded newer image for "+a.ref, 0, 0)
	}
	pl.names.Emit(events.ActionPull, a.ref, reference.FamiliarName(named))
	return nil
}

// tagOf is the tag or digest of a name.
func tagOf(named reference.Named) string {
	switch n := named.(type) {
	case reference.Digested:
		return n.Digest().String()
	case reference.Tagged:
		return n.Tag()
	}
	return ""
}

// document returns an index, manifest or configuration, fetched unless it is stored
// already. It is not stored yet.
func (a *attempt) document(ctx context.Context, desc ocispec.Descriptor, limit int64) ([]byte, error) {
	if data, err := a.docs.Read(ctx, desc, limit); !errdefs.IsNotFound(err) {
		return data, err
	}
	if desc.Size <= limit {
		a.fetched = true
	}
	return a.repo.Document(ctx, desc, limit)
}

// target fetches what a name points to and the platform's image in it.
func (a *attempt) target(ctx context.Context, desc ocispec.Descriptor) (ocispec.Descriptor, error) {
	if manifest.IsSchema1(desc.MediaType) {
		return desc, manifest.ErrSchema1(a.ref)
	}
	data, err := a.document(ctx, desc, manifest.MaxSize)
	if err != nil {
		return desc, err
	}
	mt, err := manifest.Sniff(data, desc.MediaType)
	if err != nil {
		return desc, err
	}
	desc.MediaType, desc.Size = mt, int64(len(data))
	return desc, a.descend(ctx, desc, data, 0)
}

// descend goes from an index to the manifest of the platform, and pulls that.
func (a *attempt) descend(ctx context.Context, desc ocispec.Descriptor, data []byte, depth int) error {
	if manifest.IsSchema1(desc.MediaType) {
		return manifest.ErrSchema1(a.ref)
	}
	if manifest.IsManifest(desc.MediaType) {
		return a.image(ctx, desc, data)
	}
	if depth >= manifest.MaxDepth {
		return errclass.Invalid("image index is nested too deeply")
	}
	ix, err := manifest.ParseIndex(data, desc.MediaType)
	if err != nil {
		return err
	}
	for _, d := range manifest.Select(ix, platforms.Only(a.want)) {
		child, err := a.document(ctx, d, manifest.MaxSize)
		if err != nil {
			return err
		}
		mt, err := manifest.Sniff(child, d.MediaType)
		if err != nil {
			return err
		}
		d.MediaType = mt
		err = a.descend(ctx, d, child, depth+1)
		if errdefs.IsNotFound(err) && d.Platform == nil {
			continue // of another platform, as it turned out
		}
		if err != nil {
			return err
		}
		return a.docs.Save(ctx, desc, data, document.IndexLabels(ix))
	}
	return a.noPlatform()
}

func (a *attempt) noPlatform() error {
	return errclass.NotFound("no matching manifest for %s in the manifest list entries: no match for platform in manifest: not found", platforms.FormatAll(a.want))
}

// image pulls the image of one manifest.
func (a *attempt) image(ctx context.Context, desc ocispec.Descriptor, data []byte) error {
	m, err := manifest.ParseManifest(data, desc.MediaType)
	if err != nil {
		return err
	}
	for _, l := range m.Layers {
		if _, err := manifest.Compression(l.MediaType); err != nil {
			return err
		}
	}
	conf, err := a.document(ctx, m.Config, manifest.MaxConfig)
	if err != nil {
		return err
	}
	c, err := manifest.ParseConfig(conf)
	if err != nil {
		return err
	}
	if c.OS != "" && c.Architecture != "" && desc.Platform == nil && !platforms.Only(a.want).Match(platforms.Normalize(c.Platform)) {
		return a.noPlatform()
	}
	chain, fetched, err := a.layers.Get(ctx, m, c, &a.source, a.p)
	if err != nil {
		return err
	}
	a.fetched = a.fetched || fetched
	if err := a.docs.Save(ctx, m.Config, conf, document.ConfigLabels(a.driver, chain)); err != nil {
		return err
	}
	return a.docs.Save(ctx, desc, data, document.ManifestLabels(m))
}

// Login asks a registry whether it takes the credentials; see distribution.Client.
func (pl *Puller) Login(ctx context.Context, a registry.AuthConfig) error {
	return pl.live.Load().registries.Login(ctx, a)
}
