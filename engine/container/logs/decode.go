// Package logs reads container logs as the shim writes them: Docker's json-file format,
// one JSON object a line, rotated to path.1, path.2, … (".gz" when compressed).
package logs

import (
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf16"
	"unicode/utf8"
)

// Message is one entry of a log. Its slices are valid until the next one is read.
type Message struct {
	Line   []byte // what was written, with its newline unless it was a part of a line
	Stderr bool
	Time   time.Time
	Attrs  map[string]string
}

var errFormat = errors.New("not an entry of a log")

// decoder turns lines of a log into messages, with one buffer for all.
type decoder struct {
	buf []byte
	msg Message
}

// entry is what one line holds, for the slow way.
type entry struct {
	Log    string            `json:"log"`
	Stream string            `json:"stream"`
	Attrs  map[string]string `json:"attrs"`
	Time   time.Time         `json:"time"`
}

// decode reads one line. Lines in the order that Docker and the shim write are read
// without reflection; anything else that is JSON the slow way.
func (d *decoder) decode(line []byte) (*Message, error) {
	if d.fast(line) {
		return &d.msg, nil
	}
	var e entry
	if err := json.Unmarshal(line, &e); err != nil {
		return nil, errFormat
	}
	d.buf = append(d.buf[:0], e.Log...)
	d.msg = Message{Line: d.buf, Stderr: e.Stream == "stderr", Time: e.Time, Attrs: e.Attrs}
	return &d.msg, nil
}

// fast reads {"log":"…","stream":"…"[,"attrs":{…}],"time":"…"}; false: try the slow way.
func (d *decoder) fast(line []byte) bool {
	rest, ok := cut(line, `{"log":"`)
	if !ok {
		return false
	}
	var out []byte
	if out, rest, ok = unquote(d.buf[:0], rest); !ok {
		return false
	}
	d.buf = out
	m := Message{Line: out}
	switch {
	case hasPrefix(rest, `,"stream":"stdout"`):
		rest = rest[len(`,"stream":"stdout"`):]
	case hasPrefix(rest, `,"stream":"stderr"`):
		rest = rest[len(`,"stream":"stderr"`):]
		m.Stderr = true
	default:
		return false
	}
	if rest, ok = cut(rest, `,"time":"`); !ok || len(rest) < 3 || string(rest[len(rest)-2:]) != `"}` {
		return false
	}
	t, err := time.Parse(time.RFC3339Nano, string(rest[:len(rest)-2]))
	if err != nil {
		return false
	}
	m.Time = t
	d.msg = m
	return true
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
