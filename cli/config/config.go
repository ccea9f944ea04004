// Package config reads and writes the client's configuration directory: config.json,
// the credentials it names, and the contexts beside it.
package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/internal/atomicfile"
)

const maxFile = 16 << 20

// Auth is one entry of "auths".
type Auth struct {
	Auth          string `json:"auth,omitempty"`
	Username      string `json:"username,omitempty"`
	Password      string `json:"password,omitempty"`
	Email         string `json:"email,omitempty"`
	IdentityToken string `json:"identitytoken,omitempty"`
	RegistryToken string `json:"registrytoken,omitempty"`
}

// Proxy is one entry of "proxies": what containers get as proxy environment.
type Proxy struct {
	HTTPProxy  string `json:"httpProxy,omitempty"`
	HTTPSProxy string `json:"httpsProxy,omitempty"`
	NoProxy    string `json:"noProxy,omitempty"`
	FTPProxy   string `json:"ftpProxy,omitempty"`
	AllProxy   string `json:"allProxy,omitempty"`
}

// File is config.json. Keys it does not name survive a write.
type File struct {
	path string
	raw  map[string]json.RawMessage
	data
}

type data struct {
	Auths          map[string]Auth   `json:"auths,omitempty"`
	HTTPHeaders    map[string]string `json:"HttpHeaders,omitempty"`
	PsFormat       string            `json:"psFormat,omitempty"`
	ImagesFormat   string            `json:"imagesFormat,omitempty"`
	NetworksFormat string            `json:"networksFormat,omitempty"`
	VolumesFormat  string            `json:"volumesFormat,omitempty"`
	PluginsFormat  string            `json:"pluginsFormat,omitempty"`
	StatsFormat    string            `json:"statsFormat,omitempty"`
	DetachKeys     string            `json:"detachKeys,omitempty"`
	CredsStore     string            `json:"credsStore,omitempty"`
	CredHelpers    map[string]string `json:"credHelpers,omitempty"`
	CurrentContext string            `json:"currentContext,omitempty"`
	Proxies        map[string]Proxy  `json:"proxies,omitempty"`
}

// Dir is the configuration directory: $DOCKER_CONFIG, else ~/.docker.
func Dir() string {
	if d := os.Getenv("DOCKER_CONFIG"); d != "" {
		return d
	}
	home, err := os.UserHomeDir()
	if err != nil || home == "" {
		home = "/"
	}
	return filepath.Join(home, ".docker")
}

// Load reads dir/config.json. A missing file is an empty one. A file that cannot be read
// or parsed gives an empty one — no credential is guessed from half a file — together
// with the error, which the caller shows as a warning.
func Load(dir string) (*File, error) {
	f := &File{path: filepath.Join(dir, "config.json"), raw: map[string]json.RawMessage{}}
	st, err := os.Stat(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return f, nil
	}
	if err == nil && st.Size() > maxFile {
		err = errors.New("file is too large")
	}
	if err != nil {
		return f, fmt.Errorf("loading config file: %w", err)
	}
	b, err := os.ReadFile(f.path)
	if err != nil {
		return f, fmt.Errorf("loading config file: %w", err)
	}
	if err := f.parse(b); err != nil {
		*f = File{path: f.path, raw: nil}
		return f, fmt.Errorf("loading config file: %s: %w", f.path, err)
	}
	return f, nil
}

func (f *File) parse(b []byte) error {
	if err := json.Unmarshal(b, &f.raw); err != nil {
		return err
	}
	return json.Unmarshal(b, &f.data)
}

// Path is where the file is, whether it exists or not.
func (f *File) Path() string { return f.path }

// Save writes the file whole (0600), keeping keys of others. A file that could not be
// parsed is not overwritten.
func (f *File) Save() error {
	if f.raw == nil {
		return fmt.Errorf("%s could not be parsed and is left alone", f.path)
	}
	set := func(key string, v any, empty bool) error {
		if empty {
			delete(f.raw, key)
			return nil
		}
		b, err := json.Marshal(v)
		if err == nil {
			f.raw[key] = b
		}
		return err
	}
	// auths stays in the file even when empty, as Docker leaves it.
	if f.Auths == nil {
		f.Auths = map[string]Auth{}
	}
	err := errors.Join(set("auths", f.Auths, false),
		set("currentContext", f.CurrentContext, f.CurrentContext == ""))
	if err != nil {
		return err
	}
	b, err := json.MarshalIndent(f.raw, "", "\t")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(f.path), 0o700); err != nil {
		return err
	}
	target := f.path
	if at, err := filepath.EvalSymlinks(target); err == nil {
		target = at
	}
	return atomicfile.Write(target, b, 0o600, false)
}

// ContainerProxy is the environment containers get for the daemon at host, as name →
// value in both letter cases.
func (f *File) ContainerProxy(host string) map[string]string {
	p, ok := f.Proxies[host]
	if !ok {
		p, ok = f.Proxies["default"]
	}
	env := map[string]string{}
	if !ok {
		return env
	}
	for name, v := range map[string]string{
		"HTTP_PROXY": p.HTTPProxy, "HTTPS_PROXY": p.HTTPSProxy, "NO_PROXY": p.NoProxy,
		"FTP_PROXY": p.FTPProxy, "ALL_PROXY": p.AllProxy,
	} {
		if v != "" {
			env[name], env[strings.ToLower(name)] = v, v
		}
	}
	return env
}
