package fdstore

import (
	"errors"
	"log/slog"
	"os"
	"slices"
	"testing"
)

// fake holds nothing but names.
type fake struct {
	names   []string
	dropped []string
	fail    error
}

func (f *fake) Store(string, *os.File) error { return nil }
func (f *fake) Drop(name string) error       { f.dropped = append(f.dropped, name); return f.fail }

func (f *fake) TakeAll(string) (map[string]*os.File, error) {
	out := map[string]*os.File{}
	for _, n := range f.names {
		file, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		out[n] = file
	}
	return out, f.fail
}

// What containers have is theirs; what nobody has is closed and dropped, once.
func TestRestore(t *testing.T) {
	s := &fake{names: []string{"port/a", "port/b"}}
	r := Restore(s, "port/", slog.New(slog.DiscardHandler))
	rest := r.files["port/b"]
	f := r.Take("port/a")
	if f == nil || r.Take("port/a") != nil || r.Take("port/c") != nil {
		t.Error("a descriptor twice, or none")
	}
	r.DropRest()
	r.DropRest()
	if !slices.Equal(s.dropped, []string{"port/b"}) {
		t.Errorf("dropped %v", s.dropped)
	}
	if err := f.Close(); err != nil {
		t.Errorf("what was taken: %v", err)
	}
	if err := rest.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("what nobody took: %v", err)
	}
}

// Without a store, and with one that fails, there is nothing and nothing ends.
func TestNothing(t *testing.T) {
	for name, s := range map[string]Store{"none": nil, "away": &fake{fail: errors.New("away")}} {
		t.Run(name, func(t *testing.T) {
			r := Restore(s, "port/", slog.New(slog.DiscardHandler))
			if r.Take("port/a") != nil {
				t.Error("something")
			}
			r.DropRest()
		})
	}
}
