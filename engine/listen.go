package engine

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/user"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// fdStore holds descriptors beyond the daemon's life: the shim.
type fdStore interface {
	Store(name string, f *os.File) error
	Drop(name string) error
	Take(name string) (*os.File, error) // nil without error when there is none
}

// listener is one API socket.
type listener struct {
	net.Listener
	host string // as configured
	path string // of a unix socket that this daemon made, to be removed at the end
}

// storeName is the name of a listener in the fd store.
func storeName(host string) string { return "api:" + host }

// checkHosts validates the addresses to listen on.
func (c *Config) checkHosts() error {
	for i, h := range c.Hosts {
		switch proto, addr, ok := strings.Cut(h, "://"); {
		case !ok && strings.HasPrefix(h, "/"):
			c.Hosts[i] = "unix://" + h
		case !ok:
			return errclass.Invalid("invalid bind address (%s): unix://, fd:// or tcp:// expected", h)
		case proto == "unix" && addr == "":
			c.Hosts[i] = DefaultHost
		case proto == "unix" || proto == "fd":
		case proto == "tcp":
			host, _, err := net.SplitHostPort(addr)
			if err != nil {
				return errclass.Invalid("invalid bind address (%s): %w", h, err)
			}
			// Whoever reaches the API is root here. Without client certificates only
			// this machine's own users may, and even that is worth a warning.
			if ip := net.ParseIP(host); !c.TLSVerify && host != "localhost" && (ip == nil || !ip.IsLoopback()) {
				return errclass.Invalid("refusing to listen on %s without --tlsverify: everybody who reaches it would be root on this host", h)
			}
		default:
			return errclass.Invalid("invalid bind address (%s): unsupported protocol %q", h, proto)
		}
	}
	return nil
}

// listen opens all API sockets: activated ones come from the service manager, those
// of a daemon that was killed from the store, others are made. On error none is open.
func listen(c *Config, store fdStore, activated []*os.File, log *slog.Logger) (all []*listener, err error) {
	defer func() {
		if err != nil {
			for _, l := range all {
				err = errors.Join(err, l.Close())
			}
			all = nil
		}
	}()
	for _, host := range c.Hosts {
		proto, addr, _ := strings.Cut(host, "://")
		if proto == "fd" {
			ls, err := activatedListeners(addr, activated)
			if err != nil {
				return all, err
			}
			all = append(all, ls...)
			continue
		}
		l := takeListener(host, addr, store, log)
		if l == nil {
			if l, err = newListener(c, host, proto, addr, log); err != nil {
				return all, err
			}
			keepListener(l, store, log)
		}
		all = append(all, l)
		if proto == "tcp" {
			if l.Listener, err = c.secure(l.Listener, log); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

func newListener(c *Config, host, proto, addr string, log *slog.Logger) (*listener, error) {
	if proto == "tcp" {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return nil, fmt.Errorf("can't create listener %s: %w", host, err)
		}
		return &listener{Listener: l, host: host}, nil
	}
	l, err := listenUnix(addr, c.Group, log)
	if err != nil {
		return nil, fmt.Errorf("can't create unix socket %s: %w", addr, err)
	}
	return &listener{Listener: l, host: host, path: addr}, nil
}

// takeListener returns the socket a killed daemon left in the store: clients that
// connected in between are waiting in its backlog.
func takeListener(host, addr string, store fdStore, log *slog.Logger) *listener {
	if store == nil {
		return nil
	}
	f, err := store.Take(storeName(host))
	if err != nil || f == nil {
		if err != nil {
			log.Warn("kept API socket is lost", "host", host, "error", err)
		}
		return nil
	}
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		log.Warn("kept API socket is unusable", "host", host, "error", err)
		return nil
	}
	ours := &listener{Listener: l, host: host}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false)
		ours.path = addr
		if st, err := os.Lstat(addr); err != nil || st.Mode().Type() != os.ModeSocket {
			log.Warn("the API socket's file is gone: making a new one", "path", addr)
			_ = l.Close() // nobody can reach it any more
			return nil
		}
	}
	log.Info("took the API socket back", "host", host)
	return ours
}

func keepListener(l *listener, store fdStore, log *slog.Logger) {
	fl, ok := l.Listener.(interface{ File() (*os.File, error) })
	if !ok || store == nil {
		return
	}
	f, err := fl.File()
	if err == nil {
		err = store.Store(storeName(l.host), f)
		_ = f.Close() // a duplicate
	}
	if err != nil {
		log.Warn("the API socket would not outlive a killed daemon", "host", l.host, "error", err)
	}
}

