package distribution

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/test/testregistry"
	"github.com/moby/moby/api/types/registry"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

func parse(t *testing.T, ref string) reference.Named {
	t.Helper()
	n, err := reference.ParseNormalizedNamed(ref)
	if err != nil {
		t.Fatal(err)
	}
	return reference.TagNameOnly(n)
}

func open(t *testing.T, c *Client, ref string, auth *registry.AuthConfig) (*Repository, reference.Named) {
	t.Helper()
	t.Cleanup(c.Close)
	n := parse(t, ref)
	r, err := c.Repository(n, auth, http.Header{"X-Meta-Who": {"me"}})
	if err != nil {
		t.Fatal(err)
	}
	return r, n
}

func options(t *testing.T) Options { return Options{CertsDir: t.TempDir(), UserAgent: "tester/1"} }

func TestResolveAndFetch(t *testing.T) {
	reg := testregistry.New(t, false)
	layer := testregistry.TarLayer(t, testregistry.File{Name: "f", Body: testregistry.Noise(100_000)})
	want := reg.Push(t, "a/b", "1", layer)
	r, ref := open(t, New(options(t)), reg.Host()+"/a/b:1", nil)
	ctx := t.Context()
	desc, err := r.Resolve(ctx, ref)
	if err != nil || desc.Digest != want.Digest {
		t.Fatalf("%+v, %v", desc, err)
	}
	data, err := r.Document(ctx, desc, 1<<20)
	if err != nil || digest.FromBytes(data) != want.Digest {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	if _, err := r.Document(ctx, desc, 10); !errdefs.IsInvalidArgument(err) {
		t.Errorf("larger than allowed: %v", err)
	}
	var m ocispec.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	rc, err := r.Fetch(ctx, m.Layers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer rc.Close()
	if _, err := rc.(io.Seeker).Seek(1000, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(rc)
	if err != nil || !bytes.Equal(rest, testregistry.Gz(t, layer)[1000:]) {
		t.Errorf("%d bytes from the middle on, %v", len(rest), err)
	}
	reg.Corrupt = m.Config.Digest
	if _, err := r.Document(ctx, m.Config, 1<<20); !errdefs.IsDataLoss(err) {
		t.Errorf("a corrupt document: %v", err)
	}
	if tags, err := r.Tags(ctx); err != nil || !slices.Equal(tags, []string{"1"}) {
		t.Errorf("tags %v, %v", tags, err)
	}
	other := parse(t, reg.Host()+"/a/b:2")
	_, err = r.Resolve(ctx, other)
	if !errdefs.IsNotFound(err) {
		t.Errorf("no such tag: %v", err)
	}
	if text := "manifest for " + reg.Host() + "/a/b:2 not found: manifest unknown: manifest unknown"; ExplainPull(err, other, false).Error() != text {
		t.Errorf("no such tag: %v", ExplainPull(err, other, false))
	}
}

// TestHeaders: every request says who we are and what the caller adds.
func TestHeaders(t *testing.T) {
	var bad atomic.Int32
	reg := testregistry.New(t, false)
	reg.Push(t, "a", "latest")
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
		if q.UserAgent() != "tester/1" || q.Header.Get("X-Meta-Who") != "me" {
			bad.Add(1)
		}
		reg.ServeHTTP(w, q)
	}))
	defer s.Close()
	r, ref := open(t, New(options(t)), strings.TrimPrefix(s.URL, "http://")+"/a", nil)
	if _, err := r.Resolve(t.Context(), ref); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Tags(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := bad.Load(); n != 0 {
		t.Errorf("%d requests without the headers", n)
	}
}

func TestBasicAuth(t *testing.T) {
	reg := testregistry.New(t, true)
	reg.Push(t, "a", "latest")
	reg.User, reg.Password = "me", "secret"
	o := options(t)
	reg.WriteCA(t, o.CertsDir)
	right := registry.AuthConfig{Username: "me", Password: "secret", ServerAddress: reg.Host()}
	wrong, foreign := right, right
	wrong.Password, foreign.ServerAddress = "x", "registry.example:5000"
	for name, c := range map[string]struct {
		auth  *registry.AuthConfig
		class error
		text  string
	}{
		"right":            {auth: &right},
		"none":             {class: errdefs.ErrNotFound, text: "pull access denied for " + reg.Host() + "/a, repository does not exist or may require 'docker login': denied: requested access to the resource is denied"},
		"wrong":            {auth: &wrong, class: errdefs.ErrUnauthenticated, text: "pull access denied for " + reg.Host() + "/a, repository does not exist or may require 'docker login': unauthorized: authentication required"},
		"another registry": {auth: &foreign, class: errdefs.ErrUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			r, ref := open(t, New(o), reg.Host()+"/a", c.auth)
			_, err := r.Resolve(t.Context(), ref)
			err = ExplainPull(err, ref, c.auth != nil)
			if c.class == nil && err != nil || c.class != nil && (!errors.Is(errclass.Of(err), c.class) || c.text != "" && err.Error() != c.text) {
				t.Errorf("%v (class %v)", err, errclass.Of(err))
			}
		})
	}
	c := New(o)
	defer c.Close()
	if err := c.Login(t.Context(), right); err != nil {
		t.Errorf("login: %v", err)
	}
	if err := c.Login(t.Context(), wrong); !errdefs.IsUnauthorized(err) {
		t.Errorf("login with a wrong password: %v", err)
	}
	if err := c.Login(t.Context(), registry.AuthConfig{ServerAddress: reg.Host()}); !errdefs.IsInvalidArgument(err) {
		t.Errorf("login as nobody: %v", err)
	}
	down := right
	down.ServerAddress = "127.0.0.1:1"
	if err := c.Login(t.Context(), down); !errdefs.IsUnavailable(err) {
		t.Errorf("login where nobody is: %v", err)
	}
}

