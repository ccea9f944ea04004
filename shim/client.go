package shim

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Config says where the shim is and how to start one.
type Config struct {
	// Root is the shim's directory (made 0700); its socket is Root/shim.sock.
	Root string
	// Binary is gantry-runtime's path.
	Binary string
	// LogPath receives what the shim has to say; empty: Root/shim.log.
	LogPath string
	// Logf tells of the shim's death and its successor; nil: silent.
	Logf func(format string, a ...any)
}

// Names in Config.Root.
const (
	SocketName    = "shim.sock"
	LockName      = "shim.lock"  // held by the living shim
	spawnLockName = "spawn.lock" // held by who starts one
)

// Limits of waiting, all bounded so that a call never hangs for ever.
const (
	successorWait = 30 * time.Second // for a new shim after the old one died
	cancelWait    = 15 * time.Second // for the answer to a call whose context ended
	spawnWait     = 20 * time.Second
)

// Client is the daemon's connection to the shim. It keeps duplicates of every
// descriptor that the shim holds, so that containers outlive the shim: when the shim
// dies it starts another and hands everything over. All methods are safe for
// concurrent use. Calls that the death of the shim interrupts answer with class
// Unavailable; later ones wait for the successor, at most 30 seconds.
type Client struct {
	cfg    Config
	events *queue

	link   *link
	held   *processes
	stored *FDStore

	wg sync.WaitGroup
}

// Connect returns a client of the living shim of cfg.Root, or starts one. Only one
// shim ever runs per Root, and only one client is served: an older one is dropped.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.LogPath == "" {
		cfg.LogPath = filepath.Join(cfg.Root, "shim.log")
	}
	if cfg.Logf == nil {
		cfg.Logf = func(string, ...any) {}
	}
	if err := PrepareRoot(cfg.Root); err != nil {
		return nil, err
	}
	l := newLink()
	c := &Client{
		cfg: cfg, events: newQueue(), link: l,
		held: &processes{byKey: map[Key]*held{}}, stored: &FDStore{link: l, fds: map[string]int{}},
	}
	s, err := c.cfg.open(ctx, c.handle)
	if err != nil {
		c.events.close()
		return nil, err
	}
	if err := c.sync(ctx, s, false); err != nil {
		s.wire.Close()
		<-s.done
		s.closePidfd()
		c.dropAll()
		c.events.close()
		return nil, fmt.Errorf("list what the shim holds: %w", err)
	}
	c.link.publish(s)
	c.reapOrphans(false)
	c.wg.Add(1)
	go c.watch(s)
	return c, nil
}

// PrepareRoot makes the shim's directory, or checks that it is the caller's own
// and nobody else's to enter.
func PrepareRoot(root string) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return fmt.Errorf("shim directory: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Lstat(root, &st); err != nil {
		return fmt.Errorf("shim directory: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR || int(st.Uid) != os.Geteuid() {
		return errclass.Forbidden("shim directory %s is not a directory of uid %d", root, os.Geteuid())
	}
	if st.Mode&0o077 != 0 {
		if err := os.Chmod(root, 0o700); err != nil {
			return fmt.Errorf("shim directory: %w", err)
		}
	}
	return nil
}

// Pid is the shim's process id, 0 while there is none.
func (c *Client) Pid() int { return c.link.pid() }

// FDStore is what keeps descriptors in the shim for the daemon.
func (c *Client) FDStore() *FDStore { return c.stored }

// Events delivers what the shim pushes, from the moment the client connected, in
// order and without loss. After a shim was replaced the zero Event comes. The channel
// is closed when the client is closed or another daemon took over.
func (c *Client) Events() <-chan Event { return c.events.out }

// Close drops the connection and every kept descriptor. The shim and its
// containers go on.
func (c *Client) Close() error {
	c.link.shut(errclass.Unavailable("connection to the shim is closed"))
	c.wg.Wait()
	c.dropAll()
	c.events.close()
	return nil
}

// dropAll closes every kept descriptor.
func (c *Client) dropAll() {
	c.held.closeAll()
	c.stored.closeAll()
}
