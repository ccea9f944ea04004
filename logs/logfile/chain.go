package logfile

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"slices"
	"strconv"
)

const (
	// maxFiles bounds how many rotated files are looked for.
	maxFiles = 1000
	// tries bounds how often a chain is looked at again because it was rotated meanwhile.
	tries = 20
)

// part is one file of a log. The caller closes it.
type part struct {
	f    *os.File
	gz   bool
	name string
	drop int // entries of a compressed file to pass over
}

// open opens all files of a log, oldest first, the current one last. It tries again
// when a rotation came in between, so that nothing is missing or twice.
func open(path string) ([]part, error) {
	for try := 0; ; try++ {
		parts, err := openOnce(path)
		if err != nil || len(parts) == 0 || try == tries || settled(parts) {
			return parts, err
		}
		closeAll(parts)
	}
}

func openOnce(path string) ([]part, error) {
	var parts []part
	// While files are renamed one number is missing, the current file's too; two tell the end.
	for i, missing := 0, 0; i < maxFiles && missing < 2; i++ {
		p, err := openNth(path, i)
		if err != nil {
			closeAll(parts)
			return nil, err
		}
		if p.f == nil {
			missing++
			continue
		}
		missing = 0
		parts = append(parts, p)
	}
	slices.Reverse(parts)
	return parts, nil
}

// openNth opens the i-th rotated file, compressed or not, 0 being the current one; none when
// it is not there.
func openNth(path string, i int) (part, error) {
	p := part{name: path}
	if i > 0 {
		p.name += "." + strconv.Itoa(i)
	}
	var err error
	p.f, err = os.Open(p.name)
	if errors.Is(err, fs.ErrNotExist) && i > 0 {
		p.gz, p.name = true, p.name+".gz"
		p.f, err = os.Open(p.name)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return part{}, nil
	}
	return p, err
}

// settled tells that every file is where it was opened, or was compressed meanwhile: none is
// missing or twice.
func settled(parts []part) bool {
	for _, p := range parts {
		if !same(p.f, p.name) && (p.gz || !packed(p.f, p.name+".gz")) {
			return false
		}
	}
	return true
}

func closeAll(parts []part) {
	for _, p := range parts {
		p.f.Close()
	}
}

// same reports whether path still names the opened file.
func same(f *os.File, path string) bool {
	a, err1 := f.Stat()
	b, err2 := os.Stat(path)
	return err1 == nil && err2 == nil && os.SameFile(a, b)
}

// successor opens the file that follows p in the log at path. None while p still is the
// current one, or files are just being renamed.
func successor(p part, path string) (part, error) {
	for range tries {
		i := find(p, path)
		if i == 0 {
			return part{}, nil
		}
		n := max(i-1, 0) // gone: the current one is the best guess
		next, err := openNth(path, n)
		if err != nil || next.f == nil {
			return part{}, err
		}
		if find(p, path) == i {
			return next, nil
		}
		next.f.Close() // rotated in between
	}
	return part{}, nil
}

// find tells which number in the chain p has, 0 being the current file; -1: none any more.
func find(p part, path string) int {
	if !p.gz && same(p.f, path) {
		return 0
	}
	for i, missing := 1, 0; i < maxFiles && missing < 2; i++ {
		name := path + "." + strconv.Itoa(i)
		_, err1 := os.Stat(name)
		_, err2 := os.Stat(name + ".gz")
		switch {
		case err1 == nil && !p.gz && same(p.f, name), err2 == nil && p.gz && same(p.f, name+".gz"),
			err2 == nil && !p.gz && packed(p.f, name+".gz"):
			return i
		case err1 != nil && err2 != nil:
			missing++
		default:
			missing = 0
		}
	}
	return -1
}

// packed tells that the file at path is f, compressed: by length and checksum, which a gzip
// file has at its end.
func packed(f *os.File, path string) bool {
	z, err := os.Open(path)
	if err != nil {
		return false
	}
	defer z.Close()
	zst, err1 := z.Stat()
	st, err2 := f.Stat()
	var end [8]byte
	if err1 != nil || err2 != nil || zst.Size() < int64(len(end)) {
		return false
	}
	if _, err := z.ReadAt(end[:], zst.Size()-int64(len(end))); err != nil || binary.LittleEndian.Uint32(end[4:]) != uint32(st.Size()) {
		return false
	}
	sum := crc32.NewIEEE()
	_, err = io.Copy(sum, io.NewSectionReader(f, 0, st.Size()))
	return err == nil && binary.LittleEndian.Uint32(end[:4]) == sum.Sum32()
}

// skip positions the files so that n entries are left to read, and returns those that
// have some. It reads from the end; the files before are not touched.
func skip(parts []part, format Format, n int) ([]part, error) {
	for i := len(parts) - 1; i >= 0; i-- {
		p := &parts[i]
		found, err := p.tail(format, n)
		if err != nil {
			return parts, err
		}
		if n -= found; n == 0 {
			closeAll(parts[:i])
			return parts[i:], nil
		}
	}
	return parts, nil
}

// tail positions p so that at most n entries are left, and tells how many are.
func (p *part) tail(format Format, n int) (int, error) {
	if p.gz {
		entries, err := countGz(p.f, format)
		p.drop = max(entries-n, 0)
		return entries - p.drop, err
	}
	end, err := p.f.Seek(0, io.SeekEnd)
	if err != nil || n == 0 {
		return 0, err
	}
	start, found, err := format.Tail(p.f, end, n)
	if err != nil {
		return 0, err
	}
	_, err = p.f.Seek(start, io.SeekStart)
	return found, err
}

// maxUnzipped bounds what one compressed file may unfold to, in bytes.
const maxUnzipped = 4 << 30

func unzip(f *os.File) (io.Reader, error) {
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, err
	}
	return io.LimitReader(z, maxUnzipped), nil
}

func countGz(f *os.File, format Format) (int, error) {
	z, err := unzip(f)
	if err != nil {
		return 0, torn(err) // it holds nothing to show
	}
	entries := 0
	in := input{src: tornReader{z}}
	for {
		entry, err := in.next(format)
		if errors.Is(err, io.EOF) {
			if in.final {
				format.Reset()
				return entries, nil
			}
			in.final = true
			continue
		}
		if err != nil {
			return entries, err
		}
		if entry != nil {
			entries++
		}
	}
}

// tornReader ends where a compressed file is damaged.
type tornReader struct{ r io.Reader }

// Read implements io.Reader.
func (t tornReader) Read(p []byte) (int, error) {
	n, err := t.r.Read(p)
	if err != nil && torn(err) == nil {
		err = io.EOF
	}
	return n, err
}

// torn is nil for the end of a compressed file, also of one that is damaged or cut off: a
// crash while it was written leaves such, and what came before is good. Other errors are the disk's.
func torn(err error) error {
	var disk *fs.PathError
	if errors.As(err, &disk) {
		return err
	}
	return nil
}
