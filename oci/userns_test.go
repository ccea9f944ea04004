package oci_test

import (
	"os"
	"path/filepath"
	"testing"

	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// TestUserNamespace: root in the container is an ordinary user of the host.
func TestUserNamespace(t *testing.T) {
	root := newRootfs(t)
	must(t, filepath.Walk(root, func(p string, _ os.FileInfo, err error) error {
		if err != nil {
			return err
		}
		return os.Lchown(p, 100000, 100000)
	}))
	for d := filepath.Dir(root); d != "/tmp" && d != "/"; d = filepath.Dir(d) {
		must(t, os.Chmod(d, 0o755))
	}
	b := newBox(root, "sh", "-c", "id -u; cat /proc/self/uid_map; echo x >/dev/null && echo null; touch /mine && stat -c %u /mine; hostname")
	l := b.opts.Spec.Linux
	l.Namespaces = append(l.Namespaces, specs.LinuxNamespace{Type: specs.UserNamespace})
	l.UIDMappings = []specs.LinuxIDMapping{{ContainerID: 0, HostID: 100000, Size: 65536}}
	l.GIDMappings = l.UIDMappings
	out, code := b.run(t)
	if want := "0\n         0     100000      65536\nnull\n0\nbox\n"; out != want || code != 0 {
		t.Errorf("%q %d", out, code)
	}
}
