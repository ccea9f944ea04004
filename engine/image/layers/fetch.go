package layers

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/image/document"
	"github.com/gantry/gantry/engine/image/progress"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/unpack"
)

// fetch downloads a layer. While it is written to the store it is unpacked as well,
// unless a former attempt left a beginning of it: then the rest is fetched and the
// whole unpacked from the store. The caller holds the blob's lock.
func (t *transfer) fetch(ctx context.Context, l *layer, unpacked bool) error {
	ref := "layer-" + l.desc.Digest.String()
	w, err := t.store.Content.Writer(ctx, content.WithRef(ref), content.WithDescriptor(l.desc))
	if err != nil {
		return fmt.Errorf("storing layer %s: %w", l.short(), err)
	}
	defer w.Close()
	st, err := w.Status()
	if err != nil {
		return err
	}
	if st.Offset > l.desc.Size {
		if err := w.Truncate(0); err != nil {
			return err
		}
		st.Offset = 0
	}
	var sink *sink
	if st.Offset == 0 && !unpacked {
		if sink, err = t.sink(ctx, l); err != nil {
			return err
		}
		defer sink.abort()
	}
	if err := t.download(ctx, l, w, st.Offset, sink); err != nil {
		if storage.IsFull(err) || storage.IsFull(context.Cause(ctx)) {
			// Room at once, also from a download that ends because another one met the full
			// disk: even to forget things the database needs some.
			_ = w.Truncate(0)
		}
		return err
	}
	t.p.Update(l.short(), "Verifying Checksum", 0, 0)
	err = w.Commit(ctx, l.desc.Size, l.desc.Digest)
	if err != nil && !errdefs.IsAlreadyExists(err) {
		if got := w.Digest(); got != l.desc.Digest {
			// What is there is worthless for the next attempt.
			_ = t.store.Content.Abort(context.WithoutCancel(ctx), ref)
			return document.Mismatch("layer "+l.short(), got, l.desc.Digest)
		}
		return fmt.Errorf("storing layer %s: %w", l.short(), err)
	}
	t.p.Update(l.short(), "Download complete", 0, 0)
	switch {
	case sink != nil:
		l.active, err = sink.finish()
	case !unpacked:
		l.active, err = t.extractStored(ctx, l, nil, false)
	}
	return err
}

// download reads the layer from offset on, going on after failures. It takes one of
// the slots for downloads.
func (t *transfer) download(ctx context.Context, l *layer, w io.Writer, offset int64, sink *sink) error {
	select {
	case t.src.Slots <- struct{}{}:
	default:
		t.p.Update(l.short(), "Waiting", 0, 0)
		select {
		case t.src.Slots <- struct{}{}:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	defer func() { <-t.src.Slots }()
	m := progress.NewMeter(t.p, l.short(), "Downloading", offset, l.desc.Size)
	m.Report()
	for attempt := 1; ; attempt++ {
		before := offset
		err := t.downloadOnce(ctx, l, w, &offset, sink, m)
		if err == nil {
			return nil
		}
		if offset > before {
			attempt = 1
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if attempt >= t.src.Attempts || !again(err) {
			return fmt.Errorf("downloading layer %s: %w", l.short(), err)
		}
		t.p.Update(l.short(), fmt.Sprintf("Retrying in %d seconds", attempt), 0, 0)
		select {
		case <-time.After(time.Duration(attempt) * time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// writeError marks failures of our own side: trying again does not help.
type writeError struct{ error }

func (e writeError) Unwrap() error { return e.error }

func again(err error) bool {
	var we writeError
	return !errors.As(err, &we) && !errdefs.IsNotFound(err) && !errdefs.IsInvalidArgument(err) &&
		!errdefs.IsPermissionDenied(err) && !errdefs.IsUnauthorized(err) && !errdefs.IsDataLoss(err)
}

func (t *transfer) downloadOnce(ctx context.Context, l *layer, w io.Writer, offset *int64, sink *sink, m *progress.Meter) error {
	if *offset == l.desc.Size {
		return nil
	}
	rc, err := t.src.Fetcher.Fetch(ctx, l.desc)
	if err != nil {
		return err
	}
	defer rc.Close()
	if *offset > 0 {
		s, ok := rc.(io.Seeker)
		if !ok {
			return writeError{errclass.Internal("layer cannot be fetched from its middle")}
		}
		if _, err := s.Seek(*offset, io.SeekStart); err != nil {
			return err
		}
	}
	var own []byte
	if sink == nil {
		own = make([]byte, chunkSize)
	}
	for {
		buf := own
		if sink != nil {
			buf = sink.pipe.buffer()
		}
		n, err := rc.Read(buf)
		if n > 0 {
			if *offset+int64(n) > l.desc.Size {
				return document.Mismatch("layer "+l.short()+", which is longer than its manifest says,", "unknown", l.desc.Digest)
			}
			if _, werr := w.Write(buf[:n]); werr != nil {
				return writeError{werr}
			}
			*offset += int64(n)
			m.Add(n)
			if werr := sink.write(ctx, buf[:n]); werr != nil {
				return writeError{werr}
			}
		}
		switch {
		case errors.Is(err, io.EOF) && *offset == l.desc.Size:
			return nil
		case errors.Is(err, io.EOF):
			return io.ErrUnexpectedEOF
		case err != nil:
			return err
		}
	}
}

// sink unpacks a layer while it is downloaded. A nil sink takes what it is given and
// forgets it.
type sink struct {
	t    *transfer
	l    *layer
	st   *activeSnapshot
	pipe *pipe
	m    *progress.Meter
	done chan struct{}
	err  error
	kept bool
}

func (t *transfer) sink(ctx context.Context, l *layer) (*sink, error) {
	st, err := t.prepare(ctx, l)
	if err != nil {
		return nil, err
	}
	s := &sink{t: t, l: l, st: st, pipe: newPipe(), done: make(chan struct{})}
	s.m = progress.NewMeter(t.p, l.short(), "Extracting", 0, l.desc.Size)
	s.m.Mute()
	go func() {
		defer close(s.done)
		s.err = s.extract(ctx)
		s.pipe.stop()
	}()
	return s, nil
}

func (s *sink) extract(ctx context.Context) error {
	r, err := unpack.Decompress(s.m.Reader(s.pipe))
	if err != nil {
		return err
	}
	defer func() {
		s.pipe.stop() // ends a read under way
		r.Close()
	}()
	if s.st.result, err = unpack.Extract(ctx, r, int(s.st.dir.Fd()), unpack.Options{}); err != nil {
		return err
	}
	return s.l.verify(s.st.result)
}

// write hands a buffer over. When unpacking has failed because of what it was given,
// the rest is taken and forgotten: the blob's digest will tell who is to blame.
func (s *sink) write(ctx context.Context, p []byte) error {
	if s == nil {
		return nil
	}
	if s.pipe.write(ctx, p) {
		return nil
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	<-s.done
	if s.err != nil && !errdefs.IsInvalidArgument(s.err) && !errdefs.IsDataLoss(s.err) {
		return s.err
	}
	return nil
}

// finish waits until all is unpacked, once the blob has been verified.
func (s *sink) finish() (*activeSnapshot, error) {
	s.m.Unmute()
	s.pipe.end()
	<-s.done
	if s.err != nil {
		return nil, fmt.Errorf("layer %s: %w", s.l.short(), s.err)
	}
	s.kept = true
	return s.st, nil
}

// abort removes the active snapshot unless finish gave it away.
func (s *sink) abort() {
	if s.kept {
		return
	}
	s.pipe.stop()
	<-s.done
	s.t.discard(context.Background(), s.st)
}
