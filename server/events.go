package server

import (
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/filter"
	"github.com/moby/moby/api/types"
	eventtypes "github.com/moby/moby/api/types/events"
)

// eventObjects are the filters that name an object, and the type they are about.
func eventObjects() map[string]eventtypes.Type {
	return map[string]eventtypes.Type{
		"container": eventtypes.ContainerEventType, "image": eventtypes.ImageEventType,
		"network": eventtypes.NetworkEventType, "volume": eventtypes.VolumeEventType,
		"daemon": eventtypes.DaemonEventType, "plugin": eventtypes.PluginEventType,
		"node": eventtypes.NodeEventType, "service": eventtypes.ServiceEventType,
		"secret": eventtypes.SecretEventType, "config": eventtypes.ConfigEventType,
	}
}

// legacyEvent has the fields that clients before 1.52 were still sent.
type legacyEvent struct {
	Status string `json:"status,omitempty"`
	ID     string `json:"id,omitempty"`
	From   string `json:"from,omitempty"`
	eventtypes.Message
}

func lowerEvent(m eventtypes.Message, v apiVersion) any {
	if !v.before(52) {
		return m
	}
	old := legacyEvent{Message: m}
	switch m.Type {
	case eventtypes.ContainerEventType:
		old.Status, old.ID, old.From = string(m.Action), m.Actor.ID, m.Actor.Attributes["image"]
	case eventtypes.ImageEventType:
		old.Status, old.ID = string(m.Action), m.Actor.ID
	}
	return old
}

// period is the time whose events a request wants.
type period struct {
	since, until time.Time
	past         bool // until is over: the answer ends with what is kept
}

// eventPeriod reads since and until. Either may be absent; 0 is the beginning of time.
func eventPeriod(c *call) (p period, err error) {
	if p.since, err = eventTime(c, "since"); err != nil {
		return p, err
	}
	if p.until, err = eventTime(c, "until"); err != nil || p.until.IsZero() {
		return p, err
	}
	if p.until.Before(p.since) {
		return p, errclass.Invalid("`since` time (%s) cannot be after `until` time (%s)", c.query.Get("since"), c.query.Get("until"))
	}
	if p.since.IsZero() {
		p.since = time.Unix(0, 0)
	}
	p.past = p.until.Before(time.Now())
	return p, nil
}

func eventTime(c *call, name string) (time.Time, error) {
	v := c.query.Get(name)
	if v == "0" {
		return time.Unix(0, 0), nil
	}
	t, err := parseTime(v)
	if err != nil {
		return t, errclass.Invalid("invalid value for %q: %w", name, err)
	}
	return t, nil
}

// over reports whether m is later than what was asked for.
func (p period) over(m eventtypes.Message) bool {
	return !p.until.IsZero() && m.TimeNano > p.until.UnixNano()
}

// end is a timer's channel for the end of the period; nil when it has none.
func (p period) end() (_ <-chan time.Time, stop func()) {
	if p.until.IsZero() {
		return nil, func() {}
	}
	t := time.NewTimer(time.Until(p.until))
	return t.C, func() { t.Stop() }
}

func (s systemAPI) events(c *call) error {
	p, err := eventPeriod(c)
	if err != nil {
		return err
	}
	f, err := c.filters()
	if err != nil {
		return err
	}
	past, sub := s.System.Events().Subscribe(p.since)
	defer sub.Close()
	ctx, cancel := c.stream()
	defer cancel()

	mediaType, prefix := eventFraming(c)
	c.w.Header().Set("Content-Type", mediaType)
	c.w.WriteHeader(http.StatusOK)
	c.w.Flush()
	send := func(m eventtypes.Message) error {
		if p.over(m) || !matchEvent(f, m) {
			return nil
		}
		line, err := jsonLine(lowerEvent(m, c.version))
		if err != nil {
			return err
		}
		_, err = flushed{c.w}.Write(append([]byte(prefix), line...))
		return err
	}
	for _, m := range past {
		if err := send(m); err != nil {
			return nil // the client is gone
		}
	}
	if p.past {
		return nil
	}
	end, stop := p.end()
	defer stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-end:
			return nil
		case m, ok := <-sub.C():
			if !ok {
				// Too slow: what was missed can't be sent any more, and ending the
				// stream is how the client learns of it.
				return errclass.Unavailable("the client read events too slowly")
			}
			if err := send(m); err != nil {
				return nil // the client is gone
			}
		}
	}
}

// eventFraming chooses how events are told apart: since 1.52 the client may ask.
func eventFraming(c *call) (mediaType, prefix string) {
	accept := c.r.Header.Get("Accept")
	switch {
	case c.version.before(52):
	case strings.Contains(accept, types.MediaTypeJSONSequence):
		return types.MediaTypeJSONSequence, "\x1e"
	case strings.Contains(accept, types.MediaTypeNDJSON):
		return types.MediaTypeNDJSON, ""
	case strings.Contains(accept, types.MediaTypeJSONLines) && !c.version.before(53):
		return types.MediaTypeJSONLines, ""
	}
	return types.MediaTypeJSON, ""
}

// matchEvent reports whether m passes the filters, by Docker's rules: values of
// one key are alternatives, keys add up.
func matchEvent(f filter.Args, m eventtypes.Message) bool {
	if !f.Any("event", func(v string) bool { return matchAction(v, string(m.Action)) }) ||
		!f.Any("type", func(v string) bool { return v == string(m.Type) }) ||
		!f.Any("scope", func(v string) bool { return v == m.Scope }) ||
		!f.Labels("label", m.Actor.Attributes) {
		return false
	}
	for key, typ := range eventObjects() {
		if len(f[key]) == 0 {
			continue
		}
		if key == "image" {
			if !matchImageEvent(f[key], m) {
				return false
			}
			continue
		}
		if m.Type != typ {
			return false
		}
		if !slices.ContainsFunc(f[key], func(v string) bool {
			return v != "" && (strings.HasPrefix(m.Actor.Attributes["name"], v) || strings.HasPrefix(m.Actor.ID, v))
		}) {
			return false
		}
	}
	return true
}

// matchAction lets "exec_create" and "health_status" stand for all of their kind.
func matchAction(want, action string) bool {
	if want == action {
		return true
	}
	head, _, long := strings.Cut(action, ":")
	return long && want == head
}

// matchImageEvent: events of images by id or name, and those of containers by the
// image they were made from; a name without a tag stands for all tags.
func matchImageEvent(wants []string, m eventtypes.Message) bool {
	name := m.Actor.Attributes["name"]
	if m.Type != eventtypes.ImageEventType {
		name = m.Actor.Attributes["image"]
	}
	return slices.ContainsFunc(wants, func(want string) bool {
		return want == m.Actor.ID || want == name || want == untagged(name) || untagged(m.Actor.ID) == want
	})
}

func untagged(name string) string {
	if i := strings.LastIndexByte(name, ':'); i > strings.LastIndexByte(name, '/') {
		return name[:i]
	}
	return name
}
