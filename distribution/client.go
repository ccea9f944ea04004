package distribution

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types/registry"
)

// Options of a Client. They are not changed afterwards.
type Options struct {
	// Insecure are "host", "host:port" or CIDR; their certificates are not verified and
	// plain HTTP is tried. Loopback addresses always count as such.
	Insecure []string
	// Mirrors are base URLs by registry host ("docker.io"), asked before it, in order.
	Mirrors map[string][]string
	// CertsDir holds <host>/{*.crt,*.cert,*.key}: CAs, and client certificates with keys.
	CertsDir string
	// UserAgent is sent with every request.
	UserAgent string
}

// Client reaches registries. Connections are kept between uses; credentials are not:
// they live as long as one Repository. Safe for concurrent use.
type Client struct {
	o          Options
	mu         sync.Mutex
	transports map[string]http.RoundTripper
}

// New returns a client. The caller closes it when no Repository of it is in use.
func New(o Options) *Client {
	return &Client{o: o, transports: map[string]http.RoundTripper{}}
}

// session is one use of a registry with one set of credentials: the hosts to ask, mirrors
// first, and the headers that go along with every request.
type session struct {
	hosts  []docker.RegistryHost
	header http.Header
}

// session prepares to talk to the registry of a domain ("docker.io"), with auth when it
// is not nil.
func (c *Client) session(domain string, auth *registry.AuthConfig, header http.Header) (*session, error) {
	h := header.Clone()
	if h == nil {
		h = http.Header{}
	}
	h.Set("User-Agent", c.o.UserAgent)
	s := &session{header: h}
	for _, m := range c.o.Mirrors[domain] {
		host, err := c.mirror(m, h)
		if err != nil {
			return nil, err
		}
		s.hosts = append(s.hosts, host)
	}
	name := domain
	if domain == "docker.io" {
		name = "registry-1.docker.io"
	}
	if auth != nil && !sameRegistry(domain, auth.ServerAddress) {
		slog.Warn("credentials are for another registry and are not sent", "registry", domain)
		auth = nil
	}
	host, err := c.host(name, "https", auth, h)
	if err != nil {
		return nil, err
	}
	s.hosts = append(s.hosts, host)
	return s, nil
}

// mirror is a host that is read from only, and gets no credentials.
func (c *Client) mirror(base string, h http.Header) (docker.RegistryHost, error) {
	u, err := url.Parse(base)
	if err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
		return docker.RegistryHost{}, errclass.Invalid("invalid registry mirror %q", base)
	}
	host, err := c.host(u.Host, u.Scheme, nil, h)
	if err != nil {
		return host, err
	}
	host.Path = strings.TrimSuffix(u.Path, "/") + "/v2"
	host.Capabilities = docker.HostCapabilityPull | docker.HostCapabilityResolve
	return host, nil
}

// own is the registry itself, as opposed to its mirrors.
func (s *session) own() docker.RegistryHost { return s.hosts[len(s.hosts)-1] }

// sameRegistry reports whether credentials stored for address are for domain.
func sameRegistry(domain, address string) bool {
	if address == "" {
		return true
	}
	address = strings.TrimPrefix(strings.TrimPrefix(address, "https://"), "http://")
	address, _, _ = strings.Cut(address, "/")
	if address == "index.docker.io" || address == "registry-1.docker.io" {
		address = "docker.io"
	}
	return address == domain
}

func (c *Client) host(name, scheme string, auth *registry.AuthConfig, header http.Header) (docker.RegistryHost, error) {
	insecure := c.insecure(name)
	t, err := c.transport(name, insecure)
	if err != nil {
		return docker.RegistryHost{}, err
	}
	client := &http.Client{Transport: t, CheckRedirect: func(req *http.Request, via []*http.Request) error {
		if len(via) >= 10 {
			return errors.New("stopped after 10 redirects")
		}
		if req.URL.Scheme != "https" && !c.insecure(req.URL.Host) {
			return fmt.Errorf("refused to follow a redirect to %s://%s", req.URL.Scheme, req.URL.Host)
		}
		return nil
	}}
	h := docker.RegistryHost{
		Client: client, Host: name, Scheme: scheme, Path: "/v2",
		Capabilities: docker.HostCapabilityPull | docker.HostCapabilityResolve | docker.HostCapabilityPush,
	}
	if auth != nil && auth.RegistryToken != "" {
		h.Header = http.Header{"Authorization": {"Bearer " + auth.RegistryToken}}
		return h, nil
	}
	h.Authorizer = newGuard(name, insecure, client, auth, header)
	return h, nil
}

