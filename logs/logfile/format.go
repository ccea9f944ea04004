// Package logfile keeps a log in a chain of rotated files: path is the current one, path.1 the
// one before it, and so on, with ".gz" behind those that are compressed. It writes and reads
// records of any Format; drivers (jsonfile, local) bring theirs.
//
// A crash at any instant leaves files that both sides understand: renames only, compression
// beside and then renamed, and a writer that ends a torn record before it goes on.
package logfile

import (
	"io"
	"time"

	"github.com/gantry/gantry/logs"
)

// Entry is one line on its way to the file.
type Entry struct {
	// Line ends with its newline, unless it is a part of a line.
	Line   []byte
	Stream logs.Stream
	Time   time.Time
	// Of a line that came in parts: all parts share ID, Ordinal counts them from 1, and Last
	// tells of the one that has the newline. ID is empty for a line in one piece.
	ID      string
	Ordinal int
	Last    bool
}

// Format turns entries into bytes and back. One value serves one Writer or one cursor, which
// calls its methods one at a time; it may keep scratch memory, but no file. It is not closed.
type Format interface {
	// MaxLine is the longest line in bytes that is one entry.
	MaxLine() int
	// Append encodes an entry behind dst.
	Append(dst []byte, e *Entry) []byte
	// Split finds the first entry in buf, which begins where an entry may: gap bytes to be
	// passed over, then size bytes. Size 0: more is needed; the caller drops the gap and
	// comes back with what is left and more behind it. final: nothing will follow. Split
	// bounds what it asks for.
	Split(buf []byte, final bool) (gap, size int)
	// Reset forgets an unfinished Split: another file begins.
	Reset()
	// Decode reads what Split found. What it puts into rec is valid as long as entry and until
	// the next Decode. An error, of no class, means that it is no record.
	Decode(entry []byte, rec *logs.Record) error
	// Tail finds where the last n > 0 entries of a file begin, and how many there are, at most n.
	Tail(f io.ReaderAt, size int64, n int) (start int64, found int, err error)
	// Mend looks at a file that is to be appended to: it keeps so many bytes, and fix goes
	// behind them.
	Mend(f io.ReaderAt, size int64) (keep int64, fix []byte, err error)
}
