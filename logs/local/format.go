package local

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"

	"github.com/gantry/gantry/logs"
	"github.com/gantry/gantry/logs/logfile"
)

const (
	// lenSize is what a record's length takes, before it and behind it, big-endian.
	lenSize = 4
	// maxMessage bounds one record that is read, in bytes: a whole line and its attributes.
	maxMessage = logs.MaxLine + 1<<20
	// dockerMessage is the longest record that Docker's own reader takes, in bytes. Lines are
	// cut so that ours stay below, with room for half of the rest to be attributes.
	dockerMessage = 1_000_000
	maxLine       = dockerMessage - 16<<10
)

// opening is how every message begins: field 1, six bytes, a stream's name. It finds the next
// record where one is damaged.
const opening = "\x0a\x06std"

// format is one message between two copies of its length.
type format struct {
	attrs []byte // encoded
	dec   decoder
}

// MaxLine implements logfile.Format.
func (*format) MaxLine() int { return maxLine }

// Append implements logfile.Format.
func (f *format) Append(dst []byte, e *logfile.Entry) []byte {
	at := len(dst)
	dst = appendEntry(append(dst, 0, 0, 0, 0), e, f.attrs)
	size := uint32(len(dst) - at - lenSize)
	binary.BigEndian.PutUint32(dst[at:], size)
	return binary.BigEndian.AppendUint32(dst, size)
}

// state of what stands at the beginning of some bytes.
type state int

const (
	whole state = iota
	short       // it may become a record
	bad
)

// look tells what stands at the beginning of b, and how long it is when it is whole.
func look(b []byte) (state, int) {
	if n := min(len(b)-lenSize, len(opening)); n > 0 && string(b[lenSize:lenSize+n]) != opening[:n] {
		return bad, 0
	}
	if len(b) < lenSize {
		return short, 0
	}
	size := binary.BigEndian.Uint32(b)
	if int(size) < len(opening) || size > maxMessage {
		return bad, 0
	}
	end := lenSize + int(size)
	if len(b) < end+lenSize {
		return short, 0
	}
	if binary.BigEndian.Uint32(b[end:]) != size {
		return bad, 0
	}
	return whole, end + lenSize
}

// Split implements logfile.Format. Where a record is damaged it goes on with the next one that
// is whole.
func (*format) Split(buf []byte, final bool) (gap, size int) {
	for {
		st, n := look(buf[gap:])
		if st == whole {
			return gap, n
		}
		if st == short && !final {
			return gap, 0
		}
		// The next opening whose length may stand before it.
		from := gap + lenSize + 1
		if from >= len(buf) {
			if final {
				return len(buf), 0
			}
			return gap + 1, 0
		}
		i := bytes.Index(buf[from:], []byte(opening))
		if i < 0 {
			if final {
				return len(buf), 0
			}
			// An opening may be cut at the end.
			return max(gap+1, len(buf)-lenSize-len(opening)+1), 0
		}
		gap = from + i - lenSize
	}
}

// Reset implements logfile.Format.
func (*format) Reset() {}

// Decode implements logfile.Format.
func (f *format) Decode(entry []byte, rec *logs.Record) error {
	if st, n := look(entry); st != whole || n != len(entry) {
		return errFormat
	}
	return f.dec.decode(entry[lenSize:len(entry)-lenSize], rec)
}

// Tail implements logfile.Format: it goes from length to length, from the end; through a file
// that is damaged, from its beginning.
func (f *format) Tail(r io.ReaderAt, size int64, n int) (start int64, found int, err error) {
	pos := size
	for pos > 0 && found < n {
		before, ok, err := previous(r, pos)
		if err != nil {
			return 0, 0, err
		}
		if !ok {
			return f.forward(r, size, n)
		}
		pos = before
		found++
	}
	return pos, found, nil
}

// previous finds where the record begins that ends at pos; not ok: there is none.
func previous(r io.ReaderAt, pos int64) (start int64, ok bool, err error) {
	var b [lenSize]byte
	length := func(at int64) (int64, error) {
		if at < 0 {
			return -1, nil
		}
		if _, err := r.ReadAt(b[:], at); err != nil && !errors.Is(err, io.EOF) {
			return 0, err
		}
		return int64(binary.BigEndian.Uint32(b[:])), nil
	}
	size, err := length(pos - lenSize)
	if err != nil || size < int64(len(opening)) || size > maxMessage {
		return 0, false, err
	}
	start = pos - 2*lenSize - size
	again, err := length(start)
	return start, err == nil && again == size, err
}

// forward is Tail through a damaged file: it counts, and then stops before the last n.
func (f *format) forward(r io.ReaderAt, size int64, n int) (start int64, found int, err error) {
	all := 0
	if _, err := f.scan(r, size, func(int64) bool { all++; return true }); err != nil {
		return 0, 0, err
	}
	drop := max(all-n, 0)
	start, seen := size, 0
	_, err = f.scan(r, size, func(at int64) bool {
		if seen == drop {
			start = at
			return false
		}
		seen++
		return true
	})
	return start, all - drop, err
}

// scan calls each with where every record begins, until that returns false, and tells where the
// last one ended.
func (f *format) scan(r io.ReaderAt, size int64, each func(at int64) bool) (end int64, err error) {
	src := io.NewSectionReader(r, 0, size)
	var buf []byte
	pos, final := int64(0), false // pos is that of buf's beginning
	for {
		gap, n := f.Split(buf, final)
		if n > 0 {
			if !each(pos + int64(gap)) {
				return end, nil
			}
			end = pos + int64(gap+n)
		} else if final {
			return end, nil
		}
		pos += int64(gap + n)
		buf = buf[gap+n:]
		if n > 0 {
			continue
		}
		grown := make([]byte, len(buf)+256<<10)
		m, err := io.ReadFull(src, grown[copy(grown, buf):])
		buf = grown[:len(buf)+m]
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			final = true
		} else if err != nil {
			return end, err
		}
	}
}

// Mend implements logfile.Format: what stands behind the last whole record goes.
func (f *format) Mend(r io.ReaderAt, size int64) (keep int64, fix []byte, err error) {
	if _, ok, err := previous(r, size); err != nil || ok {
		return size, nil, err
	}
	keep, err = f.scan(r, size, func(int64) bool { return true })
	return keep, nil, err
}
