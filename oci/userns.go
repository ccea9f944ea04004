package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// maxMappings is the kernel's limit for one map (user_namespaces(7)).
const maxMappings = 340

// checkMappings proves that a list of mappings can be one, before anything is made.
func checkMappings(what string, in []specs.LinuxIDMapping) error {
	if len(in) > maxMappings {
		return errclass.Invalid("%s: %d mappings are more than the kernel's %d", what, len(in), maxMappings)
	}
	for _, m := range in {
		const end = 1<<32 - 1
		if m.Size == 0 || uint64(m.ContainerID)+uint64(m.Size) > end || uint64(m.HostID)+uint64(m.Size) > end {
			return errclass.Invalid("%s: %d %d %d is no range of ids", what, m.ContainerID, m.HostID, m.Size)
		}
	}
	return nil
}

// mapsRoot tells whether somebody is root inside.
func mapsRoot(in []specs.LinuxIDMapping) bool {
	for _, m := range in {
		if m.ContainerID == 0 {
			return true
		}
	}
	return false
}

func idMaps(in []specs.LinuxIDMapping) []syscall.SysProcIDMap {
	var out []syscall.SysProcIDMap
	for _, m := range in {
		out = append(out, syscall.SysProcIDMap{ContainerID: int(m.ContainerID), HostID: int(m.HostID), Size: int(m.Size)})
	}
	return out
}

// mayMapIDs tells whether this process itself may write any mapping.
func mayMapIDs() bool {
	const need = 1<<unix.CAP_SETUID | 1<<unix.CAP_SETGID
	return caps.Held()&need == need
}

// single tells whether a mapping is the one that everybody may write: of one's
// own id alone.
func single(in []specs.LinuxIDMapping, own int) bool {
	return len(in) == 1 && in[0].Size == 1 && int64(in[0].HostID) == int64(own)
}

// writeMaps gives the namespace that pid was born in its mappings; for a caller
// without the capability by the set-user-id programs that look into /etc/subuid,
// or, when only the caller's own ids are mapped, by itself.
func writeMaps(pid int, uids, gids []specs.LinuxIDMapping) error {
	if single(gids, os.Getegid()) && !mayMapIDs() {
		// Who may not set groups may map his group alone (user_namespaces(7)).
		if err := writeProc(pid, "setgroups", "deny"); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("deny setgroups: %w", err)
		}
	}
	for _, x := range [...]struct {
		file, tool string
		maps       []specs.LinuxIDMapping
		own        int
	}{{"gid_map", "newgidmap", gids, os.Getegid()}, {"uid_map", "newuidmap", uids, os.Geteuid()}} {
		if mayMapIDs() {
			text := ""
			for _, m := range x.maps {
				text += fmt.Sprintf("%d %d %d\n", m.ContainerID, m.HostID, m.Size)
			}
			if err := writeProc(pid, x.file, text); err != nil {
				return errclass.Invalid("write %s: %w", x.file, err)
			}
			continue
		}
		if single(x.maps, x.own) {
			if err := writeProc(pid, x.file, fmt.Sprintf("%d %d 1\n", x.maps[0].ContainerID, x.maps[0].HostID)); err != nil {
				return fmt.Errorf("write %s: %w", x.file, err)
			}
			continue
		}
		tool, err := exec.LookPath(x.tool)
		if err != nil {
			return errclass.Invalid("mapping more than one's own id needs %s (package uidmap) or root", x.tool)
		}
		args := []string{strconv.Itoa(pid)}
		for _, m := range x.maps {
			args = append(args, strconv.FormatUint(uint64(m.ContainerID), 10), strconv.FormatUint(uint64(m.HostID), 10), strconv.FormatUint(uint64(m.Size), 10))
		}
		cmd := exec.Command(tool, args...)
		cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
		if out, err := cmd.CombinedOutput(); err != nil {
			return errclass.Invalid("%s: %w: %s", x.tool, err, strings.TrimSpace(string(out[:min(len(out), 512)])))
		}
	}
	return nil
}

func writeProc(pid int, file, value string) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/%s", pid, file), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteString(value)
	return err
}

// newUser plans a user namespace of the container's own.
func (s *starting) newUser(l *specs.Linux, m *initmsg.Message, so *spawnOpts) error {
	if err := checkMappings("uidMappings", l.UIDMappings); err != nil {
		return err
	}
	if err := checkMappings("gidMappings", l.GIDMappings); err != nil {
		return err
	}
	if len(l.UIDMappings) == 0 || len(l.GIDMappings) == 0 {
		return errclass.Invalid("user namespaces enabled, but no uid or gid mappings found")
	}
	if !mapsRoot(l.UIDMappings) || !mapsRoot(l.GIDMappings) {
		return errclass.Invalid("user namespace: no mapping of the container's root (containerID 0)")
	}
	if mayMapIDs() {
		so.uids, so.gids = idMaps(l.UIDMappings), idMaps(l.GIDMappings)
		return nil
	}
	m.TakeRoot = true
	m.Process.NoGroups = single(l.GIDMappings, os.Getegid())
	if m.Process.NoGroups && len(m.Process.Groups) != 0 {
		return errclass.Invalid("cannot set any additional groups in a rootless container with a single mapping")
	}
	s.maps = func(pid int) error { return writeMaps(pid, l.UIDMappings, l.GIDMappings) }
	return nil
}

// userNamespace makes a user namespace with these mappings, in which no process
// stays.
func userNamespace(uids, gids []specs.LinuxIDMapping) (*os.File, error) {
	so := &spawnOpts{flags: unix.CLONE_NEWUSER, bare: true}
	if mayMapIDs() {
		so.uids, so.gids = idMaps(uids), idMaps(gids)
	}
	c, err := spawn(context.Background(), so)
	if err != nil {
		return nil, fmt.Errorf("make user namespace: %w", err)
	}
	defer c.kill()
	if so.uids == nil {
		if err := writeMaps(c.pid, uids, gids); err != nil {
			return nil, err
		}
	}
	return os.Open(fmt.Sprintf("/proc/%d/ns/user", c.pid))
}
