// Package plugin speaks Docker's legacy plugin protocol: JSON by HTTP POST over a unix or
// TCP socket (docs.docker.com/engine/extend/plugin_api). Network, IPAM and volume drivers
// are built on it. Everything that a plugin answers is bounded in size and time.
//
// The seam is Source: where plugins are found. Registry finds those that a file in a
// well-known directory names; plugintest.Source holds plugins in memory for tests.
package plugin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/gantry/gantry/internal/errclass"
)

const (
	// contentType is the protocol's, in requests and answers.
	contentType = "application/vnd.docker.plugins.v1.2+json"
	// CallTimeout bounds one call; the caller's context may be shorter.
	CallTimeout = 30 * time.Second
	maxAnswer   = 1 << 20
)

// Source finds plugins by name. Implementations are safe for concurrent use, and what they
// return is not closed: a Client holds no connection between calls. Find changes nothing
// and may be repeated; it does not call the plugin, so a plugin that is found may still be
// unreachable, or speak another protocol than the caller's (Client.Activate tells).
//
// Errors: NotFound (errdefs) when there is no such plugin, whatever the name is; an
// implementation may fail with other classes for a plugin that is there and cannot be used.
// plugintest.Run holds an implementation to this.
type Source interface {
	Find(name string) (*Client, error)
	// Names are the plugins that Find may find now, of whatever protocol, sorted. It calls none
	// of them.
	Names() []string
}

// NotFound is the error of a Source that has no plugin of a name, in Docker's words.
func NotFound(name string) error {
	return errclass.NotFound("could not find plugin %s in v1 plugin registry: plugin %q not found", name, name)
}

// Client calls one plugin. Safe for concurrent use; it holds no connection between calls.
type Client struct {
	name string
	http *http.Client
}

// New makes a client for the plugin of a name, which rt leads to whatever host a request
// names.
func New(name string, rt http.RoundTripper) *Client {
	return &Client{name: name, http: &http.Client{
		Transport: rt,
		// A plugin does not send us elsewhere.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Fault is what a plugin itself says went wrong, in the answer's field Err or Error.
type Fault struct { //nolint:errname // a fault of the plugin, which says it
	// Method is what was called ("VolumeDriver.Create"), Text the plugin's words.
	Method, Text string
	// Status is the answer's HTTP status: 200 from plugins that report by the field alone.
	Status int
}

// Error implements error, in the words that Docker uses for network and IPAM drivers.
func (f *Fault) Error() string { return "remote: " + f.Text }

// Activate asks which protocols the plugin speaks, and refuses one that does not speak
// want ("NetworkDriver", "IpamDriver", "VolumeDriver", …) with class NotFound.
func (c *Client) Activate(ctx context.Context, want string) error {
	var answer struct{ Implements []string }
	if err := c.Call(ctx, "Plugin.Activate", nil, &answer); err != nil {
		return err
	}
	if !slices.Contains(answer.Implements, want) {
		return errclass.NotFound("plugin %q does not implement %q", c.name, want)
	}
	return nil
}

// Call sends in to a method and decodes what comes back into out; either may be nil.
// Errors: NotFound for a method that the plugin has not, Unavailable when it cannot be
// reached, a *Fault for what it says itself.
func (c *Client) Call(ctx context.Context, method string, in, out any) error {
	ctx, cancel := context.WithTimeout(ctx, CallTimeout)
	defer cancel()
	body := []byte("{}")
	var err error
	if in != nil {
		if body, err = json.Marshal(in); err != nil {
			return fmt.Errorf("plugin %s: %s: %w", c.name, method, err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin/"+method, bytes.NewReader(body))
	if err != nil {
		return fmt.Errorf("plugin %s: %s: %w", c.name, method, err)
	}
	req.Header.Set("Accept", contentType)
	req.Header.Set("Content-Type", contentType)
	resp, err := c.http.Do(req)
	if err != nil {
		return errclass.Unavailable("plugin %s: %s: %v", c.name, method, err)
	}
	defer resp.Body.Close()
	data, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return errclass.Unavailable("plugin %s: %s: %v", c.name, method, err)
	}
	if len(data) > maxAnswer {
		return errclass.Unavailable("plugin %s: %s: the answer is larger than %d bytes", c.name, method, maxAnswer)
	}
	// NetworkDriver says Err, IpamDriver Error.
	var fault struct{ Err, Error string }
	_ = json.Unmarshal(data, &fault)
	said := fault.Err + fault.Error
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return errclass.NotFound("plugin %s has no %s", c.name, method)
	case resp.StatusCode != http.StatusOK && said == "":
		return fmt.Errorf("plugin %s: %s: %s", c.name, method, resp.Status)
	case said != "":
		return &Fault{Method: method, Text: said, Status: resp.StatusCode}
	case out == nil:
		return nil
	}
	if err := json.Unmarshal(data, out); err != nil {
		return fmt.Errorf("plugin %s: %s: decoding the answer: %w", c.name, method, err)
	}
	return nil
}
