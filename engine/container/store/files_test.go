package store

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/moby/moby/api/types/container"
)

func files(t *testing.T) *Files {
	t.Helper()
	dir := t.TempDir()
	f, err := Open(filepath.Join(dir, "data"), filepath.Join(dir, "exec"))
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// The last whole line of a run's record counts: a kill may tear the one after it.
func TestTornRun(t *testing.T) {
	f, cid := files(t), strings.Repeat("ab", 32)
	if _, err := f.Run(cid); !errdefs.IsNotFound(err) {
		t.Errorf("without a record: %v", err)
	}
	file, err := f.OpenRun(cid)
	must(t, err)
	must(t, file.Save(&Run{Schema: Schema, Number: 1, Phase: "starting"}))
	must(t, file.Save(&Run{Schema: Schema, Number: 1, Phase: "running", Pid: 7}))
	_, err = file.f.WriteString(`{"schema":1,"run":1,"ph`)
	must(t, err)
	must(t, file.Close())
	if r, err := f.Run(cid); err != nil || r.Phase != "running" || r.Pid != 7 {
		t.Errorf("%+v %v", r, err)
	}
	file, err = f.AppendRun(cid)
	must(t, err)
	defer file.Close()
	_, err = file.f.WriteString("\n")
	must(t, err)
	must(t, file.Save(&Run{Schema: Schema + 1, Number: 1}))
	if _, err := f.Run(cid); err == nil || !strings.Contains(err.Error(), "schema version 2, this daemon knows up to 1") {
		t.Errorf("a newer version's: %v", err)
	}
	must(t, f.DropRun(cid))
	if runs, err := f.Runs(); err != nil || len(runs) != 0 {
		t.Errorf("%v %v", runs, err)
	}
}

func TestRemoval(t *testing.T) {
	f, cid, other := files(t), strings.Repeat("ab", 32), strings.Repeat("cd", 32)
	must(t, f.Create(cid))
	must(t, os.WriteFile(filepath.Join(filepath.Dir(f.Dir(cid)), "stray"), nil, 0o600))
	if _, err := f.Record(cid); !errdefs.IsNotFound(err) {
		t.Errorf("half made: %v", err)
	}
	r := &Record{Schema: Schema, ID: cid, Name: "web", Config: &container.Config{}, HostConfig: &container.HostConfig{}}
	must(t, f.SaveRecord(r))
	if got, err := f.Record(cid); err != nil || got.Name != "web" {
		t.Errorf("%+v %v", got, err)
	}
	must(t, f.BeginRemoval(cid, true))
	must(t, f.BeginRemoval(cid, true)) // it can be repeated
	if f.Exists(cid) {
		t.Error("it is still there")
	}
	begun, err := f.Removing()
	if all, aerr := f.All(); err != nil || aerr != nil || !slices.Equal(begun, []string{cid}) || len(all) != 0 {
		t.Errorf("%v %v %v %v", begun, err, all, aerr)
	}
	if got, volumes, err := f.Removed(cid); err != nil || got.Name != "web" || !volumes {
		t.Errorf("%+v %v %v", got, volumes, err)
	}
	f.UndoRemoval(cid)
	if !f.Exists(cid) {
		t.Error("it did not come back")
	}
	// A record that is another container's is nobody's.
	must(t, os.Rename(f.Dir(cid), f.Dir(other)))
	if _, err := f.Record(other); err == nil || errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
	must(t, f.BeginRemoval(other, false))
	if _, _, err := f.Removed(other); err == nil {
		t.Error("its volumes are not this one's")
	}
	must(t, f.FinishRemoval(other))
	must(t, f.FinishRemoval(other))
	if begun, err := f.Removing(); err != nil || len(begun) != 0 {
		t.Errorf("%v %v", begun, err)
	}
}

func TestEditHostFile(t *testing.T) {
	f, cid := files(t), strings.Repeat("ab", 32)
	must(t, f.Create(cid))
	must(t, os.WriteFile(f.HostFile(cid, "hosts"), []byte("a\n"), 0o644))
	before, err := os.Stat(f.HostFile(cid, "hosts"))
	must(t, err)
	must(t, f.EditHostFile(cid, "hosts", func(b []byte) []byte { return append(b, "b\n"...) }))
	after, err := os.Stat(f.HostFile(cid, "hosts"))
	must(t, err)
	if !os.SameFile(before, after) {
		t.Error("it is another file: the container does not see it")
	}
	if data, err := os.ReadFile(f.HostFile(cid, "hosts")); err != nil || string(data) != "a\nb\n" {
		t.Errorf("%q %v", data, err)
	}
	if err := f.EditHostFile(cid, "hostname", nil); !errdefs.IsNotFound(err) {
		t.Errorf("%v", err)
	}
}
