package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"time"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

// Fields of the protocol buffer, in the order in which they are written:
//
//	message LogEntry {
//	  string source = 1; int64 time_nano = 2; bytes line = 3; bool partial = 4;
//	  PartialLogEntryMetadata partial_log_metadata = 5; repeated LogAttr attrs = 6;
//	}
//	message PartialLogEntryMetadata { bool last = 1; string id = 2; int32 ordinal = 3; }
//	message LogAttr { string key = 1; string value = 2; }
//
// The tags below are number<<3 | wire type.
const (
	varint    = 0
	bytesType = 2

	tagSource  = 1<<3 | bytesType
	tagTime    = 2<<3 | varint
	tagLine    = 3<<3 | bytesType
	tagPartial = 4<<3 | varint
	tagMeta    = 5<<3 | bytesType
	tagAttr    = 6<<3 | bytesType

	tagMetaLast    = 1<<3 | varint
	tagMetaID      = 2<<3 | bytesType
	tagMetaOrdinal = 3<<3 | varint

	tagAttrKey   = 1<<3 | bytesType
	tagAttrValue = 2<<3 | bytesType
)

var errFormat = errors.New("not an entry of a log")

// appendEntry appends the message of e; attrs are encoded already.
func appendEntry(dst []byte, e *logfile.Entry, attrs []byte) []byte {
	dst = appendBytes(dst, tagSource, e.Stream.String())
	dst = binary.AppendUvarint(append(dst, tagTime), uint64(e.Time.UnixNano()))
	if line := bytes.TrimSuffix(e.Line, []byte{'\n'}); len(line) > 0 {
		dst = appendBytes(dst, tagLine, line)
	}
	if e.ID != "" {
		dst = append(dst, tagPartial, 1)
		dst = append(dst, tagMeta, 0)
		from := len(dst)
		if e.Last {
			dst = append(dst, tagMetaLast, 1)
		}
		dst = appendBytes(dst, tagMetaID, e.ID)
		dst = binary.AppendUvarint(append(dst, tagMetaOrdinal), uint64(e.Ordinal))
		dst[from-1] = byte(len(dst) - from) // an ID of 64 bytes and two numbers: below 128
	}
	return append(dst, attrs...)
}

func appendAttr(dst []byte, k, v string) []byte {
	one := appendBytes(appendBytes(nil, tagAttrKey, k), tagAttrValue, v)
	return appendBytes(dst, tagAttr, one)
}

func appendBytes[B ~[]byte | ~string](dst []byte, tag byte, b B) []byte {
	dst = binary.AppendUvarint(append(dst, tag), uint64(len(b)))
	return append(dst, b...)
}

// field takes one field off b: a number for wire type 0, bytes for 2; others are passed over
// (tag 0). ok is false where b is no message.
func field(b []byte) (tag uint64, num uint64, val, rest []byte, ok bool) {
	tag, n := binary.Uvarint(b)
	if n <= 0 {
		return 0, 0, nil, nil, false
	}
	b = b[n:]
	switch tag & 7 {
	case 0:
		if num, n = binary.Uvarint(b); n <= 0 {
			return 0, 0, nil, nil, false
		}
		return tag, num, nil, b[n:], true
	case 1, 5:
		if n = 8; tag&7 == 5 {
			n = 4
		}
		if len(b) < n {
			return 0, 0, nil, nil, false
		}
		return 0, 0, nil, b[n:], true
	case 2:
		size, n := binary.Uvarint(b)
		if n <= 0 || size > uint64(len(b)-n) {
			return 0, 0, nil, nil, false
		}
		end := n + int(size)
		return tag, 0, b[n:end], b[end:], true
	}
	return 0, 0, nil, nil, false
}

// decoder turns messages into records, with one buffer for all.
type decoder struct{ buf []byte }

func (d *decoder) decode(msg []byte, rec *logs.Record) (err error) {
	*rec = logs.Record{}
	var line, meta, source []byte
	partial, last := false, false
	attrs := 0
	for rest := msg; len(rest) > 0; {
		tag, num, val, r, ok := field(rest)
		if !ok {
			return errFormat
		}
		switch tag {
		case tagSource:
			source = val
		case tagTime:
			rec.Time = time.Unix(0, int64(num)).UTC()
		case tagLine:
			line = val
		case tagPartial:
			partial = num != 0
		case tagMeta:
			meta = val
		case tagAttr:
			attrs++
		}
		rest = r
	}
	switch string(source) {
	case "stdout":
	case "stderr":
		rec.Stream = logs.Stderr
	default:
		return errFormat
	}
	for len(meta) > 0 {
		tag, num, _, r, ok := field(meta)
		if !ok {
			return errFormat
		}
		if tag == tagMetaLast {
			last = num != 0
		}
		meta = r
	}
	d.buf = append(d.buf[:0], line...)
	if !partial || last {
		d.buf = append(d.buf, '\n')
	}
	rec.Line = d.buf
	if attrs > 0 {
		rec.Attrs, err = attributesOf(msg)
	}
	return err
}

// attributesOf reads the attributes of a message, whose fields are known to be right.
func attributesOf(msg []byte) (map[string]string, error) {
	all := map[string]string{}
	for rest := msg; len(rest) > 0; {
		tag, _, val, r, _ := field(rest)
		rest = r
		if tag != tagAttr {
			continue
		}
		var k, v string
		for len(val) > 0 {
			tag, _, s, r, ok := field(val)
			if !ok {
				return nil, errFormat
			}
			switch tag {
			case tagAttrKey:
				k = string(s)
			case tagAttrValue:
				v = string(s)
			}
			val = r
		}
		all[k] = v
	}
	return all, nil
}
