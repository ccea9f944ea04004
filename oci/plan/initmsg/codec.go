package initmsg

import (
	"encoding/binary"
	"errors"
)

// ErrCorrupt says that bytes are no Message.
var ErrCorrupt = errors.New("corrupt init message")

// Encode returns m's bytes.
func Encode(m *Message) []byte {
	c := coder{buf: make([]byte, 0, 4096+len(m.Process.Seccomp))}
	m.code(&c)
	return c.buf
}

// Decode reads what Encode wrote. Lengths are checked against what is there, so
// that memory stays proportional to the input; the sender is the runtime itself.
func Decode(b []byte) (*Message, error) {
	c := coder{buf: b, dec: true}
	m := new(Message)
	m.code(&c)
	if c.bad || c.pos != len(b) {
		return nil, ErrCorrupt
	}
	return m, nil
}

// coder writes or reads: one function per type serves both directions, so the
// two cannot differ.
type coder struct {
	buf []byte
	pos int
	dec bool
	bad bool
}

func (c *coder) num(v uint64) uint64 {
	if !c.dec {
		c.buf = binary.AppendUvarint(c.buf, v)
		return v
	}
	x, n := binary.Uvarint(c.buf[c.pos:])
	if n <= 0 {
		c.bad = true
		return 0
	}
	c.pos += n
	return x
}

func (c *coder) u64(p *uint64) { *p = c.num(*p) }

func (c *coder) u32(p *uint32) {
	v := c.num(uint64(*p))
	if v > 1<<32-1 {
		c.bad = true
	}
	*p = uint32(v)
}

func (c *coder) u8(p *uint8) {
	v := c.num(uint64(*p))
	if v > 255 {
		c.bad = true
	}
	*p = uint8(v)
}

func (c *coder) boolean(p *bool) {
	var v uint64
	if *p {
		v = 1
	}
	*p = c.num(v) == 1
}

func (c *coder) bytes(p *[]byte) {
	n := c.num(uint64(len(*p)))
	if !c.dec {
		c.buf = append(c.buf, *p...)
		return
	}
	if c.bad || n > uint64(len(c.buf)-c.pos) {
		c.bad = true
		return
	}
	if n > 0 {
		*p = c.buf[c.pos : c.pos+int(n)]
	}
	c.pos += int(n)
}

func (c *coder) str(p *string) {
	b := []byte(*p)
	c.bytes(&b)
	if c.dec {
		*p = string(b)
	}
}

// list codes the elements of a slice; an element takes at least one byte.
func list[T any](c *coder, p *[]T, f func(*T)) {
	n := c.num(uint64(len(*p)))
	if c.dec {
		if c.bad || n > uint64(len(c.buf)-c.pos) {
			c.bad = true
			return
		}
		if n > 0 {
			*p = make([]T, n)
		}
	}
	for i := range *p {
		if c.bad {
			return
		}
		f(&(*p)[i])
	}
}

func (c *coder) kv(p *KV) { c.str(&p.Key); c.str(&p.Value) }

func (m *Message) code(c *coder) {
	c.str(&m.ID)
	c.boolean(&m.Exec)
	c.boolean(&m.WaitGo)
	c.boolean(&m.Reaper)
	list(c, &m.Join, func(j *Join) { c.u32(&j.FD); c.u64(&j.Flags) })
	c.boolean(&m.NewCgroupNS)
	c.boolean(&m.NewTimeNS)
	list(c, &m.TimeOffsets, func(t *TimeOffset) { t.code(c) })
	c.boolean(&m.TakeRoot)
	c.boolean(&m.LoopbackUp)
	c.str(&m.Hostname)
	c.str(&m.Domainname)
	m.Root.code(c)
	list(c, &m.Mounts, func(x *Mount) { x.code(c) })
	c.boolean(&m.SetupDev)
	list(c, &m.Devices, func(d *Device) { d.code(c) })
	list(c, &m.MaskedPaths, c.str)
	list(c, &m.ReadonlyPaths, c.str)
	list(c, &m.Sysctl, c.kv)
	m.Process.code(c)
	m.Extra.code(c)
}

func (r *Root) code(c *coder) {
	c.str(&r.Path)
	list(c, &r.Lower, c.str)
	c.str(&r.Upper)
	c.str(&r.Work)
	c.boolean(&r.Volatile)
	c.boolean(&r.Readonly)
	c.u64(&r.Propagation)
	c.boolean(&r.PropagationRec)
	c.u64(&r.Own)
}

func (m *Mount) code(c *coder) {
	c.u8(&m.Kind)
	c.str(&m.Type)
	c.str(&m.Source)
	c.str(&m.Dest)
	c.u64(&m.Set)
	c.u64(&m.Clear)
	c.u64(&m.RecSet)
	c.u64(&m.RecClear)
	c.u64(&m.Propagation)
	c.boolean(&m.PropagationRec)
	c.u32(&m.SourceFD)
	c.u32(&m.Index)
	c.boolean(&m.Recursive)
	c.boolean(&m.NoSymlinks)
	c.boolean(&m.CopyUp)
	list(c, &m.Data, c.kv)
	list(c, &m.Flags, c.str)
	list(c, &m.Binds, c.kv)
}

func (d *Device) code(c *coder) {
	c.str(&d.Path)
	c.u8(&d.Type)
	c.u32(&d.Major)
	c.u32(&d.Minor)
	c.u32(&d.Mode)
	c.u32(&d.UID)
	c.u32(&d.GID)
}

func (p *Process) code(c *coder) {
	c.boolean(&p.Terminal)
	c.u32(&p.Rows)
	c.u32(&p.Cols)
	list(c, &p.Args, c.str)
	list(c, &p.Env, c.str)
	c.str(&p.Cwd)
	c.u32(&p.UID)
	c.u32(&p.GID)
	list(c, &p.Groups, c.u32)
	c.boolean(&p.NoGroups)
	c.boolean(&p.HasUmask)
	c.u32(&p.Umask)
	c.u64(&p.Caps.Bounding)
	c.u64(&p.Caps.Effective)
	c.u64(&p.Caps.Permitted)
	c.u64(&p.Caps.Ambient)
	c.boolean(&p.NoNewPrivs)
	list(c, &p.Rlimits, func(r *Rlimit) { c.u32(&r.Type); c.str(&r.Name); c.u64(&r.Soft); c.u64(&r.Max) })
	c.bytes(&p.Seccomp)
	c.u64(&p.SeccompFlags)
	c.str(&p.AppArmor)
	c.str(&p.SELinux)
	p.Tuning.code(c)
	p.Notify.code(c)
}
