package bundle

import (
	"strings"
	"sync"

	"github.com/gantry/gantry/engine/container/spec"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// SeccompCompiler compiles a filter to classic BPF (oci/plan/seccomp).
type SeccompCompiler func(p *specs.LinuxSeccomp) (prog []byte, flags uint32, err error)

// maxPrograms bounds the cache: containers with profiles of their own may come and go.
const maxPrograms = 32

// seccompCache keeps compiled filters by profile and capabilities, which is all they
// depend on while the kernel stays.
type seccompCache struct {
	mu    sync.Mutex
	byKey map[string]program
}

type program struct {
	code  []byte
	flags uint32
}

// filter is the compiled filter for a spec, nil for none. Without a compiler, and for an
// external runtime, the spec's own profile is set for the runtime to compile.
func (b *Builder) filter(h *container.HostConfig, sp *specs.Spec, external bool) ([]byte, uint32, error) {
	profile, err := b.profile(h)
	if err != nil || profile == spec.Unconfined {
		return nil, 0, err
	}
	if b.compile == nil || external {
		sp.Linux.Seccomp, err = spec.Seccomp(profile, sp)
		return nil, 0, err
	}
	key := profile + "\x00" + strings.Join(sp.Process.Capabilities.Bounding, ",")
	b.programs.mu.Lock()
	defer b.programs.mu.Unlock()
	if p, ok := b.programs.byKey[key]; ok {
		return p.code, p.flags, nil
	}
	f, err := spec.Seccomp(profile, sp)
	if err != nil || f == nil {
		return nil, 0, err
	}
	p := program{}
	if p.code, p.flags, err = b.compile(f); err != nil {
		return nil, 0, err
	}
	if b.programs.byKey == nil || len(b.programs.byKey) >= maxPrograms {
		b.programs.byKey = map[string]program{}
	}
	b.programs.byKey[key] = p
	return p.code, p.flags, nil
}

// profile is the seccomp profile that counts for a container: JSON, spec.Unconfined, or ""
// for the built-in one.
func (b *Builder) profile(h *container.HostConfig) (string, error) {
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	switch {
	case err != nil:
		return "", err
	case sec.Seccomp != "":
		return sec.Seccomp, nil
	case h.Privileged:
		return spec.Unconfined, nil
	}
	return b.cfg.SeccompProfile, nil
}
