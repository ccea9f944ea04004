//go:build amd64 || arm64

package sysprog

import (
	"bytes"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"unsafe"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/entry"
	"golang.org/x/sys/unix"
)

// Block is a mapping of its own with a program, its data and its stack.
type Block struct {
	mem  []byte
	used uintptr
	full bool
	prog *Program
}

// stackSize is ample: nosplit functions share less than a kilobyte.
const stackSize = 16 << 10

// New makes a block with room for size bytes. The caller frees it, when the process
// has been started.
func New(size uintptr) (*Block, error) {
	const page = 64 << 10 // no architecture has larger ones
	mem, err := unix.Mmap(-1, 0, int((size+stackSize+page-1)&^(page-1)), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, fmt.Errorf("map: %w", err)
	}
	return &Block{mem: mem}, nil
}

// Free lets go of the memory; nil and again are no error.
func (b *Block) Free() {
	if b != nil && b.mem != nil {
		_ = unix.Munmap(b.mem)
		b.mem, b.prog = nil, nil
	}
}

// Alloc returns n zero bytes, aligned for anything. Without room they are
// somewhere else, and Load says so.
func (b *Block) Alloc(n uintptr) unsafe.Pointer {
	at := (b.used + 15) &^ 15
	if at+n > uintptr(len(b.mem))-stackSize {
		b.full = true
		return unsafe.Pointer(&make([]uint64, n/8+1)[0])
	}
	b.used = at + n
	return unsafe.Pointer(&b.mem[at])
}

// Load puts the finished program into the block. Class Internal when there was not
// room for all of it.
func (b *Block) Load(p *Program) error {
	to := *p
	to.Steps = Place(b, p.Steps)
	if len(p.Files) != 0 {
		to.Files = Place(b, p.Files)
	}
	for i := range to.regs {
		to.regs[i] = None
	}
	b.prog = &Place(b, []Program{to})[0]
	if b.full {
		return errclass.Internal("the program does not fit")
	}
	return nil
}

// cloneArgs is struct clone_args of clone3(2), its third version.
type cloneArgs struct {
	flags, _, _, _, exitSignal, stack, stackSize, tls, _, _, cgroup uint64 // pidfd, child_tid, parent_tid and set_tid are 0
}

// cloneClearSighand is CLONE_CLEAR_SIGHAND: no handler of ours runs in the child.
const cloneClearSighand = 0x100000000

// clone3 forks. The child calls run, runCode, with p on the stack that args names; the
// parent gets its pid or a negative errno.
//
//go:noescape
func clone3(args *cloneArgs, size uintptr, p *Program, run uintptr) (r int)

// Start runs the program that was loaded in a new process and returns its pid. The
// caller reaps it, with unix.WALL: its end raises no signal here, and neither does
// that of the process which Again makes of it until that has executed something.
//
// The new process is a copy of this one less all memory but the code and the
// block (MADV_DONTFORK), so there is next to nothing to copy, none of our pages
// become copy-on-write, and nothing of what we know is in it. It does not borrow
// our memory either, as with vfork: nothing that happens to it makes us wait, or
// fall with it. All that takes the lock under which package syscall forks: its
// forks into a new user namespace do need the memory.
func (b *Block) Start() (int, syscall.Errno) { return b.start(&cloneArgs{}) }

// StartIn is Start in the new namespaces of flags (CLONE_NEW*) and in the cgroup (version
// 2) of the directory's descriptor, unless that is -1. The end of the process raises
// SIGCHLD, and it is reaped as any other.
func (b *Block) StartIn(flags uintptr, cgroup int) (int, syscall.Errno) {
	args := cloneArgs{flags: uint64(flags), exitSignal: uint64(unix.SIGCHLD)}
	if cgroup >= 0 {
		args.flags |= unix.CLONE_INTO_CGROUP
		args.cgroup = uint64(cgroup)
	}
	return b.start(&args)
}

