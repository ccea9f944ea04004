package container

import (
	"strings"
	"sync"

	"github.com/gantry/gantry/engine/container/spec"
	"github.com/moby/moby/api/types/container"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// maxPrograms bounds the cache: containers with profiles of their own may come and go.
const maxPrograms = 32

// seccompCache keeps compiled filters by profile and capabilities, which is all they
// depend on while the kernel stays.
type seccompCache struct {
	mu       sync.Mutex
	programs map[string]program
}

type program struct {
	code  []byte
	flags uint32
}

// filter is the compiled filter for a spec, nil for none. Without a compiler the
// spec's own profile is set for the runtime to compile.
func (s *Service) filter(h *container.HostConfig, sp *specs.Spec) ([]byte, uint32, error) {
	sec, err := spec.ParseSecurity(h.SecurityOpt)
	if err != nil {
		return nil, 0, err
	}
	profile := sec.Seccomp
	if profile == "" {
		profile = s.cfg.SeccompProfile
	}
	if h.Privileged && sec.Seccomp == "" {
		profile = spec.Unconfined
	}
	if profile == spec.Unconfined {
		return nil, 0, nil
	}
	key := profile + "\x00" + strings.Join(sp.Process.Capabilities.Bounding, ",")
	s.seccomp.mu.Lock()
	defer s.seccomp.mu.Unlock()
	if p, ok := s.seccomp.programs[key]; ok && s.deps.Seccomp != nil {
		return p.code, p.flags, nil
	}
	f, err := spec.Seccomp(profile, sp)
	if err != nil || f == nil {
		return nil, 0, err
	}
	if s.deps.Seccomp == nil {
		sp.Linux.Seccomp = f
		return nil, 0, nil
	}
	p := program{}
	if p.code, p.flags, err = s.deps.Seccomp(f); err != nil {
		return nil, 0, err
	}
	if s.seccomp.programs == nil || len(s.seccomp.programs) >= maxPrograms {
		s.seccomp.programs = map[string]program{}
	}
	s.seccomp.programs[key] = p
	return p.code, p.flags, nil
}
