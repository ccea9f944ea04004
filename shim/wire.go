package shim

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Methods of the protocol. Bodies and answers are named at the server's handlers.
const (
	MethodHello      = "hello"
	MethodStart      = "start"
	MethodExec       = "exec"
	MethodAttach     = "attach"
	MethodDetach     = "detach"
	MethodResize     = "resize"
	MethodCloseStdin = "close_stdin"
	MethodSignal     = "signal"
	MethodKillAll    = "kill_all"
	MethodPause      = "pause"
	MethodResume     = "resume"
	MethodUpdate     = "update"
	MethodStats      = "stats"
	MethodPids       = "pids"
	MethodList       = "list"
	MethodEnded      = "ended"
	MethodForget     = "forget"
	MethodAdopt      = "adopt"
	MethodReaped     = "reaped"
	MethodStoreFD    = "store_fd"
	MethodDropFD     = "drop_fd"
	MethodFDs        = "fds"
	MethodShutdown   = "shutdown"
	MethodCancel     = "cancel"
)

// MaxFDs is the most descriptors one frame carries.
const MaxFDs = fdpass.Max

// Envelope is one frame: a request (Method set), an answer (ID of its request) or
// an event (Event set, ID 0).
type Envelope struct {
	ID     uint64          `json:"id,omitempty"`
	Method string          `json:"m,omitempty"`
	Body   json.RawMessage `json:"b,omitempty"`
	Error  *Error          `json:"err,omitempty"`
	Event  *Event          `json:"ev,omitempty"`
	// FDs is how many descriptors belong to this frame.
	FDs int `json:"fds,omitempty"`
	// More announces further answers with the same ID.
	More bool `json:"more,omitempty"`
}

// Hello is the answer to MethodHello.
type Hello struct {
	Version int    `json:"version"`
	Pid     int    `json:"pid"`
	Build   string `json:"build,omitempty"`
	// What came after the first version, and a daemon may not ask of a shim that does not say it:
	// the log drivers whose files it writes beside json-file, and other OCI runtimes.
	Logs     []string `json:"logs,omitempty"`
	Runtimes bool     `json:"runtimes,omitempty"`
}

// KeyRequest is the body of every request that concerns one process; each method
// reads the fields it needs.
type KeyRequest struct {
	Key       Key                   `json:"key"`
	Attach    *AttachSpec           `json:"attach,omitempty"`
	Client    string                `json:"client,omitempty"`
	Size      oci.WinSize           `json:"size"`
	Signal    int                   `json:"signal,omitempty"`
	Resources *specs.LinuxResources `json:"resources,omitempty"`
	// Exited is what the caller of MethodReaped learned by reaping the process itself.
	Exited *Exit `json:"exited,omitempty"`
}

// ListRequest is the body of MethodList.
type ListRequest struct {
	// Descriptors asks for the held descriptors too, as far as FDs of each Status says.
	Descriptors bool `json:"fds,omitempty"`
}

// NameRequest is the body of MethodStoreFD and MethodDropFD, and one answer of MethodFDs.
type NameRequest struct {
	Name string `json:"name"`
}

// Error is an error on the wire: its errdefs class by name, and its text.
type Error struct {
	Class string `json:"class"`
	Text  string `json:"text"`
}

func classes() map[string]error {
	return map[string]error{
		"not_found": errdefs.ErrNotFound, "invalid": errdefs.ErrInvalidArgument,
		"exists": errdefs.ErrAlreadyExists, "conflict": errdefs.ErrConflict,
		"precondition": errdefs.ErrFailedPrecondition, "denied": errdefs.ErrPermissionDenied,
		"unauthenticated": errdefs.ErrUnauthenticated, "unavailable": errdefs.ErrUnavailable,
		"not_implemented": errdefs.ErrNotImplemented, "not_modified": errdefs.ErrNotModified,
		"internal": errdefs.ErrInternal, "exhausted": errdefs.ErrResourceExhausted,
		"data_loss": errdefs.ErrDataLoss, "aborted": errdefs.ErrAborted,
		"out_of_range": errdefs.ErrOutOfRange,
	}
}

// ToWire turns err into its wire form; nil stays nil.
func ToWire(err error) *Error {
	if err == nil {
		return nil
	}
	e := &Error{Text: err.Error()}
	class := errclass.Of(err)
	for name, c := range classes() {
		if errors.Is(c, class) {
			e.Class = name
		}
	}
	return e
}

// Err is the error with its class again; nil for nil.
func (e *Error) Err() error {
	if e == nil {
		return nil
	}
	err := errors.New(e.Text)
	if c, ok := classes()[e.Class]; ok {
		return errclass.With(c, err)
	}
	return err
}

// Wire is one end of the connection. Send is safe for concurrent use, Recv is for
// one goroutine.
type Wire struct {
	f   *os.File
	raw syscall.RawConn

	wmu  sync.Mutex
	wbuf []byte

	rbuf []byte // received, not yet a frame
	fds  []int  // received, not yet a frame's
}

// NewWire takes over the connected stream socket fd.
func NewWire(fd int) (*Wire, error) {
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("set shim connection non-blocking: %w", err)
	}
	f := os.NewFile(uintptr(fd), "shim connection")
	raw, err := f.SyscallConn()
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("shim connection: %w", err)
	}
	return &Wire{f: f, raw: raw}, nil
}

// Close ends the connection; a blocked Recv or Send returns. Descriptors that
// were received but not handed out are closed by Recv.
func (w *Wire) Close() error { return w.f.Close() }

