package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/container/logs"
	"github.com/gantry/gantry/internal/errclass"
)

// Logs sends what the container wrote. With Follow it ends when the run that was up
// has ended and everything is sent.
func (s *Service) Logs(ctx context.Context, ref string, o LogsOptions, w LogWriter) error {
	own, err := s.index.Get(ref)
	if err != nil {
		return err
	}
	if !o.Stdout && !o.Stderr {
		return errclass.Invalid("You must choose at least one stream")
	}
	r := own.Record()
	if t := r.HostConfig.LogConfig.Type; t == "none" {
		return errclass.Invalid("configured logging driver does not support reading")
	}
	tty := r.Config.Tty
	v := own.View()
	opts := logs.Options{
		Path: s.files.LogPath(own.ID), Since: o.Since, Until: o.Until, Tail: o.Tail,
		Follow:  o.Follow && v.Phase.Up(),
		Changed: own.Changed,
		Ended:   func() bool { now := own.View(); return now.Run != v.Run || !now.Phase.Up() },
	}
	raw := w.Open(!tty)
	if opts.Follow {
		// The client is to see at once that it is connected.
		if f, ok := raw.(interface{ Flush() }); ok {
			f.Flush()
		}
	}
	out := &logOut{o: o, mux: !tty, raw: raw, w: bufio.NewWriterSize(raw, 64<<10)}
	return logs.Read(ctx, opts, out.emit, out.flush)
}

// logOut formats entries as Docker sends them.
type logOut struct {
	o    LogsOptions
	mux  bool
	raw  io.Writer
	w    *bufio.Writer
	head []byte // what comes before the text of the entry at hand
}

func (l *logOut) emit(m *logs.Message) error {
	if m.Stderr && !l.o.Stderr || !m.Stderr && !l.o.Stdout {
		return nil
	}
	b := l.head[:0]
	if l.mux {
		b = append(b, 0, 0, 0, 0, 0, 0, 0, 0)
	}
	if l.o.Timestamps {
		b = m.Time.UTC().AppendFormat(b, "2006-01-02T15:04:05.000000000Z07:00")
		b = append(b, ' ')
	}
	if l.o.Details {
		b = append(append(b, details(m.Attrs)...), ' ')
	}
	if l.mux {
		b[0] = 1
		if m.Stderr {
			b[0] = 2
		}
		binary.BigEndian.PutUint32(b[4:], uint32(len(b)-8+len(m.Line)))
	}
	l.head = b
	if _, err := l.w.Write(b); err != nil {
		return err
	}
	_, err := l.w.Write(m.Line)
	return err
}

func (l *logOut) flush() error {
	if err := l.w.Flush(); err != nil {
		return err
	}
	if f, ok := l.raw.(interface{ Flush() }); ok {
		f.Flush()
	}
	return nil
}

// details are an entry's attributes as --details shows them: k=v,k=v, sorted, escaped.
func details(attrs map[string]string) string {
	var list []string
	for k, v := range attrs {
		list = append(list, url.QueryEscape(k)+"="+url.QueryEscape(v))
	}
	slices.Sort(list)
	return strings.Join(list, ",")
}
