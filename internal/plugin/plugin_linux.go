// Package plugin finds and calls plugins of Docker's legacy protocol: JSON by HTTP POST
// over a unix or TCP socket that a file in a well-known directory names
// (docs.docker.com/engine/extend/plugin_api). Everything that comes back is bounded.
package plugin

import (
	"bytes"
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
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

const (
	// contentType is the protocol's, in requests and answers.
	contentType = "application/vnd.docker.plugins.v1.2+json"
	// CallTimeout bounds one call; the caller's context may be shorter.
	CallTimeout = 30 * time.Second
	maxAnswer   = 1 << 20
	maxSpec     = 1 << 16
)

// Registry knows where plugins register. Safe for concurrent use; it remembers nothing.
type Registry struct {
	// Sockets are directories of name.sock or name/name.sock; Specs of name.spec (one
	// address) or name.json. Directories and files that others than root and we may
	// write are not believed.
	Sockets, Specs []string
}

// Default is where Docker looks.
func Default() *Registry {
	return &Registry{Sockets: []string{"/run/docker/plugins"}, Specs: []string{"/etc/docker/plugins", "/usr/lib/docker/plugins"}}
}

// Client calls one plugin. Safe for concurrent use; it holds no connection.
type Client struct {
	name, base string
	http       *http.Client
}

var validName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9_.-]{0,127}$`)

// Find looks a plugin up. Errors: NotFound, Forbidden for files that cannot be trusted,
// Invalid for a spec file that says nothing of use.
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
				return newClient(name, "unix", path, nil), nil
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
	return nil, errclass.NotFound("could not find plugin %s in v1 plugin registry: plugin %q not found", name, name)
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
	return newClient(name, s.network, s.addr, conf), nil
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

// newClient makes a client; conf is nil for plugins without TLS.
func newClient(name, network, addr string, conf *tls.Config) *Client {
	var d net.Dialer
	base := "http://plugin/"
	if conf != nil {
		base = "https://plugin/"
	}
	return &Client{name: name, base: base, http: &http.Client{
		Transport: &http.Transport{
			TLSClientConfig:        conf,
			TLSHandshakeTimeout:    CallTimeout,
			DialContext:            func(ctx context.Context, _, _ string) (net.Conn, error) { return d.DialContext(ctx, network, addr) },
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 1 << 16,
		},
		// A plugin does not send us elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Activate asks which protocols the plugin speaks, and refuses one that does not speak
// want ("NetworkDriver", "IpamDriver", "VolumeDriver", …) with class NotFound.
func (c *Client) Activate(ctx context.Context, want string) error {
	var answer struct{ Implements []string }
	if err := c.Call(ctx, "Plugin.Activate", nil, &answer); err != nil {
		return err
	}
	if !slices.Contains(answer.Implements, want) {
		return errclass.NotFound("plugin %q does not implement %q", c.name, want)
	}
	return nil
}

// Call sends in to a method and decodes what comes back into out; either may be nil.
// Errors: NotFound for a method that the plugin has not, Unavailable when it cannot be
// reached, else what it says itself.
func (c *Client) Call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	body := []byte("{}")
	var err error
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("plugin %s: %s: %w", c.name, method, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.base+method, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("plugin %s: %s: %w", c.name, method, err)
	}
	req.Header.Set("Accept", contentType)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return errclass.Unavailable("plugin %s: %s: %v", c.name, method, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return errclass.Unavailable("plugin %s: %s: %v", c.name, method, err)
	}
	if len(data) > maxAnswer {
		return errclass.Unavailable("plugin %s: %s: the answer is larger than %d bytes", c.name, method, maxAnswer)
	}
	// NetworkDriver says Err, IpamDriver Error.
	var fault struct{ Err, Error string }
	_ = json.Unmarshal(data, &fault)
	said := fault.Err + fault.Error
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errclass.NotFound("plugin %s has no %s", c.name, method)
	case resp.StatusCode != http.StatusOK && said == "":
		return fmt.Errorf("plugin %s: %s: %s", c.name, method, resp.Status)
	case said != "":
		return fmt.Errorf("remote: %s", said)
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("plugin %s: %s: decoding the answer: %w", c.name, method, err)
	}
	return nil
}
