// Package plugintest holds what tests of plugins need: a fake plugin whose answers the test
// chooses, a server for it, and the suite that every plugin.Source passes.
package plugintest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/plugin"
)

// Method answers one call: what it returns is sent as JSON, an error as the protocol's
// {"Err": …}. Decode with json.Unmarshal.
type Method func(body []byte) (any, error)

// Plugin is a fake plugin, an http.Handler. Safe for concurrent use; methods are called one
// at a time.
type Plugin struct {
	implements []string

	mu      sync.Mutex
	methods map[string]Method
	calls   []string
}

// New makes a plugin that implements some protocols ("VolumeDriver") and has no methods but
// Plugin.Activate.
func New(implements ...string) *Plugin {
	return &Plugin{implements: implements, methods: map[string]Method{}}
}

// Handle adds or replaces a method, by its whole name ("VolumeDriver.Create").
func (p *Plugin) Handle(method string, m Method) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.methods[method] = m
}

// Calls are the methods that were called, in order, those it has not included.
func (p *Plugin) Calls() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.calls)
}

// maxRequest bounds what a fake plugin reads, in bytes.
const maxRequest = 1 << 20

// ServeHTTP implements http.Handler.
func (p *Plugin) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, maxRequest))
	if err != nil {
		http.Error(w, `{"Err":"cannot read"}`, http.StatusBadRequest)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	p.calls = append(p.calls, name)
	m := p.methods[name]
	if name == "Plugin.Activate" && m == nil {
		m = func([]byte) (any, error) { return map[string][]string{"Implements": p.implements}, nil }
	}
	if m == nil {
		http.NotFound(w, r)
		return
	}
	answer, err := m(body)
	if err != nil {
		answer = map[string]string{"Err": err.Error()}
	}
	_ = json.NewEncoder(w).Encode(answer)
}

// Serve serves a plugin on dir/name.sock until the test ends: what a plugin.Registry whose
// Sockets holds dir finds.
func Serve(t testing.TB, dir, name string, h http.Handler) {
	t.Helper()
	l, err := net.Listen("unix", filepath.Join(dir, name+".sock"))
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h, ReadHeaderTimeout: time.Minute}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { s.Close() })
}

// Source is a plugin.Source of plugins in this process, by name: no socket, no file.
type Source map[string]http.Handler

// Find implements plugin.Source.
func (s Source) Find(name string) (*plugin.Client, error) {
	if s[name] == nil {
		return nil, plugin.NotFound(name)
	}
	return plugin.New(name, inProcess{s[name]}), nil
}

// Names implements plugin.Source.
func (s Source) Names() []string { return slices.Sorted(maps.Keys(s)) }

// inProcess calls a handler where a transport would send a request.
type inProcess struct{ h http.Handler }

func (t inProcess) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := r.Context().Err(); err != nil {
		return nil, err
	}
	w := httptest.NewRecorder()
	t.h.ServeHTTP(w, r)
	return w.Result(), nil
}

// Run holds a plugin.Source to what its comment says. The factory makes a source in which
// the given plugins are found.
func Run(t *testing.T, factory func(t *testing.T, plugins map[string]http.Handler) plugin.Source) {
	one, two := New("VolumeDriver", "NetworkDriver"), New("IpamDriver")
	one.Handle("VolumeDriver.Get", getVolume)
	one.Handle("VolumeDriver.Long", func([]byte) (any, error) { return strings.Repeat("x", 2<<20), nil })
	s := suite{factory(t, map[string]http.Handler{"one": one, "two.x": two})}
	for _, c := range []struct {
		name string
		run  func(t *testing.T)
	}{
		{"who is not there is not found", s.absent},
		{"who is there", s.names},
		{"each by its name, again and again", s.activate},
		{"a call and its answer", s.answer},
		{"what the plugin says went wrong", s.fault},
		{"a method that it has not", s.noMethod},
		{"an answer without end", s.endless},
		{"many at once", s.atOnce},
		{"a caller who gave up", s.gaveUp},
	} {
		t.Run(c.name, c.run)
	}
}

// getVolume is a plugin's that has one volume, v.
func getVolume(body []byte) (any, error) {
	var q struct{ Name string }
	if err := json.Unmarshal(body, &q); err != nil {
		return nil, err
	}
	if q.Name != "v" {
		return nil, fmt.Errorf("no volume %q", q.Name)
	}
	return map[string]string{"Mountpoint": "/somewhere"}, nil
}

// suite are the cases for a source with the plugins "one", of volumes and networks, and
// "two.x", of addresses.
type suite struct{ src plugin.Source }

func (s suite) find(t *testing.T, name string) *plugin.Client {
	t.Helper()
	c, err := s.src.Find(name)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (s suite) absent(t *testing.T) {
	for _, name := range []string{"three", "", "../one", "a/b", "one.sock", strings.Repeat("x", 4096), "one\x00"} {
		if _, err := s.src.Find(name); !errdefs.IsNotFound(err) {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}

func (s suite) names(t *testing.T) {
	if got := strings.Join(s.src.Names(), " "); got != "one two.x" {
		t.Errorf("%q", got)
	}
}

func (s suite) activate(t *testing.T) {
	for range 3 {
		if err := s.find(t, "one").Activate(t.Context(), "VolumeDriver"); err != nil {
			t.Error(err)
		}
		if err := s.find(t, "two.x").Activate(t.Context(), "IpamDriver"); err != nil {
			t.Error(err)
		}
	}
	if err := s.find(t, "two.x").Activate(t.Context(), "VolumeDriver"); !errdefs.IsNotFound(err) {
		t.Errorf("a protocol that it does not speak: %v", err)
	}
}

func (s suite) answer(t *testing.T) {
	var out struct{ Mountpoint string }
	if err := s.find(t, "one").Call(t.Context(), "VolumeDriver.Get", map[string]string{"Name": "v"}, &out); err != nil || out.Mountpoint != "/somewhere" {
		t.Errorf("%+v %v", out, err)
	}
}

func (s suite) fault(t *testing.T) {
	err := s.find(t, "one").Call(t.Context(), "VolumeDriver.Get", map[string]string{"Name": "w"}, nil)
	var f *plugin.Fault
	if !errors.As(err, &f) || f.Text != `no volume "w"` || f.Method != "VolumeDriver.Get" || f.Status != http.StatusOK {
		t.Errorf("%#v", err)
	}
}

func (s suite) noMethod(t *testing.T) {
	if err := s.find(t, "one").Call(t.Context(), "VolumeDriver.Fly", nil, nil); !errdefs.IsNotFound(err) {
		t.Error(err)
	}
}

func (s suite) endless(t *testing.T) {
	var out string
	if err := s.find(t, "one").Call(t.Context(), "VolumeDriver.Long", nil, &out); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}

func (s suite) atOnce(t *testing.T) {
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			c, err := s.src.Find("one")
			if err == nil {
				err = c.Activate(t.Context(), "VolumeDriver")
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
}

func (s suite) gaveUp(t *testing.T) {
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.find(t, "one").Activate(gone, "VolumeDriver"); !errdefs.IsUnavailable(err) {
		t.Error(err)
	}
}
