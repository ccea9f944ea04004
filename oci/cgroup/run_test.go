package cgroup

import (
	"os/exec"
	"syscall"
)

// runInCgroup runs a shell command born in the v2 cgroup.
func runInCgroup(cg int, script string) (string, error) {
	cmd := exec.Command("sh", "-c", script)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: cg}
	b, err := cmd.Output()
	return string(b), err
}
