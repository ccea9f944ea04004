package server

import (
	"encoding/binary"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/engine/container"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/moby/moby/api/types"
)

func (s containerAPI) containerAttach(c *call) error {
	o := container.AttachOptions{
		Stream: c.flag("stream"), Logs: c.flag("logs"),
		Stdin: c.flag("stdin"), Stdout: c.flag("stdout"), Stderr: c.flag("stderr"),
		DetachKeys: c.query.Get("detachKeys"),
	}
	// The connection outlives this request, and the daemon: no context of either.
	err := s.Containers.Attach(c.steady(), c.vars["id"], o, c.hijack())
	if err == nil || c.w.hijacked {
		return err
	}
	// A client that expects a stream is told in plain text, as by Docker.
	h := c.w.Header()
	h.Set("Content-Type", types.MediaTypeRawStream)
	h.Set("Connection", "close")
	c.w.WriteHeader(statusOf(err))
	_, _ = io.WriteString(c.w, err.Error()+"\r\n") // the client is gone: nobody to tell
	return nil
}

func (s containerAPI) containerLogs(c *call) error {
	o := container.LogsOptions{
		Stdout: c.flag("stdout"), Stderr: c.flag("stderr"), Follow: c.flag("follow"),
		Timestamps: c.flag("timestamps"), Details: c.flag("details"), Tail: -1,
	}
	if !o.Stdout && !o.Stderr {
		return errclass.Invalid("Bad parameters: you must choose at least one stream")
	}
	var err error
	if o.Since, err = parseTime(c.query.Get("since")); err != nil {
		return errclass.Invalid("invalid value for \"since\": %w", err)
	}
	if o.Until, err = parseTime(c.query.Get("until")); err != nil {
		return errclass.Invalid("invalid value for \"until\": %w", err)
	}
	// Like Docker's: what is not a number means everything.
	if n, err := strconv.Atoi(c.query.Get("tail")); err == nil {
		o.Tail = n
	}
	ctx, cancel := c.stream()
	defer cancel()
	w := &logWriter{c: c}
	err = s.Containers.Logs(ctx, c.vars["id"], o, w)
	if err == nil || !w.open || ctx.Err() != nil {
		if w.open {
			return nil
		}
		return err
	}
	if !w.mux {
		return err
	}
	// Frame type 3 is Docker's way to put the engine's own error into the stream.
	msg := "Error grabbing logs: " + err.Error() + "\n"
	frame := make([]byte, 8, 8+len(msg))
	frame[0] = 3
	binary.BigEndian.PutUint32(frame[4:], uint32(len(msg)))
	_, _ = c.w.Write(append(frame, msg...)) // the client is gone: nobody to tell
	return nil
}

// parseTime reads seconds since 1970 with an optional fraction, as clients send
// them; they resolve dates and durations themselves. "" and "0" are the zero time.
func parseTime(s string) (time.Time, error) {
	if s == "" || s == "0" {
		return time.Time{}, nil
	}
	whole, fraction, _ := strings.Cut(s, ".")
	sec, err := strconv.ParseInt(whole, 10, 64)
	if err != nil {
		return time.Time{}, err
	}
	if fraction == "" {
		return time.Unix(sec, 0), nil
	}
	nano, err := strconv.ParseUint((fraction + "000000000")[:9], 10, 32)
	if err != nil {
		return time.Time{}, err
	}
	if strings.HasPrefix(whole, "-") {
		return time.Unix(sec, -int64(nano)), nil
	}
	return time.Unix(sec, int64(nano)), nil
}

// size reads h and w of a resize request.
func (c *call) size() (height, width uint16, err error) {
	h, err := strconv.ParseUint(c.query.Get("h"), 10, 16)
	if err != nil {
		return 0, 0, errclass.Invalid("invalid resize height %q", c.query.Get("h"))
	}
	w, err := strconv.ParseUint(c.query.Get("w"), 10, 16)
	if err != nil {
		return 0, 0, errclass.Invalid("invalid resize width %q", c.query.Get("w"))
	}
	return uint16(h), uint16(w), nil
}

// line writes one JSON document of a stream.
func (c *call) line(v any) error {
	if !c.w.wrote {
		c.w.Header().Set("Content-Type", "application/json")
		c.w.WriteHeader(http.StatusOK)
	}
	line, err := jsonLine(v)
	if err != nil {
		return err
	}
	_, err = flushed{c.w}.Write(line)
	return err
}
