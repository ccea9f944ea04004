package testimage

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// Pusher pushes to one registry over the distribution API v2.
type Pusher struct {
	// Base is the registry's URL, such as http://127.0.0.1:5000.
	Base string
	// User and Password are sent as basic auth when User is set.
	User, Password string
	// CAFile holds the certificates to trust, in PEM; empty: the system's.
	CAFile string

	client *http.Client
}

// Ping waits until the registry answers /v2/ at all, or ctx ends.
func (p *Pusher) Ping(ctx context.Context) error {
	var last error
	for {
		resp, err := p.do(ctx, http.MethodGet, p.Base+"/v2/", "", nil)
		if err == nil {
			resp.Body.Close()
			return nil
		}
		last = err
		select {
		case <-ctx.Done():
			return errors.Join(last, ctx.Err())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Push uploads root and all it refers to, blobs first, and tags it.
func (p *Pusher) Push(ctx context.Context, s *Store, root ocispec.Descriptor, repo, tag string) error {
	blobs, err := s.closure(root, map[digest.Digest]bool{})
	if err != nil {
		return err
	}
	for _, d := range blobs {
		switch d.MediaType {
		case ocispec.MediaTypeImageIndex, MediaDockerList, ocispec.MediaTypeImageManifest, MediaDockerManifest:
			target := d.Digest.String()
			if d.Digest == root.Digest {
				target = tag
			}
			err = p.manifest(ctx, s, d, repo, target)
		default:
			err = p.blob(ctx, s, d, repo)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (p *Pusher) blob(ctx context.Context, s *Store, d ocispec.Descriptor, repo string) error {
	resp, err := p.do(ctx, http.MethodHead, p.Base+"/v2/"+repo+"/blobs/"+d.Digest.String(), "", nil)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	resp, err = p.do(ctx, http.MethodPost, p.Base+"/v2/"+repo+"/blobs/uploads/", "", nil)
	if err != nil {
		return err
	}
	if err := expect(resp, http.StatusAccepted, "start upload of "+d.Digest.String()); err != nil {
		return err
	}
	loc, err := resp.Request.URL.Parse(resp.Header.Get("Location"))
	if err != nil {
		return err
	}
	q := loc.Query()
	q.Set("digest", d.Digest.String())
	loc.RawQuery = q.Encode()
	f, err := os.Open(s.Path(d.Digest))
	if err != nil {
		return err
	}
	defer f.Close()
	resp, err = p.do(ctx, http.MethodPut, loc.String(), "application/octet-stream", f)
	if err != nil {
		return err
	}
	return expect(resp, http.StatusCreated, "upload "+d.Digest.String())
}

func (p *Pusher) manifest(ctx context.Context, s *Store, d ocispec.Descriptor, repo, target string) error {
	b, err := s.Get(d.Digest)
	if err != nil {
		return err
	}
	resp, err := p.do(ctx, http.MethodPut, p.Base+"/v2/"+repo+"/manifests/"+url.PathEscape(target), d.MediaType, bytes.NewReader(b))
	if err != nil {
		return err
	}
	return expect(resp, http.StatusCreated, "put manifest "+repo+":"+target)
}

func expect(resp *http.Response, status int, what string) error {
	defer resp.Body.Close()
	if resp.StatusCode == status {
		return nil
	}
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return fmt.Errorf("testimage: %s: %s: %s", what, resp.Status, bytes.TrimSpace(b))
}

func (p *Pusher) do(ctx context.Context, method, u, contentType string, body io.Reader) (*http.Response, error) {
	if p.client == nil {
		cfg := &tls.Config{MinVersion: tls.VersionTLS12}
		if p.CAFile != "" {
			pem, err := os.ReadFile(p.CAFile)
			if err != nil {
				return nil, err
			}
			cfg.RootCAs = x509.NewCertPool()
			cfg.RootCAs.AppendCertsFromPEM(pem)
		}
		p.client = &http.Client{Transport: &http.Transport{TLSClientConfig: cfg}}
	}
	req, err := http.NewRequestWithContext(ctx, method, u, body)
	if err != nil {
		return nil, err
	}
	if f, ok := body.(*os.File); ok {
		st, err := f.Stat()
		if err != nil {
			return nil, err
		}
		req.ContentLength = st.Size()
	}
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	if p.User != "" {
		req.SetBasicAuth(p.User, p.Password)
	}
	return p.client.Do(req)
}

// SplitRef splits "repo:tag" (no registry part), the tag being "latest" by default.
func SplitRef(ref string) (repo, tag string) {
	tag = tagOf(ref)
	return strings.TrimSuffix(ref, ":"+tag), tag
}
