// Package command is what all commands share: the streams, the lazily made API client
// and configuration, errors that carry an exit code, argument checks and help texts.
package command

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/gantry/gantry/cli/config"
	"github.com/gantry/gantry/cli/terminal"
	"github.com/gantry/gantry/internal/version"
	"github.com/moby/moby/client"
)

// Globals are the flags in front of the command.
type Globals struct {
	ConfigDir string
	Context   string
	Debug     bool
	Hosts     []string
	LogLevel  string
	TLS       bool
	TLSVerify bool
	TLSCA     string
	TLSCert   string
	TLSKey    string
	// TLSSet says that --tls or --tlsverify was given, so that environment is not asked.
	TLSSet bool
}

// Cli is one run of the program. It is used from one goroutine, except where noted.
type Cli struct {
	In      *terminal.In
	Out     *terminal.Out
	Err     *terminal.Out
	Globals Globals

	cfg    *config.File
	client *client.Client
}

// New makes a Cli on three streams.
func New(in io.ReadCloser, out, errw io.Writer) *Cli {
	return &Cli{In: terminal.NewIn(in), Out: terminal.NewOut(out), Err: terminal.NewOut(errw)}
}

// ConfigDir is where config.json and contexts are.
func (c *Cli) ConfigDir() string {
	if c.Globals.ConfigDir != "" {
		return c.Globals.ConfigDir
	}
	return config.Dir()
}

// Config is the parsed config.json, read at the first call. An unreadable file is warned
// of once and counts as empty.
func (c *Cli) Config() *config.File {
	if c.cfg == nil {
		f, err := config.Load(c.ConfigDir())
		if err != nil {
			fmt.Fprintln(c.Err, "WARNING: Error", err)
		}
		c.cfg = f
	}
	return c.cfg
}

// ContextName is the context in force, by flag, environment and config.json.
func (c *Cli) ContextName() string {
	switch {
	case c.Globals.Context != "":
		return c.Globals.Context
	case len(c.Globals.Hosts) > 0, os.Getenv("DOCKER_HOST") != "":
		return config.DefaultContext
	case os.Getenv("DOCKER_CONTEXT") != "":
		return os.Getenv("DOCKER_CONTEXT")
	case c.Config().CurrentContext != "":
		return c.Config().CurrentContext
	}
	return config.DefaultContext
}

// Endpoint is where the daemon is.
type Endpoint struct {
	Host           string
	CA, Cert, Key  string
	TLS, SkipCheck bool
}

// DefaultHost is where the daemon listens when nobody says otherwise.
const DefaultHost = "unix:///var/run/docker.sock"

// Endpoint resolves the context in force to an address and TLS settings.
func (c *Cli) Endpoint() (Endpoint, error) {
	if len(c.Globals.Hosts) > 0 && c.Globals.Context != "" {
		return Endpoint{}, fmt.Errorf("conflicting options: cannot specify both --host and --context")
	}
	e, err := c.endpoint(c.ContextName())
	if err != nil {
		return e, fmt.Errorf("Failed to initialize: unable to resolve docker endpoint: %w", err)
	}
	return e, nil
}

func (c *Cli) endpoint(name string) (Endpoint, error) {
	if name == config.DefaultContext {
		return c.defaultEndpoint()
	}
	ctx, err := config.LoadContext(c.ConfigDir(), name)
	if err != nil {
		return Endpoint{}, err
	}
	ep, ok := ctx.Endpoints["docker"]
	if !ok {
		return Endpoint{}, fmt.Errorf("no docker endpoint in context %q", name)
	}
	e := Endpoint{
		Host: ep.Host, SkipCheck: ep.SkipTLSVerify,
		CA: ctx.TLSFile("ca.pem"), Cert: ctx.TLSFile("cert.pem"), Key: ctx.TLSFile("key.pem"),
	}
	e.TLS = e.CA != "" || e.Cert != "" || e.SkipCheck
	if e.Host == "" {
		e.Host = DefaultHost
	}
	return e, nil
}

// DefaultEndpointHost is the address of the default context.
func (c *Cli) DefaultEndpointHost() string {
	e, err := c.defaultEndpoint()
	if err != nil {
		return DefaultHost
	}
	return e.Host
}

func (c *Cli) defaultEndpoint() (Endpoint, error) {
	g := c.Globals
	var host string
	switch len(g.Hosts) {
	case 0:
		host = os.Getenv("DOCKER_HOST")
	case 1:
		host = g.Hosts[0]
	default:
		return Endpoint{}, fmt.Errorf("Specify only one -H")
	}
	tlsOn, verify := g.TLS, g.TLSVerify
	if !g.TLSSet {
		tlsOn = os.Getenv("DOCKER_TLS") != ""
		verify = os.Getenv("DOCKER_TLS_VERIFY") != ""
	}
	e := Endpoint{TLS: tlsOn || verify, SkipCheck: !verify}
	if e.TLS {
		dir := os.Getenv("DOCKER_CERT_PATH")
		if dir == "" {
			dir = c.ConfigDir()
		}
		pick := func(flag, name string) string {
			if flag != "" {
				return flag
			}
			p := filepath.Join(dir, name)
			if _, err := os.Stat(p); err != nil {
				return ""
			}
			return p
		}
		e.CA, e.Cert, e.Key = pick(g.TLSCA, "ca.pem"), pick(g.TLSCert, "cert.pem"), pick(g.TLSKey, "key.pem")
		if !verify {
			e.CA = ""
		}
	}
	h, err := ParseHost(e.TLS, host)
	e.Host = h
	return e, err
}

