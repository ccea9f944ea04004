package plugin

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// maxSpec bounds a .spec or .json file in bytes.
const maxSpec = 1 << 16

// Registry is the Source of plugins that put a file into a well-known directory. It reads
// the directories at every look-up, so that a plugin may come and go at any time. Safe for
// concurrent use.
type Registry struct {
	// Sockets are directories of name.sock or name/name.sock; Specs of name.spec (one
	// address) or name.json. Directories and files that others than root and we may
	// write are not believed.
	Sockets, Specs []string
}

// Default is where Docker looks.
func Default() Source {
	return &Registry{Sockets: []string{"/run/docker/plugins"}, Specs: []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}}
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// Find implements Source. Beside NotFound it fails with Forbidden for files that cannot be
// trusted and Invalid for a spec file that says nothing of use.
func (r *Registry) Find(name string) (*Client, error) {
	if validName.MatchString(name) {
		for _, dir := range r.Sockets {
			for _, rel := range []string{name + ".sock", name + "/" + name + ".sock"} {
				path := dir + "/" + rel
				err := trusted(path, unix.S_IFSOCK)
				if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
					continue
				}
				if err != nil {
					return nil, err
				}
				return New(name, dial("unix", path, nil)), nil
			}
		}
		for _, dir := range r.Specs {
			for _, rel := range []string{name + ".spec", name + ".json", name + "/" + name + ".spec", name + "/" + name + ".json"} {
				path := dir + "/" + rel
				err := trusted(path, unix.S_IFREG)
				if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
					continue
				}
				if err != nil {
					return nil, err
				}
				return fromSpec(name, path)
			}
		}
	}
	return nil, NotFound(name)
}

// Names implements Source: the plugins that have a file in one of the directories now, sorted; it opens none
// of them.
func (r *Registry) Names() []string {
	var names []string
	for suffix, dirs := range map[string][]string{".sock": r.Sockets, ".spec": r.Specs, ".json": r.Specs} {
		for _, dir := range dirs {
			entries, err := os.ReadDir(dir)
			if err != nil {
				continue // most machines have none
			}
			for _, e := range entries {
				name, isFile := strings.CutSuffix(e.Name(), suffix)
				if !isFile {
					if _, err := os.Lstat(dir + "/" + name + "/" + name + suffix); err != nil {
						continue
					}
				}
				if validName.MatchString(name) {
					names = append(names, name)
				}
			}
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// trusted refuses a file of another kind, and one that somebody beside root and us could
// have put there or changed.
func trusted(path string, kind uint32) error {
	dir := path[:strings.LastIndexByte(path, '/')]
	fd, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("plugin directory %s: %w", dir, err)
	}
	defer unix.Close(fd)
	var d, f unix.Stat_t
	if err := unix.Fstat(fd, &d); err != nil {
		return fmt.Errorf("plugin directory %s: %w", dir, err)
	}
	if err := unix.Fstatat(fd, path[len(dir)+1:], &f, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("plugin file %s: %w", path, err)
	}
	ours := func(uid uint32) bool { return uid == 0 || int(uid) == os.Geteuid() }
	switch {
	case !ours(d.Uid) || d.Mode&0o022 != 0:
		return errclass.Forbidden("plugin directory %s may be written by others: it is not used", dir)
	case f.Mode&unix.S_IFMT != kind:
		return errclass.Forbidden("plugin file %s is of a wrong kind", path)
	case !ours(f.Uid) || kind == unix.S_IFREG && f.Mode&0o022 != 0:
		return errclass.Forbidden("plugin file %s may be written by others: it is not used", path)
	}
	return nil
}

// fromSpec reads a .spec or .json file.
func fromSpec(name, path string) (*Client, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("plugin file: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxSpec))
	if err != nil {
		return nil, fmt.Errorf("plugin file: %w", err)
	}
	s, err := parseSpec(data, strings.HasSuffix(path, ".json"))
	if err != nil {
		return nil, errclass.Invalid("plugin file %s: %v", path, err)
	}
	var conf *tls.Config
	if s.tls != nil {
		if conf, err = s.tls.load(s.addr); err != nil {
			return nil, errclass.Invalid("plugin file %s: %v", path, err)
		}
	}
	return New(name, dial(s.network, s.addr, conf)), nil
}

// spec is where a plugin is, and how it is spoken to.
type spec struct {
	network, addr string
	tls           *tlsConfig // nil: without TLS
}

// parseSpec finds the address in a spec file.
func parseSpec(data []byte, isJSON bool) (s spec, err error) {
	where := strings.TrimSpace(string(data))
	if isJSON {
		var file struct {
			Addr      string
			TLSConfig *tlsConfig
		}
		if err := json.Unmarshal(data, &file); err != nil {
			return s, fmt.Errorf("decoding: %w", err)
		}
		where, s.tls = file.Addr, file.TLSConfig
	}
	u, err := url.Parse(where)
	switch {
	case err != nil:
		return s, fmt.Errorf("address: %w", err)
	case u.Scheme == "unix" && strings.HasPrefix(u.Path, "/"):
		s.network, s.addr = "unix", u.Path
		return s, nil
	case u.Port() != "" && (u.Scheme == "tcp" || u.Scheme == "http" || u.Scheme == "https"):
		s.network, s.addr = "tcp", u.Host
		if u.Scheme == "https" && s.tls == nil {
			s.tls = &tlsConfig{}
		}
		return s, nil
	}
	return s, fmt.Errorf("address %q is neither unix:///path nor tcp://host:port", where)
}

// dial makes the transport to a plugin at an address; conf is nil for plugins without TLS.
// It holds no connection between calls.
func dial(network, addr string, conf *tls.Config) http.RoundTripper {
	dialer := func(ctx context.Context) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, network, addr)
	}
	if conf != nil {
		dialer = func(ctx context.Context) (net.Conn, error) {
			d := tls.Dialer{Config: conf}
			return d.DialContext(ctx, network, addr)
		}
	}
	return &http.Transport{
		DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return dialer(ctx) },
		DisableKeepAlives:      true,
		MaxResponseHeaderBytes: 1 << 16,
	}
}
