package shimd

import (
	"os"
	"testing"

	"github.com/gantry/gantry/oci"
	"github.com/gantry/gantry/shim"
	"golang.org/x/sys/unix"
)

// TestAbandon lets holding a started process fail: the process is ended and reaped.
func TestAbandon(t *testing.T) {
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	child, err := os.StartProcess("/bin/sleep", []string{"sleep", "600"}, &os.ProcAttr{Files: []*os.File{null, null, null}})
	if err != nil {
		t.Skip(err)
	}
	fd, err := unix.PidfdOpen(child.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	gone := os.NewFile(uintptr(fd), "pidfd")
	gone.Close() // cannot be duplicated
	s := New(t.TempDir(), t.Logf)
	defer s.tidy.Stop()
	key := shim.Key{Container: "c", Exec: "e"}
	op := &oci.Process{Pid: child.Pid, PidFD: gone}
	if err := s.hold(&proc{s: s, key: key}, op, &streams{}, false); err == nil {
		t.Fatal("holding it worked")
	}
	s.abandon(op, &proc{key: shim.Key{Container: "c", Exec: "e"}})
	if err := unix.Kill(child.Pid, 0); err != unix.ESRCH {
		t.Errorf("the process is still there: %v", err)
	}
	if _, err := s.get(key); err == nil {
		t.Error("it is held")
	}
}
