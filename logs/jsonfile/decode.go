package jsonfile

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"

	"github.com/gantry/gantry/logs"
)

var errFormat = errors.New("not an entry of a log")

// head is how every record begins, and nothing inside of one: quotes in a text are escaped.
const head = `{"log":"`

// decoder turns lines of a log into records, with one buffer for all.
type decoder struct {
	buf []byte
	// minute is the beginning of the time read last, "2006-01-02T15:04:", and since when it is:
	// neighbours in a log are of one minute, and reading a whole time costs a third of a line.
	minute []byte
	since  time.Time
}

// entry is what one line holds, for the slow way.
type entry struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

// maxHeads bounds how many beginnings of a record are tried in one line.
const maxHeads = 16

// decode reads one line. What a crash left before a record in its line is passed over: the
// beginning of another one, or zeros.
func (d *decoder) decode(line []byte, rec *logs.Record) error {
	for range maxHeads {
		if d.fast(line, rec) || d.slow(line, rec) {
			return nil
		}
		i := bytes.Index(line[min(1, len(line)):], []byte(head))
		if i < 0 {
			break
		}
		line = line[1+i:]
	}
	return errFormat
}

// slow reads anything that is JSON.
func (d *decoder) slow(line []byte, rec *logs.Record) bool {
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		return false
	}
	d.buf = append(d.buf[:0], e.Log...)
	*rec = logs.Record{Line: d.buf, Stream: streamOf(e.Stream == "stderr"), Time: e.Time, Attrs: e.Attrs}
	return true
}

func streamOf(stderr bool) logs.Stream {
	if stderr {
		return logs.Stderr
	}
	return logs.Stdout
}

// fast reads {"log":"…","stream":"…","time":"…"}, the order in which Docker and we write,
// without reflection; false: try the slow way.
func (d *decoder) fast(line []byte, rec *logs.Record) bool {
	rest, ok := cut(line, head)
	if !ok {
		return false
	}
	var out []byte
	if out, rest, ok = unquote(d.buf[:0], rest); !ok {
		return false
	}
	d.buf = out
	stderr := false
	switch {
	case hasPrefix(rest, `,"stream":"stdout"`):
		rest = rest[len(`,"stream":"stdout"`):]
	case hasPrefix(rest, `,"stream":"stderr"`):
		rest = rest[len(`,"stream":"stderr"`):]
		stderr = true
	default:
		return false
	}
	if rest, ok = cut(rest, `,"time":"`); !ok || len(rest) < 3 || string(rest[len(rest)-2:]) != `"}` {
		return false
	}
	t, ok := d.time(rest[:len(rest)-2])
	if !ok {
		return false
	}
	*rec = logs.Record{Line: out, Stream: streamOf(stderr), Time: t}
	return true
}

// time reads a time as RFC 3339 has it.
func (d *decoder) time(b []byte) (time.Time, bool) {
	const start, seconds = len("2006-01-02T15:04:"), len("05")
	if len(b) > start+seconds && b[len(b)-1] == 'Z' && len(d.minute) == start && string(b[:start]) == string(d.minute) {
		if in, ok := inMinute(b[start : len(b)-1]); ok {
			return d.since.Add(in), true
		}
	}
	t, err := time.Parse(time.RFC3339Nano, string(b))
	if err != nil {
		return t, false
	}
	if len(b) > start+seconds && b[len(b)-1] == 'Z' && b[start-1] == ':' {
		d.minute = append(d.minute[:0], b[:start]...)
		d.since = t.Add(-time.Duration(t.Second())*time.Second - time.Duration(t.Nanosecond()))
	}
	return t, true
}

// inMinute reads "05" or "05.999999999".
func inMinute(b []byte) (time.Duration, bool) {
	num := 0
	unit := time.Second
	for i, c := range b {
		if i == 2 {
			if c != '.' || num >= 60 || len(b) == 3 || len(b) > len("05.999999999") {
				return 0, false
			}
			continue
		}
		if c < '0' || c > '9' {
			return 0, false
		}
		num = num*10 + int(c-'0')
		if i > 2 {
			unit /= 10
		}
	}
	return time.Duration(num) * unit, num < 60 || unit < time.Second
}

func hasPrefix(b []byte, s string) bool { return len(b) >= len(s) && string(b[:len(s)]) == s }

func cut(b []byte, s string) ([]byte, bool) {
	if !hasPrefix(b, s) {
		return nil, false
	}
	return b[len(s):], true
}

// unquote appends a JSON string's value to out, up to and without its closing quote, and
// returns what follows it.
func unquote(out, in []byte) (val, rest []byte, ok bool) {
	for {
		i := slices.IndexFunc(in, func(c byte) bool { return c == '"' || c == '\\' || c < ' ' })
		if i < 0 || in[i] < ' ' {
			return out, nil, false
		}
		out = append(out, in[:i]...)
		if in[i] == '"' {
			return out, in[i+1:], true
		}
		if i+1 >= len(in) {
			return out, nil, false
		}
		c := in[i+1]
		in = in[i+2:]
		if j := strings.IndexByte(`"\/bfnrt`, c); j >= 0 {
			out = append(out, "\"\\/\b\f\n\r\t"[j])
			continue
		}
		if c != 'u' {
			return out, nil, false
		}
		r, ok := hex4(in)
		if !ok {
			return out, nil, false
		}
		in = in[4:]
		if utf16.IsSurrogate(r) {
			low, ok := rune(0), false
			if hasPrefix(in, `\u`) {
				low, ok = hex4(in[2:])
			}
			if pair := utf16.DecodeRune(r, low); ok && pair != utf8.RuneError {
				r, in = pair, in[6:]
			} else {
				r = utf8.RuneError
			}
		}
		out = utf8.AppendRune(out, r)
	}
}

func hex4(b []byte) (rune, bool) {
	if len(b) < 4 {
		return 0, false
	}
	n, err := strconv.ParseUint(string(b[:4]), 16, 16)
	return rune(n), err == nil
}