// listenUnix makes a socket owned by root and group, mode 0660. The permissions are
// set before it listens, and it replaces a dead socket's file in one rename.
func listenUnix(path, group string, log *slog.Logger) (net.Listener, error) {
	if c, err := net.Dial("unix", path); err == nil {
		_ = c.Close() // only to see whether somebody answers
		return nil, errclass.Conflict("another process is listening on it")
	}
	if st, err := os.Lstat(path); err == nil && st.Mode().Type() != os.ModeSocket {
		return nil, errclass.Conflict("it exists and is not a socket")
	}
	tmp := path + ".new"
	for _, p := range []string{tmp} {
		if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close() // FileListener duplicates it
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: tmp}); err != nil {
		return nil, os.NewSyscallError("bind", err)
	}
	err = errors.Join(os.Chmod(tmp, 0o660), os.Chown(tmp, 0, groupID(group, log)), os.NewSyscallError("listen", unix.Listen(fd, unix.SOMAXCONN)))
	if err == nil {
		err = os.Rename(tmp, path)
	}
	if err != nil {
		return nil, errors.Join(err, os.Remove(tmp))
	}
	l, err := net.FileListener(f)
	if err != nil {
		return nil, err
	}
	if ul, ok := l.(*net.UnixListener); ok {
		ul.SetUnlinkOnClose(false) // the file is ours to remove, at a clean end only
	}
	return l, nil
}

// groupID finds the group by name or number; a missing one is root's, said once.
func groupID(name string, log *slog.Logger) int {
	if name == "" {
		return 0
	}
	if g, err := user.LookupGroup(name); err == nil {
		if gid, err := strconv.Atoi(g.Gid); err == nil {
			return gid
		}
	}
	if gid, err := strconv.ParseUint(name, 10, 31); err == nil {
		return int(gid)
	}
	log.Warn("the group of the API socket does not exist: only root can use it", "group", name)
	return 0
}

// activatedFiles returns what the service manager passed, as sd_listen_fds(3), and
// takes the variables out of the environment so that no child believes in them.
func activatedFiles() []*os.File {
	pid, n := os.Getenv("LISTEN_PID"), os.Getenv("LISTEN_FDS")
	names := strings.Split(os.Getenv("LISTEN_FDNAMES"), ":")
	for _, v := range []string{"LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"} {
		_ = os.Unsetenv(v) // only fails for an invalid name
	}
	count, err := strconv.Atoi(n)
	if pid != strconv.Itoa(os.Getpid()) || err != nil || count < 1 || count > 1000 {
		return nil
	}
	var files []*os.File
	for i := range count {
		fd := 3 + i
		unix.CloseOnExec(fd)
		name := "LISTEN_FD_" + strconv.Itoa(fd)
		if i < len(names) && names[i] != "" {
			name = names[i]
		}
		files = append(files, os.NewFile(uintptr(fd), name))
	}
	return files
}

// activatedListeners are all activated sockets ("" or "*"), the one with that
// descriptor number, or those of that name.
func activatedListeners(which string, files []*os.File) ([]*listener, error) {
	var out []*listener
	for _, f := range files {
		if which != "" && which != "*" && which != f.Name() && which != strconv.Itoa(int(f.Fd())) {
			continue
		}
		l, err := net.FileListener(f)
		if err != nil {
			for _, o := range out {
				err = errors.Join(err, o.Close())
			}
			return nil, fmt.Errorf("socket %s of the service manager: %w", f.Name(), err)
		}
		out = append(out, &listener{Listener: l, host: "fd://" + f.Name()})
	}
	if len(out) == 0 {
		return nil, errclass.Invalid("no sockets found via socket activation: make sure the service was started by systemd")
	}
	return out, nil
}

// secure wraps a TCP listener with TLS as configured.
func (c *Config) secure(l net.Listener, log *slog.Logger) (net.Listener, error) {
	if !c.TLS && !c.TLSVerify {
		log.Warn("the API listens without TLS: every local user and every container with host networking that reaches it is root here", "address", l.Addr().String())
		return l, nil
	}
	cert, err := tls.LoadX509KeyPair(c.TLSCert, c.TLSKey)
	if err != nil {
		return l, fmt.Errorf("TLS: %w", err)
	}
	t := &tls.Config{Certificates: []tls.Certificate{cert}, MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}}
	if c.TLSVerify {
		ca, err := os.ReadFile(c.TLSCACert)
		if err != nil {
			return l, fmt.Errorf("TLS: %w", err)
		}
		t.ClientCAs = x509.NewCertPool()
		if !t.ClientCAs.AppendCertsFromPEM(ca) {
			return l, errclass.Invalid("TLS: no certificate in %s", c.TLSCACert)
		}
		t.ClientAuth = tls.RequireAndVerifyClientCert
	}
	return tls.NewListener(l, t), nil
}
