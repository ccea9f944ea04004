package oci

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// notifies tells whether a filter hands system calls to an agent.
func notifies(flags uint64) bool { return flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 }

// planNotify completes what init says to the agent of a new container.
func planNotify(o *CreateOpts, pid int, p *initmsg.Process) error {
	sc := o.Spec.Linux.Seccomp
	if !notifies(p.SeccompFlags) {
		if sc != nil && sc.ListenerMetadata != "" && sc.ListenerPath == "" {
			return errclass.Invalid("seccomp listener metadata without a listener path")
		}
		return nil
	}
	n := &Notify{Bundle: o.Bundle, Annotations: o.Spec.Annotations}
	if sc != nil {
		n.Path, n.Metadata = sc.ListenerPath, sc.ListenerMetadata
	}
	return n.plan(o.ID, specs.StateCreating, pid, pid, p)
}

// plan makes the message about process pid of the container whose first one is init.
func (n *Notify) plan(id string, status specs.ContainerState, init, pid int, p *initmsg.Process) error {
	if n == nil || n.Path == "" {
		return errclass.Invalid("seccomp: SCMP_ACT_NOTIFY needs a listenerPath")
	}
	b, err := json.Marshal(&specs.ContainerProcessState{
		Version: specs.Version, Fds: []string{specs.SeccompFdName}, Pid: pid, Metadata: n.Metadata,
		State: specs.State{Version: specs.Version, ID: id, Status: status, Pid: init, Bundle: n.Bundle, Annotations: n.Annotations},
	})
	if err != nil {
		return err
	}
	if len(b) > initmsg.MaxReply {
		return errclass.Invalid("seccomp: the state for the agent is too large: %d bytes", len(b))
	}
	p.Notify = initmsg.Notify{Path: n.Path, State: b}
	return nil
}

// agentTimeout is how long an agent may take to read what it gets.
const agentTimeout = 10 * time.Second

// agent is the connection to a seccomp agent. A nil one is none yet.
type agent struct{ f *os.File }

func (a *agent) close() {
	if a != nil {
		a.f.Close()
	}
}

func dialAgent(path string) (*agent, error) {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("socket: %w", err)
	}
	// Not blocking: an agent whose queue is full answers EAGAIN.
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		unix.Close(fd)
		return nil, errclass.Invalid("unable to connect with seccomp agent %s: %w", path, err)
	}
	return &agent{os.NewFile(uintptr(fd), path)}, nil
}

// send passes the listener on, with the state.
func (a *agent) send(state []byte, fd int) error {
	if err := a.f.SetWriteDeadline(time.Now().Add(agentTimeout)); err != nil {
		return err
	}
	return fdpass.SendFile(a.f, state, fd)
}

// frame does what init asks for: connect, then send the listener that it sent.
// Init goes on when it has the answer.
func (a *agent) frame(c *initConn, typ byte, payload []byte) (*agent, error) {
	switch {
	case typ == initmsg.FrameAgent && a == nil:
		var err error
		if a, err = dialAgent(string(payload)); err != nil {
			return nil, err
		}
	case typ == initmsg.FrameListener && a != nil:
		fd := c.takeFD()
		if fd < 0 {
			return a, errclass.Internal("init sent no seccomp listener")
		}
		err := a.send(payload, fd)
		unix.Close(fd)
		if err != nil {
			return a, errclass.Invalid("send to seccomp agent: %w", err)
		}
	default:
		return a, errclass.Internal("init sent a frame out of order")
	}
	return a, c.sendGo()
}
