package container

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net/url"
	"slices"
	"strings"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/logs"
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
	drv, err := s.deps.Logs.At(r.HostConfig.LogConfig.Type, s.files.Log(own.ID))
	if err != nil {
		return err
	}
	v := own.View()
	q := logs.Query{Since: o.Since, Until: o.Until, Tail: o.Tail, Follow: o.Follow && v.Phase.Up()}
	cursor, err := drv.OpenCursor(s.files.Log(own.ID), q)
	if err != nil {
		return err
	}
	defer cursor.Close()
	tty := r.Config.Tty
	raw := w.Open(!tty)
	var run logs.Run
	if q.Follow {
		run = followed{own, v.Run}
		// The client is to see at once that it is connected.
		if f, ok := raw.(interface{ Flush() }); ok {
			f.Flush()
		}
	}
	out := &logOut{o: o, mux: !tty, raw: raw, w: bufio.NewWriterSize(raw, 64<<10)}
	return logs.Copy(ctx, cursor, run, out.emit, out.flush)
}

// followed is the run of a container whose output is followed.
type followed struct {
	*store.Container
	run uint64
}

// Ended implements logs.Run; Changed is the container's.
func (f followed) Ended() bool {
	v := f.View()
	return v.Run != f.run || !v.Phase.Up()
}

// logOut formats entries as Docker sends them.
type logOut struct {
	o    LogsOptions
	mux  bool
	raw  io.Writer
	w    *bufio.Writer
	head []byte // what comes before the text of the entry at hand
}

func (l *logOut) emit(m *logs.Record) error {
	stderr := m.Stream == logs.Stderr
	if stderr && !l.o.Stderr || !stderr && !l.o.Stdout {
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
		if stderr {
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
