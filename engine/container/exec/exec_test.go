package exec

import (
	"strconv"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/engine/container/stream"
	"github.com/moby/moby/api/types/container"
)

func newContainer(id string) *store.Container {
	return store.NewContainer(&store.Record{ID: id, Config: &container.Config{}}, &store.View{})
}

// Finished execs are kept for a while, and running ones do not grow without bound.
func TestBounds(t *testing.T) {
	x := New(nil, nil, nil, nil, nil, nil)
	c, other := newContainer("c"), newContainer("other")
	add := func(c *store.Container, i int, ended bool) error {
		return x.add(&process{id: c.ID + strconv.Itoa(i), c: c, started: true, ended: ended, running: !ended})
	}
	for i := range maxFinished + 50 {
		if err := add(c, i, true); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(x.of["c"]); n != maxFinished {
		t.Errorf("%d finished execs are kept", n)
	}
	if _, err := x.get("c0"); !errdefs.IsNotFound(err) {
		t.Errorf("the oldest one is still there: %v", err)
	}
	if _, err := x.get("c" + strconv.Itoa(maxFinished+49)); err != nil {
		t.Error(err)
	}
	for i := range maxOpen {
		if err := add(other, i, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := add(other, maxOpen, false); !errdefs.IsResourceExhausted(err) {
		t.Errorf("%v", err)
	}
	x.Drop("other")
	if len(x.of["other"]) != 0 || len(x.byID) != maxFinished {
		t.Errorf("%d and %d are left", len(x.of["other"]), len(x.byID))
	}
}

// The end of a run ends its execs once, and not those of the run after it.
func TestEnd(t *testing.T) {
	x := New(nil, nil, nil, nil, nil, nil)
	c := newContainer("c")
	old, now, unused := &process{id: "old", c: c, started: true, running: true, run: 1}, &process{id: "now", c: c, started: true, running: true, run: 2}, &process{id: "unused", c: c}
	for _, p := range []*process{old, now, unused} {
		if err := x.add(p); err != nil {
			t.Fatal(err)
		}
	}
	x.End("c", 1)
	if !old.ended || *old.exitCode != 137 || now.ended || unused.ended {
		t.Errorf("%+v %+v %+v", old, now, unused)
	}
	if old.finish(1, 5) || *old.exitCode != 137 {
		t.Error("it ended twice")
	}
	if ids := x.Running("c"); len(ids) != 1 || ids[0] != "now" {
		t.Errorf("%q", ids)
	}
}

// A client is told in its stream why its process did not start.
func TestClientIsToldWhy(t *testing.T) {
	for _, mux := range []bool{false, true} {
		t.Run(strconv.FormatBool(mux), func(t *testing.T) {
			conn, peer := pair(t)
			c := stream.Client{Conn: conn}
			c.Spec.Mux = mux
			c.Fail(errdefs.ErrNotFound)
			buf := make([]byte, 100)
			n, err := peer.Read(buf)
			want := errdefs.ErrNotFound.Error() + "\r\n"
			if mux {
				want = "\x01\x00\x00\x00\x00\x00\x00" + string(rune(len(want))) + want
			}
			if err != nil || string(buf[:n]) != want {
				t.Errorf("%q %v, want %q", buf[:n], err, want)
			}
		})
	}
}
