// Package layers fetches and unpacks the layers of images. Layers are fetched side by side, and
// each is unpacked while its blob arrives, into an active snapshot. A layer is committed once
// the layer below it is.
package layers

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/manifest"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/tree"
	"github.com/gantry/gantry/storage/unpack"
	dockerspec "github.com/moby/docker-image-spec/specs-go/v1"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"
)

// stagePrefix marks snapshots that are being filled; after a crash they are removed.
const stagePrefix = "extract/"

// chunkSize is how much is read from the network at a time.
const chunkSize = 256 << 10

// Fetcher opens blobs of a registry; distribution.Repository is one. Streams are
// io.Seekers, so that a download goes on where the last one ended. The caller closes
// them. Errors of class NotFound, InvalidArgument, PermissionDenied, Unauthenticated and
// DataLoss are final; after others another try may succeed.
type Fetcher interface {
	Fetch(ctx context.Context, desc ocispec.Descriptor) (io.ReadCloser, error)
}

// Source is where blobs come from that are not stored.
type Source struct {
	Fetcher Fetcher
	// Slots bounds the downloads at a time, of all who share it.
	Slots chan struct{}
	// Attempts is how often one download is tried without getting on.
	Attempts int
}

// Unpacker gets layers and unpacks them. Safe for concurrent use: a call for
// a layer that another call is getting waits for that.
type Unpacker struct {
	store *storage.Store
	docs  *document.Store
	blobs keyLock // one transfer per blob
}

// New returns an unpacker over a store, which stays the caller's.
func New(store *storage.Store, docs *document.Store) *Unpacker {
	return &Unpacker{store: store, docs: docs}
}

// LockBlob waits until nobody else brings in the blob; unlock lets the next one do so.
func (u *Unpacker) LockBlob(ctx context.Context, d digest.Digest) (unlock func(), err error) {
	return u.blobs.lock(ctx, d.String())
}

// Get makes the layers of an image be there, unpacked, and returns the chain ID of the
// topmost ("" without layers), and whether something came from the source. Blobs that
// are not stored come from src; without one they are an error of class NotFound. ctx
// is of storage.Store.Work, whose lease holds what is got. Other classes: InvalidArgument
// (the image is not valid), DataLoss (a digest does not fit), those of src, and none.
func (u *Unpacker) Get(ctx context.Context, m *ocispec.Manifest, c *dockerspec.DockerOCIImage, src *Source, p progress.Sink) (chain digest.Digest, fetched bool, err error) {
	layers, err := layersOf(m, c)
	if err != nil {
		return "", false, err
	}
	t := &transfer{store: u.store, blobs: &u.blobs, src: src, p: p}
	if err := t.run(ctx, layers); err != nil {
		return "", false, err
	}
	if len(layers) > 0 {
		chain = layers[len(layers)-1].chain
	}
	return chain, t.fetched.Load(), nil
}

// Unpack unpacks the image of a manifest whose blobs are all stored, and makes its
// configuration refer to its layers. ctx and errors as Get's.
func (u *Unpacker) Unpack(ctx context.Context, desc ocispec.Descriptor, c *dockerspec.DockerOCIImage, p progress.Sink) error {
	m, err := u.docs.Manifest(ctx, desc)
	if err != nil {
		return err
	}
	chain, _, err := u.Get(ctx, m, c, nil, p)
	if err != nil {
		return err
	}
	conf, err := u.docs.Read(ctx, m.Config, manifest.MaxConfig)
	if err != nil {
		return fmt.Errorf("configuration of image: %w", err)
	}
	return u.docs.Save(ctx, m.Config, conf, document.ConfigLabels(u.store.Driver().Name, chain))
}

