package become

import (
	"errors"
	"fmt"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// ErrByInit tells the caller to fall back to init: sysprog does not work here, or a step
// has failed for which only init has the message. Every step may be repeated.
var ErrByInit = errclass.With(errdefs.ErrNotImplemented, errors.New("only init does this"))

// byInit is what steps are called whose errors are ErrByInit.
const byInit = "by init"

// Err words what a step reported, as init would.
func (f *Plan) Err(r *sysprog.Report) error {
	i := int(r.Step)
	if i >= len(f.Program.Steps) || int(r.Extra) >= max(len(f.names), 1) {
		return initmsg.ErrEndedEarly
	}
	e := unix.Errno(r.Errno)
	switch f.Program.Steps[i].Kind {
	case sysprog.Cwd, sysprog.CwdUser:
		if e == sysprog.ErrBreakout {
			return initmsg.ErrBreakout
		}
		return initmsg.CwdError(f.proc.Cwd, e)
	case sysprog.Look:
		name := f.proc.Args[0]
		switch {
		case !f.Program.Look:
			return initmsg.LookError(name, e)
		case e == unix.EACCES:
			return initmsg.DeniedError(name)
		}
		return initmsg.MissingError(name)
	case sysprog.Exec, sysprog.Reaper:
		return initmsg.ExecError(f.names[r.Extra], e)
	}
	if f.what[i] == byInit {
		return ErrByInit
	}
	return fmt.Errorf("%s: %w", f.what[i], e)
}

// Warning words what a step that may fail reported; "" for what nobody asked for.
func (f *Plan) Warning(r *sysprog.Report) string {
	i := int(r.Step)
	switch {
	case f.Program.Steps[i].Kind != sysprog.OOM:
		return fmt.Sprintf("error setting rlimit type %s: %v", f.what[i], unix.Errno(r.Errno))
	case f.oom != nil:
		return fmt.Sprintf("oom_score_adj %d: %v", *f.oom, unix.Errno(r.Errno))
	}
	return ""
}

// Soft tells whether the step that reported may fail.
func (f *Plan) Soft(r *sysprog.Report) bool {
	return int(r.Step) < len(f.Program.Steps) && f.Program.Steps[r.Step].Soft
}
