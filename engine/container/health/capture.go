package health

import (
	"context"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Capture takes in the beginning of a process's output; the rest is read and dropped, so
// that the process does not stall.
type Capture struct {
	f    *os.File
	done chan struct{}

	mu   sync.Mutex
	text []byte
	more bool
}

// NewCapture makes one; conn is the end to attach, which the caller closes. Read must run beside,
// and Close be called.
func NewCapture() (c *Capture, conn *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	return &Capture{f: os.NewFile(uintptr(fds[0]), "output"), done: make(chan struct{})}, os.NewFile(uintptr(fds[1]), "client"), nil
}

// Read takes the output in until its end, or Close.
func (c *Capture) Read() {
	defer close(c.done)
	buf := make([]byte, MaxOutput)
	for {
		n, err := c.f.Read(buf)
		c.mu.Lock()
		keep := min(n, MaxOutput-len(c.text))
		c.text = append(c.text, buf[:keep]...)
		c.more = c.more || keep < n
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Close ends the reading.
func (c *Capture) Close() { c.f.Close() }

// outputPatience is how long the last output of a process that has ended may take to come.
const outputPatience = 5 * time.Second

// SoFar is what has come until now.
func (c *Capture) SoFar() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.more {
		return string(c.text) + "..."
	}
	return string(c.text)
}

// Whole waits for the end of the output, for a while: a child that went to the background may hold it open.
func (c *Capture) Whole(ctx context.Context) string {
	patience := time.NewTimer(outputPatience)
	defer patience.Stop()
	select {
	case <-c.done:
	case <-patience.C:
	case <-ctx.Done():
	}
	return c.SoFar()
}
