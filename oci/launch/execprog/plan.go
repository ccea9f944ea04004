package execprog

import (
	"os"

	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"golang.org/x/sys/unix"
)

// joined are the namespaces that the process enters.
const joined = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP | unix.CLONE_NEWPID

// plan prepares an exec. The steps and their order are init's (oci/init, become),
// so that a process shows no difference. reports is the pipe's end for the child.
func (e *Exec) plan(reports int) (f *become.Plan, err error) {
	f, err = become.New(e.ID, e.Process, e.OOMScore, reports, 0)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	streams := e.Streams
	if e.Process.Terminal {
		streams = [3]*os.File{}
	}
	if err := f.Streams(streams); err != nil {
		return nil, err
	}
	needed := []int{e.Init}
	for i := range e.Procs {
		needed = append(needed, e.Procs[i].FD)
	}

	// In the host's pid namespace still, seen by nobody in the container.
	f.Hide(needed...)
	f.OOMScore()
	f.Call("join namespaces", become.Errnos{}, unix.SYS_SETNS, uintptr(e.Init), joined)
	again := sysprog.Step{Kind: sysprog.Again}
	for i := range e.Procs {
		if e.Procs[i].Into {
			again.Args[0] = sysprog.Birth(f.Block, e.Procs[i].FD)
		}
	}
	f.Add("fork", again)
	// In the container.
	f.Session()
	var root sysprog.Reg
	if e.Process.Terminal || become.NeedsHome(e.Process) {
		root = f.Reg()
		f.Add("open /", sysprog.Step{Nr: unix.SYS_OPENAT, To: root, Args: [5]uintptr{^uintptr(99), f.Str("/"), unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC}})
	}
	if e.Process.Terminal {
		f.Terminal(root, func(sysprog.Reg) {})
	} else if err := f.OwnStreams(); err != nil {
		return nil, err
	}
	f.Keyring(e.ID)
	home := f.Home(root)
	f.Cwd()
	f.Cgroups(e.Procs)
	f.Identity()
	f.LookUp(home)
	f.Limits()
	f.Last()
	f.Add("exec", sysprog.Step{Kind: sysprog.Exec})
	return f, f.Load()
}
