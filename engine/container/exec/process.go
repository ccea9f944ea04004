package exec

import (
	"sync"

	"github.com/gantry/gantry/engine/container/store"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/shim"
	"github.com/moby/moby/api/types/container"
)

// process is a further process of a container.
type process struct {
	id     string
	c      *store.Container
	config container.ExecCreateRequest
	keys   []byte

	mu       sync.Mutex
	started  bool
	running  bool
	ended    bool
	exitCode *int
	pid      int
	run      uint64
	finished chan struct{} // closed when it has ended; nil where nobody waits for that
}

// key names the process to the shim, once it is claimed.
func (p *process) key() shim.Key { return shim.Key{Container: p.c.ID, Exec: p.id, Run: p.run} }

func (p *process) isEnded() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

// finish records the end of a process that ran in run; false when it was recorded before.
func (p *process) finish(run uint64, code int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.started || p.ended || p.run != run {
		return false
	}
	p.running, p.ended, p.exitCode = false, true, &code
	if p.finished != nil {
		close(p.finished)
	}
	return true
}

// claim makes this the one start of the exec.
func (p *process) claim() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.running:
		return errclass.Conflict("exec command %s is already running", p.id)
	case p.started:
		return errclass.Conflict("exec command %s has already run", p.id)
	}
	p.started, p.running, p.run = true, true, p.c.View().Run
	return nil
}

func (p *process) unclaim() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.started, p.running = false, false
}

func (p *process) inspect() container.ExecInspectResponse {
	p.mu.Lock()
	defer p.mu.Unlock()
	q := p.config
	user := q.User
	if user == "" {
		user = p.c.Record().Config.User
	}
	privileged := q.Privileged
	var entrypoint string
	arguments := []string{}
	if len(q.Cmd) > 0 { // none when an earlier daemon made it
		entrypoint, arguments = q.Cmd[0], q.Cmd[1:]
	}
	return container.ExecInspectResponse{
		ID: p.id, Running: p.running, ExitCode: p.exitCode, OpenStdin: q.AttachStdin, OpenStdout: q.AttachStdout,
		OpenStderr: q.AttachStderr, CanRemove: p.ended, ContainerID: p.c.ID, DetachKeys: []byte(q.DetachKeys), Pid: p.pid,
		ProcessConfig: &container.ExecProcessConfig{
			Tty: q.Tty, Entrypoint: entrypoint, Arguments: arguments, Privileged: &privileged, User: user,
		},
	}
}