func (b *Block) start(args *cloneArgs) (int, syscall.Errno) {
	code, err := keptAreas()
	if err != nil {
		return 0, unix.ENOSYS
	}
	base := uintptr(unsafe.Pointer(&b.mem[0]))
	// A word below the thread pointer is where amd64 looks for the goroutine: the
	// child is none, but what the compiler puts before its first call loads it.
	tls := Place(b, make([]uint64, 4))
	tls[1] = uint64(base)
	args.flags |= cloneClearSighand | unix.CLONE_SETTLS
	args.stack, args.stackSize = uint64(base+uintptr(len(b.mem))-stackSize), stackSize
	args.tls = uint64(uintptr(unsafe.Pointer(&tls[2])))
	size := unsafe.Sizeof(*args)
	if args.flags&unix.CLONE_INTO_CGROUP == 0 {
		size = unsafe.Offsetof(args.tls) + unsafe.Sizeof(args.tls) // the first version
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	syscall.ForkLock.Lock()
	defer syscall.ForkLock.Unlock()
	defer func() { _ = mark(code, unix.MADV_DOFORK) }() // a failed part was not marked before either
	if e := mark(code, unix.MADV_DONTFORK); e != 0 {
		return 0, e
	}
	if e := madvise(base, uintptr(len(b.mem)), unix.MADV_DOFORK); e != 0 {
		return 0, e
	}
	keepThread()
	entry.Settle()
	r := clone3(args, size, b.prog, runCode())
	runtime.KeepAlive(b)
	if r < 0 {
		return 0, syscall.Errno(-r)
	}
	return r, 0
}

// mark advises on all memory outside the areas.
func mark(a *areas, advice uintptr) syscall.Errno {
	from := uintptr(minAddress)
	for _, r := range [...][2]uintptr{a.low, a.high, {maxAddress, maxAddress}} {
		if r[0] > from {
			// Holes answer ENOMEM, after all the rest is marked.
			if e := madvise(from, r[0]-from, advice); e != 0 && e != unix.ENOMEM {
				return e
			}
		}
		from = max(from, r[1])
	}
	return 0
}

// Works tells whether programs run here, which it tries once: not where
// clone3(2) is missing or forbidden, nor where the compiler put something into the
// code that needs variables, as for test coverage.
func Works() bool { return works() }

var works = sync.OnceValue(tryFork)

func tryFork() bool {
	b, err := New(1 << 10)
	if err != nil {
		return false
	}
	defer b.Free()
	p := Program{Steps: []Step{{Kind: Call, Nr: syscall.SYS_GETPID, Soft: true}}, Out: ^uintptr(0)}
	if err := b.Load(&p); err != nil {
		return false
	}
	pid, errno := b.Start()
	if errno != 0 {
		return false
	}
	var ws unix.WaitStatus
	for {
		if _, err := unix.Wait4(pid, &ws, unix.WALL, nil); err != unix.EINTR {
			return err == nil && ws.Exited()
		}
	}
}

// What processes may map: 47 bits on amd64, where what follows is one more hole, and
// 48 on arm64. More are for those who ask for them.
const (
	minAddress = 64 << 10
	maxAddress = 1<<48 - 64<<10
)

func madvise(at, n uintptr, advice uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_MADVISE, at, n, advice)
	return e
}

// areas are what the process gets besides its block: our code with its
// constants, and the kernel's own pages (vDSO), which do not take advice.
type areas struct{ low, high [2]uintptr }

var keptAreas = sync.OnceValues(findAreas)

func findAreas() (*areas, error) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return nil, err
	}
	code, err := codeIn(maps, runCode())
	if err != nil {
		return nil, err
	}
	a := &areas{low: code, high: kernelIn(maps)}
	if a.high[0] != 0 && a.high[0] < a.low[1] {
		a.low, a.high = a.high, a.low
	}
	return a, nil
}

// runCode is where the code of runProgram begins.
func runCode() uintptr {
	f := runProgram
	return **(**uintptr)(unsafe.Pointer(&f))
}

// kernelIn finds the kernel's pages in a /proc/PID/maps.
func kernelIn(maps []byte) (r [2]uintptr) {
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 6 || !bytes.HasPrefix(f[5], []byte("[vvar")) && !bytes.HasPrefix(f[5], []byte("[vdso")) {
			continue
		}
		if start, end, ok := span(f[0]); ok {
			if r[0] == 0 {
				r[0] = start
			}
			r[1] = end
		}
	}
	return r
}

func span(s []byte) (start, end uintptr, ok bool) {
	from, to, _ := bytes.Cut(s, []byte{'-'})
	a, err1 := strconv.ParseUint(string(from), 16, 64)
	b, err2 := strconv.ParseUint(string(to), 16, 64)
	return uintptr(a), uintptr(b), err1 == nil && err2 == nil && a < b
}

// codeIn finds in a /proc/PID/maps the mappings of the file that pc is in which
// nobody writes to and which follow each other.
func codeIn(maps []byte, pc uintptr) (r [2]uintptr, err error) {
	found := false
	file := ""
	for line := range bytes.Lines(maps) {
		f := bytes.Fields(line)
		if len(f) < 5 {
			continue
		}
		start, end, ok := span(f[0])
		if !ok {
			continue
		}
		id := string(f[3]) + " " + string(f[4]) // device and inode
		switch {
		case bytes.IndexByte(f[1], 'w') >= 0 || string(f[4]) == "0":
			if found {
				return r, nil
			}
			file = ""
		case id == file && start == r[1]:
			r[1] = end
		case found:
			return r, nil
		default:
			file, r = id, [2]uintptr{start, end}
		}
		found = found || file != "" && r[0] <= pc && pc < r[1]
	}
	if !found {
		return r, errclass.With(errdefs.ErrNotFound, fmt.Errorf("the own code is not mapped from a file"))
	}
	return r, nil
}
