package shimd

import (
	"os"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/shim"
	"golang.org/x/sys/unix"
)

// handedOver are the descriptors that came with a process, by name. What is not taken is
// closed at the end.
type handedOver map[string]int

func (h handedOver) close() {
	for _, fd := range h {
		unix.Close(fd)
	}
}

// take makes a source of a descriptor; nil when it did not come.
func (h handedOver) take(name string) (*source, error) {
	fd, ok := h[name]
	if !ok {
		return nil, nil
	}
	delete(h, name)
	f, err := own(fd, name)
	if err != nil {
		return nil, err
	}
	return newSource(f)
}

// received names the descriptors of an adopt request, which it takes over.
func received(st *shim.Status, fds []int) handedOver {
	h := make(handedOver, len(fds))
	for i, name := range st.FDs {
		if old, ok := h[name]; ok {
			unix.Close(old)
		}
		h[name] = fds[i]
	}
	return h
}

// adopt takes over a process that a dead shim held. It owns fds.
func (s *Server) adopt(st *shim.Status, fds []int) (*proc, []*client, error) {
	if st.Key.Container == "" || len(st.FDs) != len(fds) || len(fds) == 0 || st.FDs[0] == "" {
		fdpass.Close(fds)
		return nil, nil, errclass.Invalid("malformed adopt request")
	}
	h := received(st, fds)
	defer h.close()
	release, err := s.reserve(st.Key)
	if err != nil {
		return nil, nil, err
	}
	defer release()
	pidfd, ok := h["pidfd"]
	if !ok {
		return nil, nil, errclass.Invalid("adopt request without pidfd")
	}
	p := &proc{
		s: s, key: st.Key, pidfd: pidfd, started: st.Started, tty: st.Terminal, once: st.StdinOnce, adopted: true,
		lost: st.LostOutput, logCfg: st.Log, paused: st.Paused, told: make(chan struct{}),
		rt: s.runtime(st.Runtime), runtimeRef: st.Runtime,
	}
	p.started.FDs = nil
	if st.Exit != nil {
		delete(h, "pidfd")
		p.setReaped(*st.Exit)
		p.exit, p.ended = st.Exit, true
		s.put(p)
		return p, nil, nil
	}
	if err := p.adoptStreams(h); err != nil {
		return nil, nil, err
	}
	if !st.LostOutput {
		if p.log, err = s.openLog(st.Log); err != nil {
			// The container goes on without; nobody could repair it by refusing.
			s.logf("log of %s: %v", st.Key.Container, err)
		}
	}
	if p.watch, err = shim.WatchPidfd(pidfd); err != nil {
		p.dropStreams()
		return nil, nil, err
	}
	delete(h, "pidfd")
	s.put(p)
	var list []shim.AttachSpec
	var conns []*os.File
	for _, a := range st.Attach {
		if c, err := h.take(shim.ClientFD(a.Client)); err == nil && c != nil {
			list, conns = append(list, a), append(conns, c.file)
		}
	}
	return p, s.join(p, list, conns), nil
}

// adoptStreams takes the ends of the process's streams over; after an error none is held.
func (p *proc) adoptStreams(h handedOver) error {
	in, err := h.take("stdin")
	if in != nil {
		p.stdin = in.file
	}
	for name, to := range map[string]**source{"stdout": &p.out, "stderr": &p.errOut} {
		if err == nil {
			*to, err = h.take(name)
		}
	}
	if err == nil {
		var pty *source
		if pty, err = h.take("pty"); pty != nil {
			p.pty, p.stdin, p.out = pty.file, pty.file, pty
		}
	}
	if err != nil {
		p.dropStreams()
	}
	return err
}

// dropStreams closes the streams of a process that is not held after all.
func (p *proc) dropStreams() {
	for _, f := range []*source{p.out, p.errOut} {
		if f != nil {
			f.file.Close()
		}
	}
	if p.stdin != nil && p.stdin != p.pty {
		p.stdin.Close()
	}
	if p.log != nil {
		p.log.Close()
	}
}
