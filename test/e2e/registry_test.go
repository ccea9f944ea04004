package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// cmdRegistry: registry start [-tls] [-auth USER:PASSWORD] [-slow BYTES/S] [RECIPE=REPO:TAG …]
//
//	registry push RECIPE=REPO:TAG …
//	registry corrupt REPO:TAG (layer|config)
//	registry stop
//
// $REG is the plain registry on loopback, $TLSREG the one with TLS at an address that
// is not loopback, whose certificate the daemon trusts through SSL_CERT_FILE. With
// -slow, $REG is a proxy that lets so much through, and proxy.log in $ROOT tells
// "METHOD PATH BYTES" of each request.
func cmdRegistry(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	if len(args) == 0 {
		ts.Fatalf("usage: registry start|push|corrupt|stop")
	}
	switch args[0] {
	case "start":
		s.startRegistry(ts, args[1:])
	case "push":
		s.push(ts, args[1:])
	case "corrupt":
		ts.Check(s.corrupt(args[1], args[2]))
	case "stop":
		for _, name := range []string{"registry", "proxy"} {
			s.mu.Lock()
			p := s.helpers[name]
			delete(s.helpers, name)
			s.mu.Unlock()
			if p != nil {
				p.kill()
			}
		}
	default:
		ts.Fatalf("registry: unknown verb %q", args[0])
	}
}

type registryState struct{ base, auth, ca string }

func (s *sandbox) startRegistry(ts *testscript.TestScript, args []string) {
	listen, slow := "127.0.0.1:5000", ""
	st := registryState{}
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch args[0] {
		case "-tls":
			listen, st.ca = "10.88.0.1:5443", s.path("ca.pem")
			_ = exec.Command("ip", "addr", "add", "10.88.0.1/32", "dev", "lo").Run()
			ts.Check(s.certificates())
		case "-auth":
			st.auth, args = args[1], args[1:]
		case "-slow":
			slow, args = args[1], args[1:]
			listen = "127.0.0.1:5001"
		}
		args = args[1:]
	}
	st.base = "http://" + listen
	conf := fmt.Sprintf("version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: %s}, delete: {enabled: true}}\nhttp:\n  addr: %s\n",
		s.path("registry"), listen)
	if st.ca != "" {
		st.base = "https://" + listen
		conf += fmt.Sprintf("  tls: {certificate: %s, key: %s}\n", s.path("cert.pem"), s.path("key.pem"))
	}
	if st.auth != "" {
		user, pass, _ := strings.Cut(st.auth, ":")
		out, err := exec.Command("docker-registry", "htpasswd", user, pass).Output()
		ts.Check(err)
		ts.Check(os.WriteFile(s.path("htpasswd"), out, 0o644))
		conf += fmt.Sprintf("auth: {htpasswd: {realm: test, path: %s}}\n", s.path("htpasswd"))
	}
	ts.Check(os.WriteFile(s.path("registry.yml"), []byte(conf), 0o644))
	p, err := s.spawn("registry.log", os.Environ(), nil, "docker-registry", "serve", s.path("registry.yml"))
	ts.Check(err)
	s.mu.Lock()
	s.helpers["registry"] = p
	s.mu.Unlock()
	ts.Setenv("REGSTATE", encode(st))
	s.mkimage(ts, st, "ping", st.base)
	if slow != "" {
		px, err := s.spawn("proxy.log", []string{"PATH=" + ts.Getenv("PATH")}, nil, lookup(ts, "slowproxy"), "127.0.0.1:5000", listen, slow)
		ts.Check(err)
		s.mu.Lock()
		s.helpers["proxy"] = px
		s.mu.Unlock()
		s.mkimage(ts, st, "ping", "http://127.0.0.1:5000")
	}
	if len(args) > 0 {
		s.push(ts, args)
	}
}

func lookup(ts *testscript.TestScript, name string) string {
	for _, dir := range filepath.SplitList(ts.Getenv("PATH")) {
		if p := filepath.Join(dir, name); exists(p) {
			return p
		}
	}
	ts.Fatalf("%s is not in PATH", name)
	return ""
}

func exists(p string) bool {
	_, err := os.Stat(p)
	return err == nil
}

func encode(st registryState) string { return st.base + "|" + st.auth + "|" + st.ca }

func (s *sandbox) push(ts *testscript.TestScript, images []string) {
	f := strings.Split(ts.Getenv("REGSTATE"), "|")
	if len(f) != 3 {
		ts.Fatalf("no registry was started")
	}
	st := registryState{f[0], f[1], f[2]}
	s.mkimage(ts, st, append([]string{"push", st.base}, images...)...)
}

func (s *sandbox) mkimage(ts *testscript.TestScript, st registryState, args ...string) {
	all := []string{}
	if st.auth != "" {
		all = append(all, "-user", st.auth)
	}
	if st.ca != "" {
		all = append(all, "-ca", st.ca)
	}
	ts.Check(ts.Exec("mkimage", append(all, args...)...))
}

// corrupt flips a byte of a blob behind the registry's back.
func (s *sandbox) corrupt(ref, what string) error {
	repo, tag, _ := strings.Cut(ref, ":")
	v2 := s.path("registry/docker/registry/v2")
	link, err := os.ReadFile(filepath.Join(v2, "repositories", repo, "_manifests/tags", tag, "current/link"))
	if err != nil {
		return err
	}
	data := func(digest string) string {
		hex := strings.TrimPrefix(digest, "sha256:")
		return filepath.Join(v2, "blobs/sha256", hex[:2], hex, "data")
	}
	b, err := os.ReadFile(data(string(link)))
	if err != nil {
		return err
	}
	var m struct {
		Config struct{ Digest string }
		Layers []struct{ Digest string }
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return err
	}
	target := m.Config.Digest
	switch {
	case what == "layer" && len(m.Layers) > 0:
		target = m.Layers[len(m.Layers)-1].Digest
	case what != "config":
		return errors.New("corrupt: layer or config")
	}
	blob, err := os.ReadFile(data(target))
	if err != nil {
		return err
	}
	blob[len(blob)/2] ^= 0x55
	return os.WriteFile(data(target), blob, 0o644)
}

// certificates makes an authority and a certificate for the TLS registry.
func (s *sandbox) certificates() error {
	caKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "gantry test"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER, err := x509.CreateCertificate(rand.Reader, ca, ca, caKey.Public(), caKey)
	if err != nil {
		return err
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "registry"}, NotBefore: ca.NotBefore, NotAfter: ca.NotAfter,
		IPAddresses: []net.IP{net.IPv4(10, 88, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), caKey)
	if err != nil {
		return err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	for name, block := range map[string]*pem.Block{
		"ca.pem": {Type: "CERTIFICATE", Bytes: caDER}, "cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER},
	} {
		if err := os.WriteFile(s.path(name), pem.EncodeToMemory(block), 0o600); err != nil {
			return err
		}
	}
	return nil
}
