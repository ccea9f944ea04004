package distribution

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"

	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
)

const (
	maxTagsPage  = 4 << 20
	maxTagsPages = 100
)

// tags lists the tags of a repository (its path in the registry), asking the registry
// itself, not a mirror.
func (s *session) tags(ctx context.Context, repo string) ([]string, error) {
	ctx = docker.WithScope(ctx, "repository:"+repo+":pull")
	host := s.own()
	next := &url.URL{Scheme: host.Scheme, Host: host.Host, Path: host.Path + "/" + repo + "/tags/list", RawQuery: "n=1000"}
	var tags []string
	for range maxTagsPages {
		page, link, err := s.tagsPage(ctx, host, next)
		if err != nil {
			return nil, err
		}
		tags = append(tags, page...)
		if link == "" {
			return tags, nil
		}
		u, err := next.Parse(link)
		if err != nil || u.Host != host.Host {
			return nil, errclass.Invalid("registry %s sent an invalid link", host.Host)
		}
		next = u
	}
	return nil, errclass.Invalid("repository %s has too many tags", repo)
}

func (s *session) tagsPage(ctx context.Context, host docker.RegistryHost, u *url.URL) (tags []string, link string, err error) {
	resp, err := s.get(ctx, host, u)
	if err != nil {
		return nil, "", err
	}
	return readTags(resp)
}

// get sends a request, with credentials once the registry has asked for them.
func (s *session) get(ctx context.Context, host docker.RegistryHost, u *url.URL) (*http.Response, error) {
	var responses []*http.Response
	for range 3 {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
		if err != nil {
			return nil, err
		}
		req.Header = s.header.Clone()
		for k, v := range host.Header {
			req.Header[k] = v
		}
		if host.Authorizer != nil {
			if err := host.Authorizer.Authorize(ctx, req); err != nil {
				return nil, err
			}
		}
		resp, err := host.Client.Do(req)
		if err != nil {
			return nil, err
		}
		if resp.StatusCode != http.StatusUnauthorized || host.Authorizer == nil {
			return resp, nil
		}
		resp.Body.Close()
		if len(responses) > 0 {
			break
		}
		responses = append(responses, resp)
		if err := host.Authorizer.AddResponses(ctx, responses); err != nil {
			return nil, err
		}
	}
	return nil, docker.ErrInvalidAuthorization
}

func readTags(resp *http.Response) ([]string, string, error) {
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return nil, "", errdefs.ErrNotFound
	case resp.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("unexpected status of the list of tags: %s", resp.Status)
	}
	var page struct {
		Tags []string `json:"tags"`
	}
	if err := json.NewDecoder(io.LimitReader(resp.Body, maxTagsPage)).Decode(&page); err != nil {
		return nil, "", errclass.Invalid("invalid list of tags: %v", err)
	}
	return page.Tags, nextLink(resp.Header.Get("Link")), nil
}

// nextLink reads `<url>; rel="next"`.
func nextLink(h string) string {
	for i := range len(h) {
		if h[i] == '<' {
			for j := i + 1; j < len(h); j++ {
				if h[j] == '>' {
					return h[i+1 : j]
				}
			}
		}
	}
	return ""
}
