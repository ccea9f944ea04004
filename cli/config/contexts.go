package config

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
)

// DefaultContext is the context made of environment and flags; it has no files.
const DefaultContext = "default"

// Endpoint is the "docker" endpoint of a context.
type Endpoint struct {
	Host          string `json:"Host,omitempty"`
	SkipTLSVerify bool   `json:"SkipTLSVerify"`
}

// Context is contexts/meta/<sha256 of the name>/meta.json.
type Context struct {
	Name      string
	Metadata  map[string]any
	Endpoints map[string]Endpoint
	dir       string
}

// Description is what the user wrote about the context.
func (c Context) Description() string {
	s, _ := c.Metadata["Description"].(string)
	return s
}

// MetaPath and TLSPath are where the context's files are (or would be).
func (c Context) MetaPath() string {
	return filepath.Join(c.dir, "contexts", "meta", contextID(c.Name))
}

// TLSPath is the directory of the context's TLS material.
func (c Context) TLSPath() string { return filepath.Join(c.dir, "contexts", "tls", contextID(c.Name)) }

// TLSFile is the path of the docker endpoint's ca.pem, cert.pem or key.pem, "" when the
// context has none.
func (c Context) TLSFile(name string) string {
	p := filepath.Join(c.TLSPath(), "docker", name)
	if _, err := os.Stat(p); err != nil {
		return ""
	}
	return p
}

func contextID(name string) string {
	sum := sha256.Sum256([]byte(name))
	return hex.EncodeToString(sum[:])
}

// LoadContext reads one context below the configuration directory dir.
func LoadContext(dir, name string) (Context, error) {
	c, err := readContext(dir, filepath.Join(dir, "contexts", "meta", contextID(name), "meta.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return Context{}, fmt.Errorf("context %q: context not found: open %s: no such file or directory",
			name, filepath.Join(dir, "contexts", "meta", contextID(name), "meta.json"))
	}
	return c, err
}

func readContext(dir, path string) (Context, error) {
	st, err := os.Stat(path)
	if err != nil {
		return Context{}, err
	}
	if st.Size() > maxFile {
		return Context{}, fmt.Errorf("%s is too large", path)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return Context{}, err
	}
	c := Context{dir: dir}
	if err := json.Unmarshal(b, &c); err != nil {
		return Context{}, fmt.Errorf("parsing %s: %w", path, err)
	}
	return c, nil
}

// ListContexts reads all contexts below dir, sorted by name, without the default one.
func ListContexts(dir string) ([]Context, error) {
	entries, err := os.ReadDir(filepath.Join(dir, "contexts", "meta"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var out []Context
	for _, e := range entries {
		c, err := readContext(dir, filepath.Join(dir, "contexts", "meta", e.Name(), "meta.json"))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].Name < out[j].Name })
	return out, nil
}
