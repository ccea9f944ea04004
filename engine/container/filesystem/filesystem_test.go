package filesystem

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/fsm"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/image"
	"github.com/gantry/gantry/internal/event"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage"
	"github.com/gantry/gantry/storage/rootview"
	"github.com/moby/moby/api/types/container"
	"golang.org/x/sys/unix"
)

// disk is one container's image and layer.
type disk struct {
	lower string
	layer storage.Layer
}

func (d *disk) LeaseOf(context.Context, string) (*image.RootfsLease, error) {
	return &image.RootfsLease{Lower: []string{d.lower}}, nil
}

func (d *disk) Get(string) (storage.Layer, error) { return d.layer, nil }

func (d *disk) View(context.Context, string, *os.File, rootview.Access) (*os.File, error) {
	return rootview.Merge(d.layer.Dirs([]string{d.lower}))
}

func do(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, p, text string) {
	t.Helper()
	do(t, os.WriteFile(p, []byte(text), 0o644))
}

// reader reads one container, in the given phase, that has an image with /etc/passwd and /f.
func reader(t *testing.T, whole bool, phase fsm.Phase) (*Reader, *disk, string) {
	t.Helper()
	d := &disk{lower: t.TempDir(), layer: storage.Layer{Upper: t.TempDir(), Work: t.TempDir()}}
	if whole {
		d.layer = storage.Layer{Path: t.TempDir()}
	}
	tops := []string{d.lower}
	if whole {
		tops = append(tops, d.layer.Path)
	}
	for _, top := range tops {
		do(t, os.Mkdir(top+"/etc", 0o755))
		write(t, top+"/etc/passwd", "root")
		write(t, top+"/f", "1")
		do(t, os.Chtimes(top+"/f", stamp(), stamp()), os.Chtimes(top+"/etc/passwd", stamp(), stamp()))
	}
	cid := id.New()
	x := store.NewIndex()
	do(t, x.Reserve("box", cid))
	x.Add(store.NewContainer(&store.Record{ID: cid, Name: "box", Config: &container.Config{}, HostConfig: &container.HostConfig{}},
		&store.View{State: fsm.State{Phase: phase}}))
	return New(x, d, d, event.New()), d, cid
}

func TestChanges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlayfs")
	}
	for _, c := range []struct {
		name  string
		whole bool
		// note makes overlayfs keep more than a walk of the layer sees.
		note bool
	}{{name: "overlay"}, {name: "whole tree", whole: true}, {name: "overlay with notes", note: true}} {
		t.Run(c.name, func(t *testing.T) {
			r, d, cid := reader(t, c.whole, fsm.Exited)
			if list, err := r.Changes(t.Context(), cid); list != nil || err != nil {
				t.Errorf("nothing changed: %v %v", list, err)
			}
			top := d.layer.Dirs(nil)[0]
			do(t, os.MkdirAll(top+"/etc", 0o755), os.Mkdir(top+"/proc", 0o755))
			write(t, top+"/etc/hosts", "")
			write(t, top+"/etc/motd", "hello")
			if c.note {
				do(t, unix.Setxattr(top+"/proc", "trusted.overlay.redirect", []byte("nowhere"), 0))
			}
			list, err := r.Changes(t.Context(), cid)
			var got []string
			for _, x := range list {
				got = append(got, x.Kind.String()+" "+x.Path)
			}
			if want := "C /etc,A /etc/motd"; err != nil || strings.Join(got, ",") != want {
				t.Errorf("%q %v, want %q", got, err, want)
			}
		})
	}
	r, _, _ := reader(t, true, fsm.Exited)
	if _, err := r.Changes(t.Context(), "nobody"); !errdefs.IsNotFound(err) || err.Error() != "No such container: nobody" {
		t.Error(err)
	}
}

func TestExport(t *testing.T) {
	r, d, _ := reader(t, true, fsm.Exited)
	began := time.Now()
	do(t, os.Symlink("/etc/passwd", d.layer.Path+"/link"))
	var b bytes.Buffer
	do(t, r.Export(t.Context(), "box", &b))
	var names []string
	for a := tar.NewReader(&b); ; {
		h, err := a.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		do(t, err)
		names = append(names, h.Name)
	}
	if got, want := strings.Join(names, " "), "etc/ etc/passwd f link"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	told, sub := r.bus.Subscribe(began)
	defer sub.Close()
	if len(told) != 1 || told[0].Action != "export" {
		t.Errorf("events %v", told)
	}
}

func TestExportRefused(t *testing.T) {
	for _, c := range []struct {
		name, ref, text string
		phase           fsm.Phase
		is              func(error) bool
	}{
		{"nobody", "nobody", "No such container: nobody", fsm.Exited, errdefs.IsNotFound},
		{"dead", "box", "You cannot export container %s which is Dead", fsm.Dead, errdefs.IsConflict},
		{"removing", "box", "You cannot export container %s which is being removed", fsm.Removing, errdefs.IsConflict},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, _, cid := reader(t, true, c.phase)
			err := r.Export(t.Context(), c.ref, io.Discard)
			if !c.is(err) || err.Error() != strings.Replace(c.text, "%s", cid, 1) {
				t.Error(err)
			}
		})
	}
	t.Run("client gone", func(t *testing.T) {
		r, _, _ := reader(t, true, fsm.Exited)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := r.Export(ctx, "box", io.Discard)
		if !errors.Is(err, context.Canceled) || !strings.HasPrefix(err.Error(), "Error exporting container box: ") {
			t.Error(err)
		}
	})
}

// stamp is the time of an image's files: whole seconds, as archives have it.
func stamp() time.Time { return time.Unix(1_600_000_000, 0) }
