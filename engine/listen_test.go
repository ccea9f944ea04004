package engine

import (
	"bufio"
	"errors"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"
)

// memStore is an fdStore that duplicates as the shim does.
type memStore map[string]int

func (m memStore) Store(name string, f *os.File) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) {
		m[name], err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	}), err)
}
func (m memStore) Drop(name string) error { delete(m, name); return nil }
func (m memStore) Take(name string) (*os.File, error) {
	fd, ok := m[name]
	if !ok {
		return nil, nil
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return os.NewFile(uintptr(dup), name), err
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestListenAgainAfterKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "api.sock")
	c := &Config{Hosts: []string{"unix://" + path}}
	store := memStore{}
	first, err := listen(c, store, nil, quiet())
	if err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o660 {
		t.Errorf("%v %v", st.Mode(), err)
	}
	first[0].Close() // the process is gone; the store's duplicate stays
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal("a client of the outage is refused:", err)
	}
	defer client.Close()
	second, err := listen(c, store, nil, quiet())
	if err != nil {
		t.Fatal(err)
	}
	defer second[0].Close()
	conn, err := second[0].Accept()
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(conn, "hello\n")
	conn.Close()
	if line, err := bufio.NewReader(client).ReadString('\n'); err != nil || line != "hello\n" {
		t.Errorf("%q %v", line, err)
	}
}

func TestListenUnixConflicts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := listenUnix(path, "", quiet())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, "", quiet()); !errdefs.IsConflict(err) {
		t.Errorf("a live socket: %v", err)
	}
	l.Close() // leaves its file: a stale socket
	l, err = listenUnix(path, "no-such-group-here", quiet())
	if err != nil {
		t.Fatal("a stale socket:", err)
	}
	l.Close()
	os.Remove(path)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := listenUnix(path, "", quiet()); !errdefs.IsConflict(err) {
		t.Errorf("a regular file: %v", err)
	}
	if _, err := listenUnix("/"+strings.Repeat("x", 200), "", quiet()); err == nil {
		t.Error("a path that is too long")
	}
}

func TestActivatedListeners(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := l.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := activatedListeners("", nil); err == nil {
		t.Error("no sockets is no error")
	}
	if _, err := activatedListeners("other", []*os.File{f}); err == nil {
		t.Error("a name that is not there is no error")
	}
	ls, err := activatedListeners("", []*os.File{f})
	if err != nil || len(ls) != 1 {
		t.Fatal(ls, err)
	}
	ls[0].Close()
}

func TestNotify(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	notify("READY=1")
	notifyReloading()
	for _, want := range []string{"READY=1", "RELOADING=1\nMONOTONIC_USEC="} {
		var buf [100]byte
		n, err := c.Read(buf[:])
		if err != nil || !strings.HasPrefix(string(buf[:n]), want) {
			t.Errorf("%q %v", buf[:n], err)
		}
	}
}

func TestOSRelease(t *testing.T) {
	for text, want := range map[string][2]string{
		"PRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\nVERSION_ID=\"13\"\n": {"Debian GNU/Linux 13 (trixie)", "13"},
		"PRETTY_NAME='A B'\n# c\nX\n":                                       {"A B", ""},
		"":                                                                  {"Linux", ""},
	} {
		t.Run(text, func(t *testing.T) {
			if a, b := parseOSRelease(bufio.NewScanner(strings.NewReader(text))); a != want[0] || b != want[1] {
				t.Errorf("%q: %q %q", text, a, b)
			}
		})
	}
}

func TestLimitsOfBothCgroupVersions(t *testing.T) {
	v2 := t.TempDir()
	if err := os.WriteFile(filepath.Join(v2, "cgroup.controllers"), []byte("cpu memory pids\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if is2, l := readLimits(v2); !is2 || !l.memory || !l.pids || l.cpuset {
		t.Errorf("%+v", l)
	}
	v1 := t.TempDir()
	for _, f := range []string{"memory/memory.limit_in_bytes", "cpu/cpu.shares", "pids/pids.max"} {
		if err := os.MkdirAll(filepath.Join(v1, filepath.Dir(f)), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(v1, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if is2, l := readLimits(v1); is2 || !l.memory || l.swap || !l.shares || !l.pids {
		t.Errorf("%+v", l)
	}
}