// RemoveUnfinished removes layers that were being unpacked when a crash cut that off. It
// is called before anything is unpacked.
func (u *Unpacker) RemoveUnfinished(ctx context.Context) error {
	ctx = storage.Context(ctx)
	var stale []string
	err := u.store.Snapshots.Walk(ctx, func(_ context.Context, i snapshots.Info) error {
		if strings.HasPrefix(i.Name, stagePrefix) {
			stale = append(stale, i.Name)
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("looking for unfinished layers: %w", err)
	}
	for _, k := range stale {
		if err := u.store.Snapshots.Remove(ctx, k); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("removing unfinished layer: %w", err)
		}
	}
	return nil
}

// layer is one layer of an image.
type layer struct {
	desc          ocispec.Descriptor
	diffID        digest.Digest
	chain, parent digest.Digest // parent is "" for the lowest

	active *activeSnapshot
	ready  chan struct{} // closed when active is complete, or nothing is to be extracted
}

func layersOf(m *ocispec.Manifest, c *dockerspec.DockerOCIImage) ([]*layer, error) {
	chains, err := manifest.ChainIDs(m, c)
	if err != nil {
		return nil, err
	}
	var layers []*layer
	for i, d := range m.Layers {
		l := &layer{desc: d, diffID: c.RootFS.DiffIDs[i], chain: chains[i], ready: make(chan struct{})}
		if i > 0 {
			l.parent = chains[i-1]
		}
		layers = append(layers, l)
	}
	return layers, nil
}

// short is what progress calls the layer.
func (l *layer) short() string { return id.Short(l.desc.Digest.String()) }

// activeSnapshot is the directory that a layer is extracted into. It has no parent until it
// is committed, so that no layer waits for the one below it.
type activeSnapshot struct {
	key    string
	dir    *os.File
	result unpack.Result
	synced bool // on the disk, with all that is in it
}

// transfer fetches the layers of one image and unpacks them, side by side.
type transfer struct {
	store   *storage.Store
	blobs   *keyLock
	p       progress.Sink
	src     *Source     // nil: all blobs are stored already
	fetched atomic.Bool // something came over the network
}

// run makes all layers' snapshots. ctx carries the lease that holds them.
func (t *transfer) run(ctx context.Context, layers []*layer) error {
	have, err := t.existing(ctx, layers)
	if err != nil {
		return err
	}
	defer func() {
		for _, l := range layers {
			if l.active != nil {
				t.discard(ctx, l.active)
			}
		}
	}()
	g, gctx := errgroup.WithContext(ctx)
	for i, l := range layers {
		g.Go(func() error {
			defer close(l.ready)
			return t.layer(gctx, l, i < have)
		})
	}
	g.Go(func() error { return t.commitAll(gctx, layers, have) })
	return g.Wait()
}

// existing counts the layers, from the lowest, that are unpacked already, and makes
// the lease hold them.
func (t *transfer) existing(ctx context.Context, layers []*layer) (int, error) {
	for i := len(layers) - 1; i >= 0; i-- {
		if err := t.store.HoldChain(ctx, layers[i].chain); err != nil {
			return 0, err
		}
		_, err := t.store.Snapshots.Stat(ctx, layers[i].chain.String())
		if err == nil {
			return i + 1, nil
		}
		if !errdefs.IsNotFound(err) {
			return 0, err
		}
	}
	return 0, nil
}

// layer gets one layer's blob and, unless unpacked tells it is not needed, its active snapshot.
func (t *transfer) layer(ctx context.Context, l *layer, unpacked bool) error {
	if !unpacked {
		t.p.Update(l.short(), "Pulling fs layer", 0, 0)
	}
	unlock, err := t.blobs.tryLock(l.desc.Digest.String())
	if err != nil {
		t.p.Update(l.short(), "Waiting", 0, 0)
		if unlock, err = t.blobs.lock(ctx, l.desc.Digest.String()); err != nil {
			return err
		}
	}
	defer unlock()
	stored, err := t.stored(ctx, l.desc)
	if err != nil {
		return err
	}
	switch {
	case stored && unpacked:
		t.p.Update(l.short(), "Already exists", 0, 0)
		return nil
	case stored:
		t.p.Update(l.short(), "Download complete", 0, 0)
		l.active, err = t.extractStored(ctx, l, nil, false)
		return err
	case t.src == nil:
		return errclass.NotFound("layer %s of the image is missing", l.desc.Digest)
	}
	t.fetched.Store(true)
	if err := t.fetch(ctx, l, unpacked); err != nil || !unpacked {
		return err
	}
	t.p.Update(l.short(), "Pull complete", 0, 0)
	return nil
}

// stored reports whether a blob is there, and makes the lease hold it if so.
func (t *transfer) stored(ctx context.Context, desc ocispec.Descriptor) (bool, error) {
	info, err := t.store.Content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if desc.Size > 0 && info.Size != desc.Size {
		return false, errclass.Invalid("layer %s has %d bytes, the manifest says %d", desc.Digest, info.Size, desc.Size)
	}
	if err := t.store.HoldBlob(ctx, desc.Digest); err != nil {
		return false, err
	}
	// It may have been collected before the lease held it.
	_, err = t.store.Content.Info(ctx, desc.Digest)
	if errdefs.IsNotFound(err) {
		return false, nil
	}
	return err == nil, err
}

// prepare makes an empty active snapshot.
func (t *transfer) prepare(ctx context.Context, l *layer) (*activeSnapshot, error) {
	key := stagePrefix + id.Short(id.New()) + "/" + l.chain.String()
	mounts, err := t.store.Snapshots.Prepare(ctx, key, "")
	if err != nil {
		return nil, fmt.Errorf("preparing layer: %w", err)
	}
	st := &activeSnapshot{key: key}
	if len(mounts) != 1 || !strings.HasSuffix(mounts[0].Type, "bind") {
		t.discard(ctx, st)
		return nil, errclass.Internal("snapshotter gives no directory for a layer")
	}
	if st.dir, err = os.Open(mounts[0].Source); err != nil {
		t.discard(ctx, st)
		return nil, fmt.Errorf("preparing layer: %w", err)
	}
	return st, nil
}

// discard removes an active snapshot that will not become a layer.
func (t *transfer) discard(ctx context.Context, st *activeSnapshot) {
	if st.dir != nil {
		// Now, not when it is collected: the disk may be full.
		_ = tree.Empty(int(st.dir.Fd()))
		st.dir.Close()
	}
	if err := t.store.Snapshots.Remove(storage.Context(context.WithoutCancel(ctx)), st.key); err == nil {
		t.store.Collect()
	}
}

// extractStored unpacks a stored blob into a new active snapshot. base are the layers below, when
// they are known to be needed.
func (t *transfer) extractStored(ctx context.Context, l *layer, base []int, known bool) (*activeSnapshot, error) {
	ra, err := t.store.Content.ReaderAt(ctx, l.desc)
	if err != nil {
		return nil, err
	}
	defer ra.Close()
	m := progress.NewMeter(t.p, l.short(), "Extracting", 0, ra.Size())
	st, err := t.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	r, err := unpack.Decompress(m.Reader(content.NewReader(ra)))
	if err == nil {
		st.result, err = unpack.Extract(ctx, r, int(st.dir.Fd()), unpack.Options{Base: base, KnowBase: known})
		r.Close()
	}
	if err == nil {
		err = l.verify(st.result)
	}
	if err != nil {
		t.discard(ctx, st)
		return nil, fmt.Errorf("layer %s: %w", l.short(), err)
	}
	return st, nil
}

// verify compares what was unpacked with what the configuration promises.
func (l *layer) verify(r unpack.Result) error {
	if r.DiffID != l.diffID {
		return document.Mismatch("content of layer", r.DiffID, l.diffID)
	}
	return nil
}

// commitAll commits the active snapshots from the lowest on, each as soon as it is ready.
func (t *transfer) commitAll(ctx context.Context, layers []*layer, have int) error {
	for i, l := range layers {
		select {
		case <-l.ready:
		case <-ctx.Done():
			return ctx.Err()
		}
		if i < have {
			continue
		}
		if l.active == nil {
			return ctx.Err() // its goroutine's error is the one that counts
		}
		if err := t.commit(ctx, l, layers[i:]); err != nil {
			return fmt.Errorf("layer %s: %w", l.short(), err)
		}
		t.p.Update(l.short(), "Pull complete", 0, 0)
	}
	return nil
}

// commit makes a layer's snapshot of its active snapshot; rest are it and those above it.
func (t *transfer) commit(ctx context.Context, l *layer, rest []*layer) error {
	if err := t.complete(ctx, l); err != nil {
		return err
	}
	if err := syncActive(l, rest); err != nil {
		return err
	}
	var opts []snapshots.Opt
	if l.parent != "" {
		opts = append(opts, snapshots.WithParent(l.parent.String()))
	}
	err := t.store.Snapshots.Commit(ctx, l.chain.String(), l.active.key, opts...)
	if errdefs.IsAlreadyExists(err) {
		// Another pull was faster; the lease holds that one now.
		t.discard(ctx, l.active)
		l.active, err = nil, nil
	}
	if err != nil {
		return fmt.Errorf("storing layer: %w", err)
	}
	if l.active != nil {
		l.active.dir.Close()
		l.active = nil
	}
	return nil
}

// syncActive writes an active snapshot to the disk before the database says that the layer is there:
// else files could be empty after a power cut, and no later pull would fetch them again.
// One sync of the file system takes along every active snapshot that is complete by then.
func syncActive(l *layer, rest []*layer) error {
	if l.active.synced {
		return nil
	}
	var done []*activeSnapshot
	for _, o := range rest {
		select {
		case <-o.ready:
			if o.active != nil {
				done = append(done, o.active)
			}
		default:
		}
	}
	if err := unix.Syncfs(int(l.active.dir.Fd())); err != nil {
		return fmt.Errorf("writing to the disk: %w", err)
	}
	for _, st := range done {
		st.synced = true
	}
	return nil
}

// complete finishes an active snapshot with what only the layers below can tell.
func (t *transfer) complete(ctx context.Context, l *layer) error {
	if l.parent == "" {
		if l.active.result.NeedBase {
			return errclass.Invalid("hard link to a file that does not exist")
		}
		return nil
	}
	lower, err := t.store.LowerDirs(ctx, l.parent)
	if err != nil {
		return err
	}
	var base []int
	defer func() {
		for _, fd := range base {
			unix.Close(fd)
		}
	}()
	for _, d := range lower {
		fd, err := unix.Open(d, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		base = append(base, fd)
	}
	redo := l.active.result.NeedBase
	if !redo {
		// What it puts right is not on the disk.
		l.active.synced = l.active.synced && len(l.active.result.Implicit) == 0
		redo, err = unpack.Complete(int(l.active.dir.Fd()), l.active.result.Implicit, base)
	}
	if err != nil || !redo {
		return err
	}
	t.discard(ctx, l.active)
	l.active = nil
	st, err := t.extractStored(ctx, l, base, true)
	if err != nil {
		return err
	}
	l.active = st
	_, err = unpack.Complete(int(st.dir.Fd()), st.result.Implicit, base)
	return err
}
