package command

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"strings"
	"time"

	"github.com/moby/moby/client"
)

// tlsClient makes the HTTP client of an endpoint with certificates.
func tlsClient(ep Endpoint) (*http.Client, error) {
	cfg := &tls.Config{MinVersion: tls.VersionTLS12, InsecureSkipVerify: ep.SkipCheck} //nolint:gosec // --tls without verify asks for it
	if ep.CA != "" {
		pem, err := os.ReadFile(ep.CA)
		if err != nil {
			return nil, fmt.Errorf("could not read CA certificate %q: %w", ep.CA, err)
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("failed to append certificates from PEM file: %q", ep.CA)
		}
	}
	if ep.Cert != "" || ep.Key != "" {
		cert, err := tls.LoadX509KeyPair(ep.Cert, ep.Key)
		if err != nil {
			return nil, fmt.Errorf("could not load X509 key pair: %w", err)
		}
		cfg.Certificates = []tls.Certificate{cert}
	}
	return &http.Client{
		Transport:     &http.Transport{TLSClientConfig: cfg},
		CheckRedirect: client.CheckRedirect,
	}, nil
}

// sshDialer opens connections as `ssh HOST docker system dial-stdio`.
func sshDialer(host string) (func(context.Context, string, string) (net.Conn, error), error) {
	args, err := sshArgs(host)
	if err != nil {
		return nil, err
	}
	return func(context.Context, string, string) (net.Conn, error) {
		// Not bound to the context of the dial: the connection outlives it.
		return newCmdConn(exec.Command("ssh", args...))
	}, nil
}

// sshArgs turns ssh://[user@]host[:port][/socket] into arguments of ssh. Values which ssh
// would take for options are refused.
func sshArgs(host string) ([]string, error) {
	u, err := url.Parse(host)
	if err != nil {
		return nil, fmt.Errorf("invalid SSH URL: %w", err)
	}
	if u.Hostname() == "" {
		return nil, errors.New("invalid SSH URL: no host specified")
	}
	if _, pw := u.User.Password(); pw {
		return nil, errors.New("invalid SSH URL: plain-text password is not supported")
	}
	if u.RawQuery != "" || u.Fragment != "" {
		return nil, errors.New("invalid SSH URL: query and fragment are not allowed")
	}
	var args []string
	if user := u.User.Username(); user != "" {
		args = append(args, "-l", user)
	}
	if p := u.Port(); p != "" {
		args = append(args, "-p", p)
	}
	args = append(args, "-o", "ConnectTimeout=30", "-T", "--", u.Hostname(), "docker")
	if path := strings.TrimSuffix(u.Path, "/"); path != "" {
		// The remote side is a shell: quote the path.
		args = append(args, "--host=unix://'"+strings.ReplaceAll(path, "'", `'\''`)+"'")
	}
	return append(args, "system", "dial-stdio"), nil
}

// cmdConn is a connection to the standard streams of a command. Close ends the command.
type cmdConn struct {
	cmd *exec.Cmd
	in  *os.File
	out *os.File
}

func newCmdConn(cmd *exec.Cmd) (*cmdConn, error) {
	inR, inW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	outR, outW, err := os.Pipe()
	if err != nil {
		inR.Close()
		inW.Close()
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = inR, outW, os.Stderr
	err = cmd.Start()
	inR.Close()
	outW.Close()
	if err != nil {
		inW.Close()
		outR.Close()
		return nil, fmt.Errorf("command %s has not started: %w", cmd.Path, err)
	}
	return &cmdConn{cmd: cmd, in: inW, out: outR}, nil
}

// Read implements net.Conn.
func (c *cmdConn) Read(p []byte) (int, error) { return c.out.Read(p) }

// Write implements net.Conn.
func (c *cmdConn) Write(p []byte) (int, error) { return c.in.Write(p) }

// CloseWrite ends the input of the command.
func (c *cmdConn) CloseWrite() error { return c.in.Close() }

// Close ends the command: end of input first, SIGTERM after a moment.
func (c *cmdConn) Close() error {
	c.in.Close()
	c.out.Close()
	t := time.AfterFunc(3*time.Second, func() { _ = c.cmd.Process.Kill() })
	go func() {
		_ = c.cmd.Wait()
		t.Stop()
	}()
	return nil
}

type cmdAddr string

// Network implements net.Addr.
func (cmdAddr) Network() string { return "command" }

// String implements net.Addr.
func (a cmdAddr) String() string { return string(a) }

// LocalAddr implements net.Conn.
func (c *cmdConn) LocalAddr() net.Addr { return cmdAddr("local") }

// RemoteAddr implements net.Conn.
func (c *cmdConn) RemoteAddr() net.Addr { return cmdAddr(c.cmd.Path) }

// SetDeadline implements net.Conn; pipes of a command take deadlines.
func (c *cmdConn) SetDeadline(t time.Time) error {
	return errors.Join(c.out.SetReadDeadline(t), c.in.SetWriteDeadline(t))
}

// SetReadDeadline implements net.Conn.
func (c *cmdConn) SetReadDeadline(t time.Time) error { return c.out.SetReadDeadline(t) }

// SetWriteDeadline implements net.Conn.
func (c *cmdConn) SetWriteDeadline(t time.Time) error { return c.in.SetWriteDeadline(t) }