// tokenServer is a registry that takes tokens only, and what gives them out.
func tokenServer(t *testing.T, realm string) (host string, asked *atomic.Value) {
	t.Helper()
	asked = &atomic.Value{}
	mux := http.NewServeMux()
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	if realm == "" {
		realm = s.URL + "/token"
	}
	mux.HandleFunc("/v2/", func(w http.ResponseWriter, q *http.Request) {
		if got := q.Header.Get("Authorization"); got != "Bearer good" {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm=%q,service="test",scope="repository:a:pull"`, realm))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		w.Header().Set("Docker-Content-Digest", digest.FromString("x").String())
		w.Header().Set("Content-Type", ocispec.MediaTypeImageManifest)
		w.Header().Set("Content-Length", "1")
	})
	mux.HandleFunc("/token", func(w http.ResponseWriter, q *http.Request) {
		if err := q.ParseForm(); err != nil {
			t.Error(err)
		}
		user, password, _ := q.BasicAuth()
		asked.Store(strings.Join([]string{q.Method, q.Form.Get("grant_type"), q.Form.Get("refresh_token"), q.Form.Get("username") + user, q.Form.Get("password") + password}, " "))
		fmt.Fprint(w, `{"token": "good", "access_token": "good"}`)
	})
	return strings.TrimPrefix(s.URL, "http://"), asked
}

func TestTokens(t *testing.T) {
	for name, c := range map[string]struct {
		auth *registry.AuthConfig
		want string // what the token server was asked
	}{
		"anonymous":      {nil, "GET    "},
		"password":       {&registry.AuthConfig{Username: "me", Password: "pw"}, "POST password  me pw"},
		"identity token": {&registry.AuthConfig{IdentityToken: "idt"}, "POST refresh_token idt  "},
		"registry token": {&registry.AuthConfig{RegistryToken: "good"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			host, asked := tokenServer(t, "")
			r, ref := open(t, New(options(t)), host+"/a:1", c.auth)
			if _, err := r.Resolve(t.Context(), ref); err != nil {
				t.Fatal(err)
			}
			if got, _ := asked.Load().(string); got != c.want {
				t.Errorf("token server was asked %q, want %q", got, c.want)
			}
		})
	}
	// Credentials are not sent where TLS does not protect them, and not to who is redirected to.
	t.Run("token server elsewhere without TLS", func(t *testing.T) {
		host, asked := tokenServer(t, "http://tokens.example/token")
		r, ref := open(t, New(options(t)), host+"/a:1", &registry.AuthConfig{Username: "me", Password: "pw"})
		if _, err := r.Resolve(t.Context(), ref); !errdefs.IsPermissionDenied(err) || asked.Load() != nil {
			t.Errorf("%v, asked %v", err, asked.Load())
		}
	})
}

func TestMirrors(t *testing.T) {
	mirror, own := testregistry.New(t, false), testregistry.New(t, false)
	here := mirror.Push(t, "a", "1", testregistry.TarLayer(t))
	there := own.Push(t, "a", "2", testregistry.TarLayer(t))
	own.Push(t, "a", "1")
	o := options(t)
	o.Mirrors = map[string][]string{own.Host(): {mirror.URL + "/"}}
	r, _ := open(t, New(o), own.Host()+"/a", &registry.AuthConfig{Username: "me", Password: "pw"})
	for tag, want := range map[string]digest.Digest{"1": here.Digest, "2": there.Digest} {
		t.Run(tag, func(t *testing.T) {
			if d, err := r.Resolve(t.Context(), parse(t, own.Host()+"/a:"+tag)); err != nil || d.Digest != want {
				t.Errorf("%s: %v, %v", tag, d.Digest, err)
			}
		})
	}
	tags, err := r.Tags(t.Context())
	slices.Sort(tags)
	if err != nil || !slices.Equal(tags, []string{"1", "2"}) {
		t.Errorf("tags are the mirror's: %v, %v", tags, err)
	}
	o.Mirrors[own.Host()] = []string{"ftp://x"}
	if _, err := New(o).Repository(parse(t, own.Host()+"/a"), nil, nil); !errdefs.IsInvalidArgument(err) {
		t.Errorf("an impossible mirror: %v", err)
	}
}

func TestTransport(t *testing.T) {
	t.Run("a CA that is none", func(t *testing.T) {
		reg := testregistry.New(t, true)
		reg.Push(t, "a", "latest")
		o := options(t)
		dir := filepath.Join(o.CertsDir, reg.Host())
		if err := errors.Join(os.Mkdir(dir, 0o700), os.WriteFile(filepath.Join(dir, "ca.crt"), []byte("nonsense"), 0o600)); err != nil {
			t.Fatal(err)
		}
		if _, err := New(o).Repository(parse(t, reg.Host()+"/a"), nil, nil); !errdefs.IsInvalidArgument(err) {
			t.Errorf("a CA that is none: %v", err)
		}
	})
	t.Run("redirect to plain HTTP", func(t *testing.T) {
		s := httptest.NewServer(http.RedirectHandler("http://elsewhere.example/x", http.StatusTemporaryRedirect))
		defer s.Close()
		r, _ := open(t, New(options(t)), strings.TrimPrefix(s.URL, "http://")+"/a", nil)
		rc, err := r.Fetch(t.Context(), ocispec.Descriptor{Digest: digest.FromString("x"), Size: 1, MediaType: ocispec.MediaTypeImageLayer})
		if err == nil { // it may open the stream with the first read
			defer rc.Close()
			_, err = io.ReadAll(rc)
		}
		if err == nil || !strings.Contains(err.Error(), "refused to follow a redirect") {
			t.Errorf("%v", err)
		}
	})
	t.Run("insecure", func(t *testing.T) {
		c := New(Options{Insecure: []string{"reg.example", "10.0.0.0/8", "other.example:5000"}})
		for host, want := range map[string]bool{
			"reg.example": true, "reg.example:5000": true, "other.example:5000": true, "other.example": false, "10.1.2.3:5000": true, "11.1.2.3": false,
			"localhost:5000": true, "127.0.0.2": true, "[::1]:5000": true, "registry-1.docker.io": false,
		} {
			t.Run(host, func(t *testing.T) {
				if c.insecure(host) != want {
					t.Errorf("%s: %v", host, !want)
				}
			})
		}
	})
}

func TestExplainPull(t *testing.T) {
	ref := parse(t, "docker.io/library/x:1")
	for _, c := range []struct {
		err   error
		class error
		text  string
	}{
		{nil, errdefs.ErrUnknown, ""},
		{context.Canceled, errdefs.ErrUnknown, "context canceled"},
		{errclass.Invalid("bad manifest"), errdefs.ErrInvalidArgument, "bad manifest"},
		{&os.PathError{Op: "write", Path: "f", Err: syscall.ENOSPC}, errdefs.ErrResourceExhausted, "failed to pull x:1: write f: no space left on device"},
		{errors.New("odd"), errdefs.ErrUnknown, "failed to pull x:1: odd"},
		{asked(errors.New("odd")), errdefs.ErrUnknown, `failed to resolve reference "x:1": odd`},
		{asked(errclass.NotFound("gone")), errdefs.ErrNotFound, "manifest for x:1 not found: manifest unknown: manifest unknown"},
	} {
		t.Run(c.text, func(t *testing.T) {
			err := ExplainPull(c.err, ref, false)
			if c.text == "" && err == nil {
				return
			}
			if err == nil || err.Error() != c.text || !errors.Is(errclass.Of(err), c.class) {
				t.Errorf("%v: %v (class %v)", c.err, err, errclass.Of(err))
			}
		})
	}
}

func TestTagPages(t *testing.T) {
	for name, c := range map[string]struct {
		link string // from the second page on
		want []string
	}{
		"pages":          {"", []string{"a", "b"}},
		"another host":   {"<http://elsewhere.example/v2/x/tags/list?last=a>; rel=\"next\"", nil},
		"without an end": {"</v2/x/tags/list?last=a>; rel=\"next\"", nil},
	} {
		t.Run(name, func(t *testing.T) {
			s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, q *http.Request) {
				if q.FormValue("last") == "" {
					w.Header().Set("Link", `</v2/x/tags/list?last=a>; rel="next"`)
					fmt.Fprint(w, `{"tags": ["a"]}`)
					return
				}
				if c.link != "" {
					w.Header().Set("Link", c.link)
				}
				fmt.Fprint(w, `{"tags": ["b"]}`)
			}))
			defer s.Close()
			r, _ := open(t, New(options(t)), strings.TrimPrefix(s.URL, "http://")+"/x", nil)
			tags, err := r.Tags(t.Context())
			if c.want == nil && !errdefs.IsInvalidArgument(err) || c.want != nil && (err != nil || !slices.Equal(tags, c.want)) {
				t.Errorf("%v, %v", tags, err)
			}
		})
	}
}
