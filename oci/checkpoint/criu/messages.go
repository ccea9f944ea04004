// Package criu has CRIU, where it is installed, save and restore the processes of a
// container: by its RPC (`criu swrk`), one process of criu for one request. What to
// ask for is package oci's business.
//
// Sources: rpc.proto of criu 3.17; https://criu.org/RPC.
package criu

import "fmt"

// Mode says what criu does with cgroups (criu_cg_mode).
type Mode int

// The modes, as criu counts them.
const (
	Ignore Mode = iota
	None
	Props
	Soft
	Full
	Strict
)

// ParseMode reads the names of runc's --manage-cgroups-mode; "" is Soft.
func ParseMode(s string) (Mode, bool) {
	switch s {
	case "", "soft":
		return Soft, true
	case "ignore":
		return Ignore, true
	case "full":
		return Full, true
	case "strict":
		return Strict, true
	}
	return 0, false
}

// Options are what a dump or a restore asks of criu (criu_opts). Descriptors are
// numbers of this process's, but for those of Inherit.
type Options struct {
	// Pid is the process to dump, with its children.
	Pid int
	// Images is the directory of the images, Work that of logs; WorkDir 0 is none.
	Images, Work int
	Log          string // the log's name in Work
	LeaveRunning bool
	TCPEstablished, ExtUnix, ShellJob,
	FileLocks, AutoDedup, LazyPages bool
	TrackMemory bool
	// Parent is the path of the images before these, below Images.
	Parent string
	// Root is the directory that the container's root is.
	Root string
	Mode Mode
	// Freeze is the cgroup directory to freeze meanwhile.
	Freeze string
	// External are things that are not saved, "mnt[/etc/hosts]:ID"; on restore what
	// stands for them, "mnt[ID]:/path".
	External []string
	// Inherit are descriptors of the new criu process, by what they stand for.
	Inherit []Inherited
	// PageServer takes the memory; nil: it goes into the images.
	PageServer *PageServer
	// EmptyNetwork leaves the network namespace out.
	EmptyNetwork bool
	// Status is a descriptor of criu's that gets a zero byte when lazy pages are ready; 0: none.
	Status int
	// Restore: the process becomes this process's child, and Notify is called.
	Restore bool
	// LSMProfile and LSMMountContext replace those of the images.
	LSMProfile, LSMMountContext string
}

// Inherited is a descriptor of criu's and what it stands for.
type Inherited struct {
	Key string
	FD  int
}

// PageServer is where memory goes to.
type PageServer struct {
	Address string
	Port    int
}

// The types of requests (criu_req_type).
const (
	reqDump         = 1
	reqRestore      = 2
	reqPreDump      = 4
	reqNotify       = 6
	reqFeatureCheck = 9
	reqVersion      = 10
)

func request(typ int, o *Options) message {
	var m message
	m.number(1, int64(typ))
	if o != nil {
		m.sub(2, o.encode())
	}
	return m
}

const (
	logLevel   = 4
	newNetwork = 0x40000000 // CLONE_NEWNET
)

func (o *Options) encode() message {
	var m message
	m.number(1, int64(o.Images))
	if o.Pid != 0 {
		m.number(2, int64(o.Pid))
	}
	m.flag(3, o.LeaveRunning)
	m.flag(4, o.ExtUnix)
	m.flag(5, o.TCPEstablished)
	m.flag(6, true) // devices that others open by other names
	m.flag(7, o.ShellJob)
	m.flag(8, o.FileLocks)
	m.number(9, logLevel)
	m.text(10, o.Log)
	if p := o.PageServer; p != nil {
		var s message
		s.text(1, p.Address)
		s.number(2, int64(p.Port))
		m.sub(11, s)
	}
	m.flag(12, o.Restore)
	m.text(13, o.Root)
	m.text(14, o.Parent)
	m.flag(15, o.TrackMemory)
	m.flag(16, o.AutoDedup)
	if o.Work != 0 {
		m.number(17, int64(o.Work))
	}
	m.flag(26, o.Restore)
	for _, i := range o.Inherit {
		var s message
		s.text(1, i.Key)
		s.number(2, int64(i.FD))
		m.sub(27, s)
	}
	m.number(34, int64(o.Mode))
	for _, e := range o.External {
		m.text(37, e)
	}
	if o.EmptyNetwork {
		m.number(38, newNetwork)
	}
	m.text(44, o.Freeze)
	m.flag(48, o.LazyPages)
	if o.Status != 0 {
		m.number(49, int64(o.Status))
	}
	m.flag(50, true) // a terminal whose master side is outside
	m.text(53, o.LSMProfile)
	m.text(63, o.LSMMountContext)
	return m
}

// notified answers a notification.
func notified(ok bool) message {
	var m message
	m.number(1, reqNotify)
	v := int64(0)
	if ok {
		v = 1
	}
	m.number(3, v)
	return m
}

// response is an answer of criu's (criu_resp).
type response struct {
	typ     int
	success bool
	pid     int    // of the restored process
	script  string // of a notification
	errno   int
	message string
	version int // 31701 for 3.17.1
	// memTrack and lazyPages are features.
	memTrack, lazyPages bool
}

func parseResponse(b []byte) (*response, error) {
	r := new(response)
	err := fields(b, func(field int, v uint64, b []byte) error {
		switch field {
		case 1:
			r.typ = int(int32(v))
		case 2:
			r.success = v != 0
		case 4:
			return fields(b, func(f int, v uint64, _ []byte) error {
				if f == 1 {
					r.pid = int(int32(v))
				}
				return nil
			})
		case 5:
			return fields(b, func(f int, v uint64, b []byte) error {
				switch f {
				case 1:
					r.script = string(b)
				case 2:
					r.pid = int(int32(v))
				}
				return nil
			})
		case 7:
			r.errno = int(int32(v))
		case 8:
			return fields(b, func(f int, v uint64, _ []byte) error {
				switch f {
				case 1:
					r.memTrack = v != 0
				case 2:
					r.lazyPages = v != 0
				}
				return nil
			})
		case 9:
			r.message = string(b)
		case 10:
			return fields(b, r.parseVersion)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (r *response) parseVersion(field int, v uint64, _ []byte) error {
	if v > 99 && field < 6 && field != 3 {
		return fmt.Errorf("%w: version %d", errWire, v)
	}
	switch field {
	case 1:
		r.version += int(v) * 10000
	case 2:
		r.version += int(v) * 100
	case 4:
		r.version += int(v)
	}
	return nil
}
