package initmsg

// Tuning is how the kernel schedules and places the program. The zero value
// leaves everything as it is.
type Tuning struct {
	// Scheduler is what sched_setattr(2) gets when HasScheduler.
	HasScheduler bool
	Scheduler    Scheduler
	// IOPriority is what ioprio_set(2) gets when HasIOPriority.
	HasIOPriority bool
	IOPriority    uint32
	// CPUsInitial and CPUsFinal are CPU masks, bit 0 of byte 0 first, for
	// sched_setaffinity(2) before and after the process is in its cgroup.
	CPUsInitial, CPUsFinal []byte
	// Personality is for personality(2) when HasPersonality.
	HasPersonality bool
	Personality    uint32
	// MemoryMode and MemoryNodes, a mask like those of CPUs, are for
	// set_mempolicy(2) when HasMemory.
	HasMemory   bool
	MemoryMode  uint32
	MemoryNodes []byte
}

// None tells that everything is left as it is.
func (t *Tuning) None() bool {
	return !t.HasScheduler && !t.HasIOPriority && !t.HasPersonality && !t.HasMemory && len(t.CPUsInitial) == 0 && len(t.CPUsFinal) == 0
}

// Scheduler is struct sched_attr without its size.
type Scheduler struct {
	Policy   uint32
	Flags    uint64
	Nice     int32
	Priority uint32
	// Runtime, Deadline and Period are in nanoseconds.
	Runtime, Deadline, Period uint64
}

// Any tells whether there is anything to do.
func (t *Tuning) Any() bool {
	return t.HasScheduler || t.HasIOPriority || t.HasPersonality || t.HasMemory || len(t.CPUsInitial)+len(t.CPUsFinal) != 0
}

func (t *Tuning) code(c *coder) {
	if c.boolean(&t.HasScheduler); t.HasScheduler {
		s := &t.Scheduler
		c.u32(&s.Policy)
		c.u64(&s.Flags)
		c.i32(&s.Nice)
		c.u32(&s.Priority)
		c.u64(&s.Runtime)
		c.u64(&s.Deadline)
		c.u64(&s.Period)
	}
	c.boolean(&t.HasIOPriority)
	c.u32(&t.IOPriority)
	c.bytes(&t.CPUsInitial)
	c.bytes(&t.CPUsFinal)
	c.boolean(&t.HasPersonality)
	c.u32(&t.Personality)
	c.boolean(&t.HasMemory)
	c.u32(&t.MemoryMode)
	c.bytes(&t.MemoryNodes)
}

// TimeOffset is one line of timens_offsets (time_namespaces(7)).
type TimeOffset struct {
	// Clock is CLOCK_MONOTONIC or CLOCK_BOOTTIME.
	Clock uint32
	Secs  int64
	Nanos uint32
}

func (t *TimeOffset) code(c *coder) {
	c.u32(&t.Clock)
	s := uint64(t.Secs)
	c.u64(&s)
	t.Secs = int64(s)
	c.u32(&t.Nanos)
}

func (c *coder) i32(p *int32) {
	v := uint32(*p)
	c.u32(&v)
	*p = int32(v)
}
