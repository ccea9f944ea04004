package server

import (
	"encoding/json"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/docker/go-units"
	"github.com/moby/moby/api/types/jsonstream"
)

// progressEvery is how often one layer's numbers are sent; a change of status is
// sent at once.
const progressEvery = 100 * time.Millisecond

// progressLine is one line of a progress stream. The texts beside the details
// were deprecated with 1.48 and are still sent, because old clients print them.
type progressLine struct {
	Stream   string               `json:"stream,omitempty"`
	Status   string               `json:"status,omitempty"`
	Detail   *jsonstream.Progress `json:"progressDetail,omitempty"`
	Progress string               `json:"progress,omitempty"`
	ID       string               `json:"id,omitempty"`
	ErrorDoc *jsonstream.Error    `json:"errorDetail,omitempty"`
	Error    string               `json:"error,omitempty"`
	Aux      any                  `json:"aux,omitempty"`
}

// progressStream writes what a pull or load reports as a stream of JSON lines. It
// implements progress.Sink and is safe for concurrent use.
type progressStream struct {
	c *call
	// plain sends lines without an id as output ("stream"), as loading does.
	plain bool
	now   func() time.Time

	mu   sync.Mutex
	last map[string]shown
	err  error
}

// shown is what was last sent about a layer.
type shown struct {
	status         string
	at             time.Time
	current, total int64
}

func newProgress(c *call, plain bool) *progressStream {
	return &progressStream{c: c, plain: plain, now: time.Now, last: map[string]shown{}}
}

// Update implements progress.Sink.
func (p *progressStream) Update(id, status string, current, total int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if id == "" {
		if p.plain {
			p.send(progressLine{Stream: strings.TrimSuffix(status, "\n") + "\n"})
		} else {
			p.send(progressLine{Status: status})
		}
		return
	}
	if strings.HasPrefix(status, "Pulling from ") {
		// The head line of a pull is a message, not a bar: no details.
		p.send(progressLine{Status: status, ID: id})
		return
	}
	now, prev := p.now(), p.last[id]
	finished := total > 0 && current >= total && prev.current < prev.total
	if prev.status == status && !finished && now.Sub(prev.at) < progressEvery {
		return
	}
	p.last[id] = shown{status, now, current, total}
	p.send(progressLine{
		Status: status, ID: id,
		Detail:   &jsonstream.Progress{Current: current, Total: total},
		Progress: bar(current, total),
	})
}

// Aux implements progress.Sink.
func (p *progressStream) Aux(v any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.send(progressLine{Aux: v})
}

// end finishes the stream with the operation's result: an error before the first
// line is the caller's to answer with a status, a later one is the last line.
func (p *progressStream) end(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case err == nil && !p.c.w.wrote:
		p.head()
		return nil
	case err == nil:
		return nil
	case !p.c.w.wrote:
		return err
	}
	p.c.s.Log.Debug("operation failed after its progress began", "path", p.c.r.URL.Path, "error", err)
	p.send(progressLine{ErrorDoc: &jsonstream.Error{Message: err.Error()}, Error: err.Error()})
	return nil
}

func (p *progressStream) head() {
	p.c.w.Header().Set("Content-Type", "application/json")
	p.c.w.WriteHeader(http.StatusOK)
}

func (p *progressStream) send(l progressLine) {
	if p.err != nil {
		return // the client is gone; the request's context tells the operation
	}
	if !p.c.w.wrote {
		p.head()
	}
	line, err := json.Marshal(l)
	if err == nil {
		_, err = p.c.w.Write(append(line, "\r\n"...))
	}
	if p.err = err; err == nil {
		p.c.w.Flush()
	}
}

// barWidth is the number of steps in a progress bar.
const barWidth = 50

// bar draws progress as Docker does: "[====>    ]  1.2MB/3MB".
func bar(current, total int64) string {
	switch {
	case current <= 0 && total <= 0:
		return ""
	case total <= 0:
		return pad(units.HumanSize(float64(current)))
	}
	steps := min(int(float64(current)/float64(total)*barWidth), barWidth)
	box := "[" + strings.Repeat("=", steps) + ">" + strings.Repeat(" ", barWidth-steps) + "] "
	if current > total {
		return box + pad(units.HumanSize(float64(current)))
	}
	return box + pad(units.HumanSize(float64(current))) + "/" + units.HumanSize(float64(total))
}

func pad(s string) string { return strings.Repeat(" ", max(8-len(s), 0)) + s }
