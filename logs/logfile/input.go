package logfile

import (
	"bytes"
	"io"
	"os"
)

// input cuts what is read from one file into entries. What it holds is bounded by the format.
type input struct {
	src   io.Reader
	buf   []byte
	start int   // of what was not handed out yet
	final bool  // src has ended for good: what is left is whole, or nothing
	read  int64 // bytes of src so far
}

// next returns the next entry, nil when it has to be asked again. io.EOF: src has no more for
// now; with final, nothing is left.
func (in *input) next(format Format) ([]byte, error) {
	gap, size := format.Split(in.buf[in.start:], in.final)
	in.start += gap
	if size > 0 {
		entry := in.buf[in.start : in.start+size]
		in.start += size
		return entry, nil
	}
	if in.final {
		return nil, io.EOF
	}
	in.buf = in.buf[:copy(in.buf, in.buf[in.start:])]
	in.start = 0
	have := len(in.buf)
	if cap(in.buf)-have < 32<<10 {
		grown := make([]byte, have, max(2*cap(in.buf), 128<<10))
		copy(grown, in.buf)
		in.buf = grown
	}
	n, err := in.src.Read(in.buf[have:cap(in.buf)])
	in.buf = in.buf[:have+n]
	in.read += int64(n)
	if n > 0 {
		return nil, nil
	}
	return nil, err
}

// from begins with another file, keeping the buffer.
func (in *input) from(src io.Reader) {
	*in = input{src: src, buf: in.buf[:0]}
}

// markSize is how much of what was read last is remembered to know the file again.
const markSize = 64

// mark is the end of what was read of a file: whoever truncates a file and writes it anew puts
// something else there, for every record has its time.
type mark struct {
	text []byte
	end  int64 // offset behind it
}

// set remembers the last bytes before end.
func (m *mark) set(f *os.File, end int64) {
	m.end = end
	m.text = append(m.text[:0], make([]byte, min(end, markSize))...)
	if _, err := f.ReadAt(m.text, end-int64(len(m.text))); err != nil {
		m.text = m.text[:0]
	}
}

// holds tells that the file was only appended to since.
func (m *mark) holds(f *os.File) bool {
	st, err := f.Stat()
	if err != nil || st.Size() < m.end {
		return err != nil
	}
	var now [markSize]byte
	b := now[:len(m.text)]
	_, err = f.ReadAt(b, m.end-int64(len(b)))
	return err != nil || bytes.Equal(b, m.text)
}