// Peer tells pid and uid of the other side as the kernel recorded them at connect.
func (w *Wire) Peer() (pid int, uid uint32, err error) {
	var cerr error
	err = w.raw.Control(func(fd uintptr) {
		var c *unix.Ucred
		if c, cerr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED); cerr == nil {
			pid, uid = int(c.Pid), c.Uid
		}
	})
	if err == nil {
		err = cerr
	}
	return pid, uid, err
}

// CheckPeer accepts only root and the own user at the other side.
func (w *Wire) CheckPeer() error {
	_, uid, err := w.Peer()
	if err != nil {
		return fmt.Errorf("peer of shim socket: %w", err)
	}
	if uid != 0 && int(uid) != os.Geteuid() {
		return errclass.Forbidden("peer of shim socket has uid %d", uid)
	}
	return nil
}

// Send writes one frame with descriptors, which stay the caller's.
func (w *Wire) Send(e *Envelope, fds ...int) error {
	if len(fds) > MaxFDs {
		return errclass.Internal("%d descriptors in one message, at most %d go", len(fds), MaxFDs)
	}
	e.FDs = len(fds)
	body, err := json.Marshal(e)
	if err != nil {
		return fmt.Errorf("encode message to the shim: %w", err)
	}
	if len(body) > MaxFrame {
		return errclass.Invalid("message of %d bytes is longer than the %d the shim takes", len(body), MaxFrame)
	}
	w.wmu.Lock()
	defer w.wmu.Unlock()
	b := append(w.wbuf[:0], 0, 0, 0, 0)
	binary.BigEndian.PutUint32(b, uint32(len(body)))
	b = append(b, body...)
	if cap(b) <= 16<<10 {
		w.wbuf = b
	}
	for len(b) > 0 {
		var n int
		var serr error
		err := w.raw.Write(func(fd uintptr) bool {
			n, serr = fdpass.Send(int(fd), b, unix.MSG_DONTWAIT, fds...)
			return !errors.Is(serr, unix.EAGAIN)
		})
		if err == nil {
			err = serr
		}
		if err != nil {
			return errclass.With(errdefs.ErrUnavailable, fmt.Errorf("write to shim connection: %w", err))
		}
		b, fds = b[n:], nil
	}
	return nil
}

// Recv reads one frame. The descriptors are the caller's to close. After an error
// the connection is of no further use; io.EOF is its orderly end.
func (w *Wire) Recv() (*Envelope, []int, error) {
	e, fds, err := w.recv()
	if err != nil {
		fdpass.Close(w.fds)
		w.fds = nil
	}
	return e, fds, err
}

func (w *Wire) recv() (*Envelope, []int, error) {
	for {
		if len(w.rbuf) >= 4 {
			size := binary.BigEndian.Uint32(w.rbuf)
			if size > MaxFrame {
				return nil, nil, errclass.Invalid("frame of %d bytes on shim connection", size)
			}
			if len(w.rbuf) >= 4+int(size) {
				return w.frame(int(size))
			}
		}
		if err := w.fill(); err != nil {
			return nil, nil, err
		}
	}
}

func (w *Wire) frame(size int) (*Envelope, []int, error) {
	e := new(Envelope)
	if err := json.Unmarshal(w.rbuf[4:4+size], e); err != nil {
		return nil, nil, errclass.Invalid("frame on shim connection: %v", err)
	}
	w.rbuf = w.rbuf[:copy(w.rbuf, w.rbuf[4+size:])]
	if len(w.rbuf) == 0 && cap(w.rbuf) > 16<<10 {
		w.rbuf = nil
	}
	// Descriptors come with the frame's first byte, so those of a complete frame
	// are all here, before those of later frames.
	if e.FDs < 0 || e.FDs > MaxFDs || e.FDs > len(w.fds) {
		return nil, nil, errclass.Invalid("frame on shim connection says %d descriptors, %d came", e.FDs, len(w.fds))
	}
	fds := append([]int(nil), w.fds[:e.FDs]...)
	w.fds = w.fds[:copy(w.fds, w.fds[e.FDs:])]
	return e, fds, nil
}

// maxWaiting bounds the descriptors that have come for frames of which not all is here.
const maxWaiting = 4 * MaxFDs

// fill reads once. The descriptors are w's, also after an error (see Recv).
func (w *Wire) fill() error {
	var n int
	var serr error
	// The buffer is taken only once there is something to read.
	err := w.raw.Read(func(fd uintptr) bool {
		buf := ioBuffer()
		defer releaseIO(buf)
		var fds []int
		if n, fds, serr = fdpass.Receive(int(fd), buf[:], MaxFDs, unix.MSG_DONTWAIT); errors.Is(serr, unix.EAGAIN) {
			return false
		}
		w.rbuf = append(w.rbuf, buf[:n]...)
		w.fds = append(w.fds, fds...)
		return true
	})
	if err == nil {
		err = serr
	}
	switch {
	case err != nil:
		return fmt.Errorf("read from shim connection: %w", err)
	case len(w.fds) > maxWaiting:
		return errclass.Invalid("too many descriptors on shim connection")
	case n == 0 && len(w.rbuf) > 0:
		return io.ErrUnexpectedEOF
	case n == 0:
		return io.EOF
	}
	return nil
}

// ioBuffers hold what one read brings. A package variable, being a cache without meaning.
var ioBuffers = sync.Pool{New: func() any { return new([16 << 10]byte) }}

func ioBuffer() *[16 << 10]byte   { return ioBuffers.Get().(*[16 << 10]byte) }
func releaseIO(b *[16 << 10]byte) { ioBuffers.Put(b) }
