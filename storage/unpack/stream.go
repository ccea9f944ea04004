package unpack

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

const (
	// maxWindow bounds what a zstd frame makes the decoder allocate.
	maxWindow = 128 << 20
	// ahead is how many buffers a decompressor may be ahead of the extractor.
	ahead       = 8
	aheadBuffer = 128 << 10
)

// Decompress returns the plain stream of a layer that is packed with gzip, zstd or not
// at all, whatever it is called. It is decompressed beside the reader, in a goroutine
// that ends when the stream ends or is closed; a read of r under way has to end first.
func Decompress(r io.Reader) (io.ReadCloser, error) {
	b := bufio.NewReaderSize(r, 64<<10)
	magic, err := b.Peek(4)
	if err != nil && err != io.EOF {
		return nil, err
	}
	switch {
	case bytes.HasPrefix(magic, []byte{0x1f, 0x8b}):
		z, err := gzip.NewReader(b)
		if err != nil {
			return nil, streamError(err)
		}
		return readAhead(z, func() {}), nil
	case bytes.Equal(magic, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(magic) == 4 && magic[0]&0xf0 == 0x50 && bytes.Equal(magic[1:], []byte{0x2a, 0x4d, 0x18}):
		z, err := zstd.NewReader(b, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return nil, streamError(err)
		}
		return readAhead(z, z.Close), nil
	case bytes.HasPrefix(magic, []byte("BZh")), bytes.HasPrefix(magic, []byte{0xfd, '7', 'z', 'X'}):
		return nil, errclass.NotImplemented("layers packed with bzip2 or xz are not supported")
	}
	return io.NopCloser(b), nil
}

// streamError classes the complaints of a decompressor.
func streamError(err error) error {
	var corrupt flate.CorruptInputError
	damaged := errors.As(err, &corrupt) || slices.ContainsFunc([]error{
		gzip.ErrChecksum, gzip.ErrHeader, zstd.ErrMagicMismatch, zstd.ErrCRCMismatch, zstd.ErrWindowSizeExceeded,
		zstd.ErrReservedBlockType, zstd.ErrCompressedSizeTooBig, zstd.ErrBlockTooSmall, zstd.ErrUnexpectedBlockSize,
		zstd.ErrUnknownDictionary, zstd.ErrFrameSizeExceeded, zstd.ErrFrameSizeMismatch, zstd.ErrDecoderSizeExceeded,
	}, func(e error) bool { return errors.Is(err, e) })
	if damaged {
		return errclass.Invalid("layer is damaged: %v", err)
	}
	return fmt.Errorf("decompressing layer: %w", err)
}

// aheadReader reads from buffers that a goroutine fills.
type aheadReader struct {
	full  chan chunk
	free  chan []byte
	quit  chan struct{}
	done  chan struct{}
	close sync.Once
	cur   []byte
	rest  []byte
	err   error
}

type chunk struct {
	buf []byte
	n   int
	err error
}

func readAhead(r io.Reader, release func()) *aheadReader {
	a := &aheadReader{
		full: make(chan chunk, ahead), free: make(chan []byte, ahead),
		quit: make(chan struct{}), done: make(chan struct{}),
	}
	for range ahead {
		a.free <- make([]byte, aheadBuffer)
	}
	go func() {
		defer close(a.done)
		defer release()
		for {
			var buf []byte
			select {
			case buf = <-a.free:
			case <-a.quit:
				return
			}
			n, err := io.ReadFull(r, buf)
			if errors.Is(err, io.ErrUnexpectedEOF) && n > 0 {
				// The end, or a stream cut off: the next read tells.
				err = nil
				if m, e := r.Read(buf[n:]); e != nil || m > 0 {
					n, err = n+m, e
				}
			}
			select {
			case a.full <- chunk{buf, n, err}:
			case <-a.quit:
				return
			}
			if err != nil {
				return
			}
		}
	}()
	return a
}

// Read implements io.Reader.
func (a *aheadReader) Read(p []byte) (int, error) {
	for len(a.rest) == 0 {
		if a.err != nil {
			return 0, a.err
		}
		if a.cur != nil {
			a.free <- a.cur
			a.cur = nil
		}
		c := <-a.full
		if c.err != nil && !errors.Is(c.err, io.EOF) {
			c.err = streamError(c.err)
		}
		a.cur, a.rest, a.err = c.buf, c.buf[:c.n], c.err
	}
	n := copy(p, a.rest)
	a.rest = a.rest[n:]
	return n, nil
}

// Close stops the decompressor. It waits for a read of the underlying stream under way.
func (a *aheadReader) Close() error {
	a.close.Do(func() { close(a.quit) })
	<-a.done
	return nil
}