// insecure reports whether a host is on this machine, or configured so.
func (c *Client) insecure(host string) bool {
	name := host
	if h, _, err := net.SplitHostPort(host); err == nil {
		name = h
	}
	name = strings.Trim(name, "[]")
	if name == "localhost" {
		return true
	}
	addr, err := netip.ParseAddr(name)
	isAddr := err == nil
	if isAddr && addr.Unmap().IsLoopback() {
		return true
	}
	for _, i := range c.o.Insecure {
		if i == host || i == name {
			return true
		}
		if p, err := netip.ParsePrefix(i); err == nil && isAddr && p.Contains(addr.Unmap()) {
			return true
		}
	}
	return false
}

// transport returns the connections to a host, by TLS as <CertsDir>/<host> says.
func (c *Client) transport(host string, insecure bool) (http.RoundTripper, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if t, ok := c.transports[host]; ok {
		return t, nil
	}
	conf, own, err := tlsConfig(filepath.Join(c.o.CertsDir, host))
	if err != nil {
		return nil, err
	}
	// A CA given for the very host is there to be used.
	plain := insecure && !own
	conf.InsecureSkipVerify = plain //nolint:gosec // what insecure registries are
	t := &http.Transport{
		Proxy:           http.ProxyFromEnvironment,
		TLSClientConfig: conf, TLSHandshakeTimeout: 10 * time.Second,
		DialContext:           (&net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}).DialContext,
		MaxIdleConnsPerHost:   4,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: 60 * time.Second,
		ForceAttemptHTTP2:     true,
		DisableCompression:    true,
	}
	if plain {
		c.transports[host] = &fallback{t: t}
	} else {
		c.transports[host] = t
	}
	return c.transports[host], nil
}

// tlsConfig reads a registry's CA (*.crt) and client certificates (*.cert with *.key).
func tlsConfig(dir string) (conf *tls.Config, ca bool, err error) {
	conf = &tls.Config{MinVersion: tls.VersionTLS12}
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) {
		return conf, false, nil
	}
	if err != nil {
		return nil, false, fmt.Errorf("certificates of registry: %w", err)
	}
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		switch filepath.Ext(name) {
		case ".crt":
			if conf.RootCAs == nil {
				if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
					conf.RootCAs = x509.NewCertPool()
				}
			}
			pem, err := os.ReadFile(name)
			if err != nil {
				return nil, false, fmt.Errorf("certificates of registry: %w", err)
			}
			if !conf.RootCAs.AppendCertsFromPEM(pem) {
				return nil, false, errclass.Invalid("%s holds no certificate", name)
			}
			ca = true
		case ".cert":
			key := strings.TrimSuffix(name, ".cert") + ".key"
			pair, err := tls.LoadX509KeyPair(name, key)
			if err != nil {
				return nil, false, errclass.Invalid("client certificate %s: %v", name, err)
			}
			conf.Certificates = append(conf.Certificates, pair)
		}
	}
	return conf, ca, nil
}

// fallback speaks plain HTTP to a host that turns out not to speak TLS.
type fallback struct {
	t     *http.Transport
	plain sync.Map // host → true
}

// RoundTrip implements http.RoundTripper.
func (f *fallback) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Scheme != "https" {
		return f.t.RoundTrip(req)
	}
	if _, ok := f.plain.Load(req.URL.Host); ok {
		return f.plainTrip(req)
	}
	resp, err := f.t.RoundTrip(req)
	if err == nil || !speaksHTTP(err) && (req.URL.Port() != "" || !refused(err)) {
		return resp, err
	}
	if req.Body != nil && req.GetBody == nil {
		return resp, err
	}
	presp, perr := f.plainTrip(req)
	if perr != nil {
		return nil, err
	}
	f.plain.Store(req.URL.Host, true)
	return presp, nil
}

func (f *fallback) plainTrip(req *http.Request) (*http.Response, error) {
	r := req.Clone(req.Context())
	r.URL.Scheme = "http"
	if req.GetBody != nil {
		body, err := req.GetBody()
		if err != nil {
			return nil, err
		}
		r.Body = body
	}
	resp, err := f.t.RoundTrip(r)
	if resp != nil {
		resp.Request = req
	}
	return resp, err
}

func speaksHTTP(err error) bool {
	var rec tls.RecordHeaderError
	return errors.As(err, &rec) || strings.Contains(err.Error(), "server gave HTTP response to HTTPS client")
}

func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// Close closes idle connections.
func (c *Client) Close() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, t := range c.transports {
		switch t := t.(type) {
		case *http.Transport:
			t.CloseIdleConnections()
		case *fallback:
			t.t.CloseIdleConnections()
		}
	}
}
