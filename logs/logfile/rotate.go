package logfile

import (
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
)

// rotate moves Path to Path.1, Path.1 to Path.2 and so on, and starts a new Path.
// With one file only, a new Path replaces the old one, as in Docker: a reader of the old one
// reads it to its end. When a step fails, that is logged, and the writer goes on with the present file.
func (w *Writer) rotate() {
	w.full = false
	if w.packing != nil {
		<-w.packing // the rename chain must not pull a file from under it
		w.packing = nil
	}
	if w.cfg.MaxFiles == 1 {
		w.replace()
		return
	}
	if err := shift(w.cfg.Path, w.cfg.MaxFiles); err != nil {
		w.fail(fmt.Errorf("rotate: %w", err))
		return
	}
	if w.file != nil {
		w.file.Close()
		w.file = nil
	}
	if err := w.open(); err != nil {
		w.fail(err)
	}
	if w.cfg.Compress {
		done := make(chan struct{})
		w.packing = done
		go func() {
			defer close(done)
			if err := pack(w.cfg.Path + ".1"); err != nil {
				w.logf("log %s: compress: %v", w.cfg.Path, err)
			}
		}()
	}
}

// replace puts an empty file in the place of the present one.
func (w *Writer) replace() {
	tmp := w.cfg.Path + ".new"
	f, err := os.OpenFile(tmp, os.O_RDWR|os.O_CREATE|os.O_TRUNC|os.O_APPEND, 0o640)
	if err != nil {
		w.fail(fmt.Errorf("rotate: %w", err))
		return
	}
	if err := os.Rename(tmp, w.cfg.Path); err != nil {
		f.Close()
		w.fail(fmt.Errorf("rotate: %w", err))
		return
	}
	if w.file != nil {
		w.file.Close()
	}
	w.file, w.size = f, 0
}

// shift renames the chain, dropping what is older than keep files, current included.
func shift(path string, keep int) error {
	name := func(i int, suffix string) string { return path + "." + strconv.Itoa(i) + suffix }
	// Compressed or not: a file may be either, as settings change and crashes happen.
	for _, suffix := range []string{"", ".gz"} {
		if err := os.Remove(name(keep-1, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		for i := keep - 2; i >= 1; i-- {
			if err := os.Rename(name(i, suffix), name(i+1, suffix)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := os.Rename(path, name(1, "")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// pack replaces path by path.gz. A crash in between leaves path whole.
func pack(path string) (err error) {
	in, err := os.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	tmp := path + ".gz.tmp"
	out, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	defer func() {
		out.Close()
		if err != nil {
			os.Remove(tmp)
		}
	}()
	z := gzip.NewWriter(out)
	if _, err = io.Copy(z, in); err != nil {
		return err
	}
	if err = z.Close(); err != nil {
		return err
	}
	if err = os.Rename(tmp, path+".gz"); err != nil {
		return err
	}
	return os.Remove(path)
}
