package plugin

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
)

// faulty serves a plugin that answers each method in a wrong way of its own.
func faulty(t *testing.T, socket string) *http.Server {
	t.Helper()
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/Plugin.Activate":
			io.WriteString(w, `{"Implements":["NetworkDriver"]}`)
		case "/X.Fault":
			io.WriteString(w, `{"Err":"no such thing"}`)
		case "/X.Large":
			io.WriteString(w, `"`+strings.Repeat("x", maxAnswer)+`"`)
		case "/X.Away":
			http.Redirect(w, r, "http://192.0.2.1/", http.StatusTemporaryRedirect)
		case "/X.Junk":
			io.WriteString(w, `[`)
		default:
			http.NotFound(w, r)
		}
	})}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return s
}

func TestFindAndCall(t *testing.T) {
	socks, specs := t.TempDir(), t.TempDir()
	r := &Registry{Sockets: []string{socks}, Specs: []string{specs}}
	s := faulty(t, filepath.Join(socks, "one.sock"))
	for name, text := range map[string]string{
		"two.spec": "unix://" + socks + "/one.sock\n", "three.json": `{"Name":"x","Addr":"unix://` + socks + `/one.sock"}`, "bad.spec": "ftp://x", "tls.json": `{"Addr":"tcp://a:1","TLSConfig":{"CAFile":"/nowhere"}}`,
	} {
		if err := os.WriteFile(filepath.Join(specs, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx := context.Background()
	for _, name := range []string{"one", "two", "three"} {
		t.Run(name, func(t *testing.T) {
			c, err := r.Find(name)
			if err == nil {
				err = c.Activate(ctx, "NetworkDriver")
			}
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
	}
	c, _ := r.Find("one")
	if err := c.Activate(ctx, "VolumeDriver"); !errors.Is(err, errdefs.ErrNotFound) {
		t.Error(err)
	}
	var out map[string]any
	for method, want := range map[string]string{
		"X.Fault": "remote: no such thing", "X.Large": "plugin one: X.Large: the answer is larger than 1048576 bytes",
		"X.Away": "plugin one: X.Away: 307 Temporary Redirect", "X.Junk": "plugin one: X.Junk: decoding the answer: unexpected end of JSON input", "X.None": "plugin one has no X.None",
	} {
		t.Run(method, func(t *testing.T) {
			if err := c.Call(ctx, method, nil, &out); err == nil || err.Error() != want {
				t.Errorf("%s: %v", method, err)
			}
		})
	}
	for _, name := range []string{"nobody", "../one", "", "a/b"} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.Find(name); !errors.Is(err, errdefs.ErrNotFound) {
				t.Errorf("%q: %v", name, err)
			}
		})
	}
	for _, name := range []string{"bad", "tls"} {
		t.Run(name, func(t *testing.T) {
			if _, err := r.Find(name); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%q: %v", name, err)
			}
		})
	}
	s.Close()
	if err := c.Call(ctx, "X.Y", nil, nil); !errors.Is(err, errdefs.ErrUnavailable) {
		t.Error(err)
	}
}

// A plugin over TLS is believed when its authority is, and shown our certificate when it asks.
func TestTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		io.WriteString(w, `{"Implements":["NetworkDriver"]}`)
	}))
	s.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	dir := t.TempDir()
	pair := s.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: pair.Certificate[0]}, "key.pem": {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(b), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := &Registry{Specs: []string{dir}}
	ours := `,"CertFile":"` + dir + `/cert.pem","KeyFile":"` + dir + `/key.pem"`
	for _, c := range []struct {
		addr, conf string
		find, call bool // that they work
	}{
		{"https", `{"CAFile":"` + dir + `/cert.pem"` + ours + `}`, true, true},
		{"tcp", `{"CAFile":"` + dir + `/cert.pem"` + ours + `}`, true, true},
		{"tcp", `{"InsecureSkipVerify":true` + ours + `}`, true, true},
		{"https", `{"InsecureSkipVerify":false` + ours + `}`, true, false},
		{"https", `{"CAFile":"` + dir + `/cert.pem"}`, true, false},
		{"tcp", `{"CAFile":"` + dir + `/key.pem"}`, false, false},
		{"tcp", `{"CertFile":"` + dir + `/cert.pem"}`, false, false},
		{"tcp", `{"CertFile":"` + dir + `/cert.pem","KeyFile":"` + dir + `/cert.pem"}`, false, false},
		{"https", `null`, true, false},
		{"tcp", `null`, true, false},
	} {
		t.Run(c.addr+" "+c.conf, func(t *testing.T) {
			text := `{"Addr":"` + c.addr + "://" + s.Listener.Addr().String() + `","TLSConfig":` + c.conf + `}`
			if err := os.WriteFile(filepath.Join(dir, "p.json"), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			client, err := r.Find("p")
			if (err == nil) != c.find {
				t.Errorf("%s %s: %v", c.addr, c.conf, err)
			}
			if err != nil {
				return
			}
			if err := client.Activate(context.Background(), "NetworkDriver"); (err == nil) != c.call {
				t.Errorf("%s %s: %v", c.addr, c.conf, err)
			}
		})
	}
}

// What others may write is not believed.
func TestTrust(t *testing.T) {
	dir := t.TempDir()
	r := &Registry{Specs: []string{dir}}
	path := filepath.Join(dir, "p.spec")
	if err := os.WriteFile(path, []byte("tcp://127.0.0.1:1"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused := func(what string) {
		t.Helper()
		if _, err := r.Find("p"); !errors.Is(err, errdefs.ErrPermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := r.Find("p"); err != nil {
		t.Error(err)
	}
	os.Chmod(path, 0o622)
	refused("a file for all to write")
	os.Chmod(path, 0o600)
	os.Chmod(dir, 0o777)
	refused("a directory for all to write")
	os.Chmod(dir, 0o700)
	if err := os.Rename(path, filepath.Join(dir, "target")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("target", path); err != nil {
		t.Fatal(err)
	}
	refused("a symlink")
	if os.Getuid() == 0 {
		os.Remove(path)
		os.Rename(filepath.Join(dir, "target"), path)
		os.Chown(path, 65534, 65534)
		refused("another user's file")
	}
}

func FuzzSpec(f *testing.F) {
	f.Add([]byte("unix:///run/x.sock"), false)
	f.Add([]byte(`{"Addr":"tcp://a:1","TLSConfig":null}`), true)
	f.Fuzz(func(t *testing.T, data []byte, isJSON bool) {
		s, err := parseSpec(data, isJSON)
		network, addr := s.network, s.addr
		if err == nil && (addr == "" || network != "unix" && network != "tcp") {
			t.Errorf("%q %q", network, addr)
		}
	})
}
