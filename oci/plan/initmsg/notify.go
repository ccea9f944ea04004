package initmsg

// Notify says whom the runtime gives the descriptor of a filter whose system
// calls another process handles (seccomp_unotify(2)).
type Notify struct {
	// Path is the agent's socket, in the host's file system.
	Path string
	// State is the ContainerProcessState (runtime-spec, runtime.md) to send along.
	State []byte
}

// FrameAgent asks the runtime to connect to the agent, payload: Notify.Path.
// FrameListener hands it the descriptor, by SCM_RIGHTS, with Notify.State as
// payload. The runtime answers each with a Go byte.
const (
	FrameAgent    = 'A'
	FrameListener = 'L'
)

func (n *Notify) code(c *coder) {
	c.str(&n.Path)
	c.bytes(&n.State)
}
