package plugin

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// tlsConfig is the TLSConfig of a plugin's JSON file, in Docker's words.
type tlsConfig struct {
	// InsecureSkipVerify takes any certificate of the plugin.
	InsecureSkipVerify bool
	// CAFile are authorities to believe beside the system's.
	CAFile string
	// CertFile and KeyFile are ours, for plugins that ask.
	CertFile, KeyFile string
}

// load reads the files that are named; addr is the plugin's host and port.
func (c *tlsConfig) load(addr string) (*tls.Config, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	conf := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: host, InsecureSkipVerify: c.InsecureSkipVerify}
	if c.CAFile != "" && !c.InsecureSkipVerify {
		if conf.RootCAs, err = x509.SystemCertPool(); err != nil {
			return nil, fmt.Errorf("reading the system's authorities: %w", err)
		}
		data, err := readFile(c.CAFile)
		if err != nil {
			return nil, err
		}
		if !conf.RootCAs.AppendCertsFromPEM(data) {
			return nil, fmt.Errorf("no certificate in %s", c.CAFile)
		}
	}
	if c.CertFile == "" && c.KeyFile == "" {
		return conf, nil
	}
	if c.CertFile == "" || c.KeyFile == "" {
		return nil, errors.New("CertFile and KeyFile go together")
	}
	cert, err := readFile(c.CertFile)
	if err != nil {
		return nil, err
	}
	key, err := readFile(c.KeyFile)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate %s and key %s: %w", c.CertFile, c.KeyFile, err)
	}
	conf.Certificates = []tls.Certificate{pair}
	return conf, nil
}

// maxPEM bounds a file of certificates in bytes.
const maxPEM = 1 << 20

func readFile(path string) ([]byte, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxPEM+1))
	if err == nil && len(data) > maxPEM {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, maxPEM)
	}
	return data, err
}
