package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
)

const (
	// maxJSONBody bounds a JSON request body in bytes. A create request with
	// thousands of mounts and variables is well below it.
	maxJSONBody = 4 << 20
	// bodyTimeout is how long a client may take to send a JSON body.
	bodyTimeout = 30 * time.Second
)

// call is one request on its way through a handler. It is used by one goroutine.
type call struct {
	s       *Server
	w       *response
	r       *http.Request
	version apiVersion
	vars    map[string]string
	query   url.Values
}

// ctx ends when the client goes away.
func (c *call) ctx() context.Context { return c.r.Context() }

// steady is a context for changes that go on when the client goes away in the
// middle: a half-stopped container helps nobody.
func (c *call) steady() context.Context { return context.WithoutCancel(c.r.Context()) }

// stream is a context for answers without an end of their own: it ends with the
// client, and when the server shuts down.
func (c *call) stream() (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(c.r.Context())
	stop := context.AfterFunc(c.s.closing, cancel)
	return ctx, func() { stop(); cancel() }
}

// flag reads a boolean parameter as Docker does: anything but "", 0, no, false
// and none is true.
func (c *call) flag(name string) bool {
	switch strings.ToLower(strings.TrimSpace(c.query.Get(name))) {
	case "", "0", "no", "false", "none":
		return false
	}
	return true
}

// flagOr is flag with a default for a parameter that is not there.
func (c *call) flagOr(name string, def bool) bool {
	if !c.query.Has(name) {
		return def
	}
	return c.flag(name)
}

// number reads an integer parameter; def when it is absent or empty.
func (c *call) number(name string, def int) (int, error) {
	v := c.query.Get(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil {
		return 0, errclass.Invalid("invalid value for %q: %q is not a number", name, v)
	}
	return n, nil
}

func (c *call) filters() (filter.Args, error) { return filter.Parse(c.query.Get("filters")) }

// decode reads the JSON body into v. A body is required unless optional.
func (c *call) decode(v any, optional bool) error {
	// Without a body no type is needed; any other that is named is a mistake even then.
	if ct := c.r.Header.Get("Content-Type"); ct != "" || c.r.ContentLength != 0 {
		mt, _, err := mime.ParseMediaType(ct)
		switch {
		case err != nil:
			return errclass.Invalid("malformed Content-Type header (%s): %w", ct, err)
		case mt != "application/json":
			return errclass.Invalid("unsupported Content-Type header (%s): must be 'application/json'", ct)
		}
	}
	if c.r.ContentLength == 0 && optional {
		return nil
	}
	rc := http.NewResponseController(c.w)
	if rc.SetReadDeadline(time.Now().Add(bodyTimeout)) == nil {
		defer func() { _ = rc.SetReadDeadline(time.Time{}) }() // only fails on a closed connection
	}
	dec := json.NewDecoder(http.MaxBytesReader(c.w, c.r.Body, maxJSONBody))
	if err := dec.Decode(v); err != nil {
		var tooLarge *http.MaxBytesError
		switch {
		case errors.Is(err, io.EOF) && optional:
			return nil
		case errors.Is(err, io.EOF):
			return errclass.Invalid("invalid JSON: got EOF while reading request body")
		case errors.As(err, &tooLarge):
			return err
		}
		return errclass.Invalid("invalid JSON: %w", err)
	}
	// Anything but white space after the document is a mistake; reading on also
	// drains the body, which a hijack needs.
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errclass.Invalid("unexpected content after JSON")
	}
	return nil
}

// json answers with v.
func (c *call) json(status int, v any) error {
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(status)
	_, _ = c.w.Write(line) // the client is gone: nobody to tell
	return nil
}

// jsonLine encodes v on a line of its own. As in Docker's answers <, > and & stand for
// themselves: people read them, no browser does.
func jsonLine(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

// done answers without a body.
func (c *call) done(status int) error {
	c.w.WriteHeader(status)
	return nil
}

// listOf makes nil slices encode as [] where Docker's answers do.
func listOf[T any](s []T) []T {
	if s == nil {
		return []T{}
	}
	return s
}
