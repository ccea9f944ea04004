package initmsg

// Extra is what a start asks for beyond the usual: a start by a later process,
// descriptors to pass on, hooks.
type Extra struct {
	// StartFD is a listening unix stream socket, by descriptor number in init. The
	// Go byte comes over a connection to it, and init's frames go there from then
	// on. 0: the Go byte comes over FDSocket.
	StartFD uint32
	// Preserve are descriptors, by number in init, that the program gets as 3, 4, ….
	Preserve []uint32
	// NoPivot: make the new root by chroot(2) on top of the old one.
	NoPivot bool
	// HostMountFD is for a container without a mount namespace of its own: that of the
	// host, to go back to when the mounts are made; for an exec the container's root
	// directory, to change to. 0: it has one.
	HostMountFD uint32
	// NoNewKeyring: keep the session keyring of the runtime's caller.
	NoNewKeyring bool
	// HookSync: send FrameHooks when the mounts are made and wait for a Go byte,
	// before the root changes.
	HookSync bool
	// StateCreating and StateCreated are the container's state as JSON, for hooks.
	StateCreating, StateCreated []byte
	// CreateContainer hooks run before the root changes, StartContainer hooks right
	// before the program.
	CreateContainer, StartContainer []Hook
}

// Hook is a program to run at a point of the container's life.
type Hook struct {
	Path string
	// Args are the whole argv; with none it is Path alone.
	Args, Env []string
	// Timeout is in seconds; 0: none.
	Timeout uint32
}

// FrameHooks asks the runtime to run its hooks and answer with a Go byte.
const FrameHooks = 'H'

func (e *Extra) code(c *coder) {
	c.u32(&e.StartFD)
	list(c, &e.Preserve, c.u32)
	c.boolean(&e.NoPivot)
	c.u32(&e.HostMountFD)
	c.boolean(&e.NoNewKeyring)
	c.boolean(&e.HookSync)
	c.bytes(&e.StateCreating)
	c.bytes(&e.StateCreated)
	hook := func(h *Hook) {
		c.str(&h.Path)
		list(c, &h.Args, c.str)
		list(c, &h.Env, c.str)
		c.u32(&h.Timeout)
	}
	list(c, &e.CreateContainer, hook)
	list(c, &e.StartContainer, hook)
}
