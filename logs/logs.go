// Package logs is the seam of container logs. A Driver says what options it takes, opens a
// Writer for the process that holds containers, and a Cursor for those who read: both sides
// of a format live in one package (jsonfile, local) and share its limits.
//
// The file is the queue: every driver that keeps output writes a bounded, rotated file in the
// container's directory, so that `docker logs` works with all of them and no remote end can
// block a container. logtest.Run holds an implementation to what is said here.
package logs

import (
	"context"
	"encoding/json"
	"time"
)

// MaxLine is the longest line in bytes that stays whole, for writers and readers alike.
// Longer ones become several records, of which only the last ends with a newline.
const MaxLine = 1 << 20

// Stream is where output came from.
type Stream int

// The streams. A terminal's output is Stdout.
const (
	Stdout Stream = iota
	Stderr
)

// String is the stream's name in every format: "stdout" or "stderr".
func (s Stream) String() string {
	if s == Stderr {
		return "stderr"
	}
	return "stdout"
}

// Record is one entry of a log.
type Record struct {
	// Line is what was written, with its newline unless it was a part of a line.
	Line   []byte
	Stream Stream
	Time   time.Time
	// Attrs are what --log-opt labels, env and tag asked for.
	Attrs map[string]string
}

// Place is where a container's log lies.
type Place struct {
	Dir string // the container's own directory, absolute
	ID  string // the container's
}

// Config says how one container's log is written. It travels to the process that holds the
// container; that process may be older or newer than the daemon, so that fields are only added.
type Config struct {
	// Driver is who writes; "" is json-file, as from a daemon that knew no other.
	Driver string `json:"driver,omitempty"`
	// Path is the current file; rotated ones are Path.1, Path.2, … (".gz" when Compress).
	Path     string `json:"path"`
	MaxSize  int64  `json:"max_size"`  // bytes; <= 0: never rotated
	MaxFiles int    `json:"max_files"` // including the current one; < 1 is 1
	Compress bool   `json:"compress,omitempty"`
	// Attrs are put into every record: a JSON object of strings, Docker's form.
	Attrs json.RawMessage `json:"attrs,omitempty"`
	// Buffer is for mode=non-blocking: how many bytes may wait for the file before output
	// is dropped. 0: the container waits for the file.
	Buffer int64 `json:"buffer,omitempty"`
	// Plain is the same log by the driver json-file, for a process that is too old to know
	// Driver; nil where there is none. It does not travel.
	Plain *Config `json:"-"`
}

// Description is what differs between drivers. Nobody compares names.
type Description struct {
	Name string
	// Options are the names that --log-opt takes beside mode and max-buffer-size.
	Options []string
	// Discards tells that nothing is kept: Configure returns nil, and OpenWriter and
	// OpenCursor are not called.
	Discards bool
	// PublicPath tells that the file is for others to read too: it is shown as LogPath.
	PublicPath bool
}

// Driver is one kind of log. It holds no state of its own: all methods are safe for
// concurrent use and may be called again with the same result. Errors about options are of
// class InvalidArgument, in Docker's words; others are the file system's.
type Driver interface {
	// Describe tells what the driver is. It never changes.
	Describe() Description
	// Path is the current file of the log at a place; "" for a driver that discards. Pure.
	Path(p Place) string
	// Configure checks the driver's own options (opts holds no others) and says what is to be
	// written. Pure: nothing is made or opened. Nil for a driver that discards.
	Configure(p Place, opts map[string]string) (*Config, error)
	// OpenWriter opens or makes the log of c for appending; a record that a crash left
	// unfinished is ended first. One writer at a time may have a log open. The caller closes it.
	// logf is called when a file cannot be written, once until it works again; never nil.
	OpenWriter(c *Config, logf func(format string, a ...any)) (Writer, error)
	// OpenCursor opens the log at a place for reading, any number of times, also while it is
	// written. A log that is not there is empty. The caller closes the cursor.
	OpenCursor(p Place, q Query) (Cursor, error)
}

// Writer takes one container's output. It is safe for concurrent use. Errors of the file never
// stop a container: they are logged once, and the lines are lost. The caller closes it.
type Writer interface {
	// Write takes output as it comes, read at a time; p stays the caller's. Whole lines are in
	// the file when it returns; the rest waits for its newline or Flush.
	Write(s Stream, p []byte, at time.Time)
	// Flush writes what waits of an unfinished line of s, as of a time. Nothing waiting is
	// no error.
	Flush(s Stream, at time.Time)
	// Close flushes and ends writing, also a compression in the background. A second Close
	// does nothing, and a Write after it neither.
	Close() error
}

// Query says what a cursor reads.
type Query struct {
	Since, Until time.Time // both included; zero: without bound
	Tail         int       // the last so many records; negative: all
	// Follow makes the cursor go on with what is written later, through rotations.
	Follow bool
}

// Cursor reads a log from its oldest record to its newest. It is used by one goroutine, holds
// a bounded amount of memory, and is closed by who opened it. What is no record, as a crash
// leaves it, is passed over.
type Cursor interface {
	// Next returns the next record, valid until the next call. io.EOF: nothing more for now;
	// it may be called again, after Wait if the query follows. Other errors are the disk's
	// or ctx's, and the cursor is good for nothing but Close.
	Next(ctx context.Context) (*Record, error)
	// Wait returns when there may be more to read, or wake is closed. io.EOF: there never will
	// be, because the query's Until has passed. Without Follow it must not be called.
	Wait(ctx context.Context, wake <-chan struct{}) error
	// Close lets go of the files. It may be called again.
	Close() error
}
