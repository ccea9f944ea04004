package shimd

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/gantry/gantry/internal/sysmon"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/shim"
	"golang.org/x/sys/unix"
)

// Main is `gantry-runtime shim`: args are what follows that word. It returns the
// process's exit status, after a daemon shut the shim down.
func Main(args []string) int {
	root, readyFD, err := parse(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, "gantry-runtime shim:", err)
		return 2
	}
	l := log.New(os.Stderr, "shim: ", log.LstdFlags|log.LUTC|log.Lmsgprefix)
	if err := selfexe.Run(); err != nil {
		l.Printf("execs take the slower way: %v", err)
	}
	var ready *os.File
	if readyFD >= 0 {
		unix.CloseOnExec(readyFD)
		ready = os.NewFile(uintptr(readyFD), "ready")
	}
	if err := run(root, ready, l); err != nil {
		l.Print(err)
		if ready != nil {
			fmt.Fprintf(ready, "%v\n", err)
		}
		return 1
	}
	return 0
}

func parse(args []string) (root string, ready int, err error) {
	ready = -1
	for len(args) >= 2 {
		switch args[0] {
		case "--root":
			root = args[1]
		case "--ready-fd":
			if ready, err = strconv.Atoi(args[1]); err != nil || ready < 3 {
				return "", 0, fmt.Errorf("invalid --ready-fd %q", args[1])
			}
		default:
			return "", 0, fmt.Errorf("unknown flag %s", args[0])
		}
		args = args[2:]
	}
	if len(args) > 0 || !filepath.IsAbs(root) {
		return "", 0, errors.New("usage: gantry-runtime shim --root DIR [--ready-fd N]")
	}
	return root, ready, nil
}

func run(root string, ready *os.File, l *log.Logger) error {
	if err := shim.PrepareRoot(root); err != nil {
		return err
	}
	lock, err := os.OpenFile(filepath.Join(root, shim.LockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("shim lock: %w", err)
	}
	defer lock.Close()
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return fmt.Errorf("another shim runs in %s", root)
	}
	if err := settle(l); err != nil {
		return err
	}
	return New(root, l.Printf).Serve(func() error {
		if ready == nil {
			return nil
		}
		_, err := ready.WriteString("ok\n")
		ready.Close()
		return err
	})
}

// settle makes this process one that lives by itself and is hard to end.
func settle(l *log.Logger) error {
	_, _ = unix.Setsid() // already done when the client started us
	if err := os.Chdir("/"); err != nil {
		return err
	}
	unix.Umask(0o022)
	// Handled, not ignored: an ignored signal would stay ignored in containers.
	sink := make(chan os.Signal, 1)
	signal.Notify(sink, syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGPIPE, syscall.SIGQUIT,
		syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU)
	go func() {
		for range sink {
		}
	}()
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become subreaper: %w", err)
	}
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		l.Printf("core dumps of the shim stay possible: %v", err)
	}
	if err := os.WriteFile("/proc/self/oom_score_adj", []byte("-999"), 0); err != nil {
		l.Printf("no protection from the kernel's out-of-memory killer: %v", err)
	}
	runtime.GOMAXPROCS(min(runtime.NumCPU(), 4))
	_ = sysmon.Relax()      // it costs a tenth of a start's processor time, no more
	debug.SetGCPercent(200) // starts stay cheap; what is left over goes back when it is quiet
	return nil
}

// lookForStrangers wakes the goroutine that reaps inherited orphans.
func (s *Server) lookForStrangers() {
	select {
	case s.strangers <- struct{}{}:
	default:
	}
}

// reapStrangers reaps children that nobody here started: orphans of containers
// that share the host's pid namespace.
func (s *Server) reapStrangers() {
	ch := make(chan os.Signal, 1)
	signal.Notify(ch, syscall.SIGCHLD)
	for {
		select {
		case <-ch:
		case <-s.strangers:
		}
		s.reapEnded()
	}
}

func (s *Server) reapEnded() {
	defer s.guard("reaping")
	// While a start is under way its helpers are not to be taken; its end wakes us.
	if !s.spawning.TryLock() {
		return
	}
	defer s.spawning.Unlock()
	for pid := shim.EndedChild(); pid > 0; pid = shim.EndedChild() {
		if p := s.byPid(pid); p != nil {
			if known, _ := p.tryReap(); known {
				continue
			}
			return
		}
		if _, done, err := shim.ReapPid(pid); !done || err != nil {
			return
		}
	}
}

func (s *Server) byPid(pid int) *proc {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.procs {
		if p.started.Pid != pid {
			continue
		}
		// One that was reaped may still be draining, and its pid be used again.
		p.mu.Lock()
		live := p.reaped == nil
		p.mu.Unlock()
		if live {
			return p
		}
	}
	return nil
}