// ParseHost completes a -H value: scheme, address and port have defaults.
func ParseHost(tlsOn bool, s string) (string, error) {
	s = strings.TrimSpace(s)
	port := "2375"
	if tlsOn {
		port = "2376"
	}
	if s == "" {
		if tlsOn {
			return "tcp://localhost:" + port, nil
		}
		return DefaultHost, nil
	}
	proto, addr, ok := strings.Cut(s, "://")
	if !ok {
		proto, addr = "tcp", s
	}
	switch proto {
	case "tcp":
		hostport, path, _ := strings.Cut(addr, "/")
		if path != "" {
			path = "/" + path
		}
		host, p, err := splitHostPort(hostport)
		if err != nil {
			return "", fmt.Errorf("invalid bind address format: %s", s)
		}
		if host == "" {
			host = "localhost"
		}
		if p == "" {
			p = port
		}
		return "tcp://" + host + ":" + p + path, nil
	case "unix":
		if addr == "" {
			addr = "/var/run/docker.sock"
		}
		return "unix://" + addr, nil
	case "ssh", "fd", "http", "https":
		return s, nil
	}
	return "", fmt.Errorf("invalid bind address format: %s", s)
}

func splitHostPort(s string) (host, port string, err error) {
	if strings.HasPrefix(s, "[") {
		end := strings.IndexByte(s, ']')
		if end < 0 {
			return "", "", fmt.Errorf("missing ']'")
		}
		return s[:end+1], strings.TrimPrefix(s[end+1:], ":"), nil
	}
	host, port, _ = strings.Cut(s, ":")
	if strings.Contains(port, ":") {
		return "", "", fmt.Errorf("too many colons")
	}
	return host, port, nil
}

// Client is the API client, made at the first call; it negotiates the API version with
// its first request, on the connection that request then uses.
func (c *Cli) Client() (*client.Client, error) {
	if c.client != nil {
		return c.client, nil
	}
	ep, err := c.Endpoint()
	if err != nil {
		return nil, err
	}
	opts := []client.Opt{
		client.WithUserAgent(userAgent()),
		client.WithAPIVersionFromEnv(),
	}
	switch {
	case strings.HasPrefix(ep.Host, "ssh://"):
		dial, err := sshDialer(ep.Host)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.WithHost("http://docker.example.com"), client.WithDialContext(dial))
	case ep.TLS:
		hc, err := tlsClient(ep)
		if err != nil {
			return nil, err
		}
		opts = append(opts, client.WithHTTPClient(hc), client.WithHost(ep.Host))
	default:
		opts = append(opts, client.WithHost(ep.Host))
	}
	if h := c.headers(); len(h) > 0 {
		opts = append(opts, client.WithHTTPHeaders(h))
	}
	cl, err := client.New(opts...)
	if err != nil {
		return nil, err
	}
	c.client = cl
	return cl, nil
}

func userAgent() string { return "Docker-Client/" + version.Version + " (linux)" }

// headers are HttpHeaders of config.json; DOCKER_CUSTOM_HEADERS (name=value,…) replaces
// them.
func (c *Cli) headers() map[string]string {
	if env := os.Getenv("DOCKER_CUSTOM_HEADERS"); env != "" {
		h := map[string]string{}
		for _, kv := range strings.Split(env, ",") {
			if k, v, ok := strings.Cut(kv, "="); ok && k != "" {
				h[k] = v
			}
		}
		return h
	}
	h := map[string]string{}
	for k, v := range c.Config().HTTPHeaders {
		if !strings.EqualFold(k, "User-Agent") {
			h[k] = v
		}
	}
	return h
}

// DetachKeys is the sequence in force: the flag if given, else config.json's.
func (c *Cli) DetachKeys(flag string) string {
	if flag != "" {
		return flag
	}
	return c.Config().DetachKeys
}

// Confirm asks on the terminal and answers whether the user said yes.
func (c *Cli) Confirm(ctx context.Context, question string) (bool, error) {
	fmt.Fprintf(c.Out, "%s [y/N] ", question)
	answer := make(chan string, 1)
	go func() {
		line, _ := readLine(c.In)
		answer <- line
	}()
	select {
	case <-ctx.Done():
		fmt.Fprintln(c.Out)
		return false, fmt.Errorf("prompt terminated: %w", ctx.Err())
	case a := <-answer:
		return strings.EqualFold(strings.TrimSpace(a), "y"), nil
	}
}

// readLine reads up to a newline byte by byte, so that nothing of what follows is lost.
func readLine(r io.Reader) (string, error) {
	var b []byte
	buf := make([]byte, 1)
	for len(b) < 64<<10 {
		n, err := r.Read(buf)
		if n == 1 {
			if buf[0] == '\n' {
				return strings.TrimSuffix(string(b), "\r"), nil
			}
			b = append(b, buf[0])
		}
		if err != nil {
			return string(b), err
		}
	}
	return string(b), fmt.Errorf("line is too long")
}

// ReadLine reads one line of the input, without reading past it.
func (c *Cli) ReadLine() (string, error) { return readLine(c.In) }
