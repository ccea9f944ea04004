package oci_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/gantry/gantry/oci"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// cpuTime is the CPU time of this process and its reaped children.
func cpuTime() time.Duration {
	var a, b syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &a)
	_ = syscall.Getrusage(syscall.RUSAGE_CHILDREN, &b)
	return time.Duration(a.Utime.Nano() + a.Stime.Nano() + b.Utime.Nano() + b.Stime.Nano())
}

// withCPU runs f b.N times and reports CPU milliseconds per operation.
func withCPU(b *testing.B, f func()) {
	b.ReportAllocs()
	start := cpuTime()
	for b.Loop() {
		f()
	}
	b.ReportMetric(float64(cpuTime()-start)/1e6/float64(b.N), "cpu-ms/op")
}

func BenchmarkRunTrue(b *testing.B) {
	root := newRootfs(b)
	run := func(b *testing.B, opts func(*box)) {
		withCPU(b, func() {
			x := newBox(root, "true")
			opts(x)
			p, err := oci.Create(context.Background(), &x.opts)
			must(b, err)
			if code := wait(b, p); code != 0 {
				b.Fatalf("status %d", code)
			}
			must(b, oci.DeleteCgroup(p.Cgroup))
		})
	}
	b.Run("path", func(b *testing.B) { run(b, func(*box) {}) })
	b.Run("init", func(b *testing.B) { run(b, func(x *box) { x.opts.Fresh = true }) })
	b.Run("overlay", func(b *testing.B) {
		dir := b.TempDir()
		upper, work := filepath.Join(dir, "upper"), filepath.Join(dir, "work")
		must(b, os.Mkdir(upper, 0o755))
		must(b, os.Mkdir(work, 0o755))
		run(b, func(x *box) {
			x.opts.Rootfs = oci.Rootfs{Overlay: &oci.Overlay{Lower: []string{root}, Upper: upper, Work: work}}
		})
	})
	b.Run("hostnet", func(b *testing.B) {
		run(b, func(x *box) {
			l := x.opts.Spec.Linux
			for i, ns := range l.Namespaces {
				if ns.Type == specs.NetworkNamespace {
					l.Namespaces = append(l.Namespaces[:i:i], l.Namespaces[i+1:]...)
					break
				}
			}
		})
	})
}

func BenchmarkExec(b *testing.B) {
	root := newRootfs(b)
	x := newBox(root, "sleep", "1000")
	p, err := oci.Create(context.Background(), &x.opts)
	must(b, err)
	defer func() {
		must(b, oci.KillAll(p.Cgroup, syscall.SIGKILL))
		wait(b, p)
		must(b, oci.DeleteCgroup(p.Cgroup))
	}()
	env := append([]string{"HOME=/root"}, x.opts.Spec.Process.Env...)
	for _, way := range ways {
		b.Run(way.name, func(b *testing.B) {
			withCPU(b, func() {
				e, err := oci.Exec(context.Background(), &oci.ExecOpts{
					ContainerID: x.opts.ID, Init: p.PidFD, InitPid: p.Pid, Cgroup: p.Cgroup, Fresh: way.fresh,
					Process: &specs.Process{Args: []string{"true"}, Cwd: "/", Env: env, Capabilities: x.opts.Spec.Process.Capabilities},
				})
				must(b, err)
				if oci.SkippedInit(e) == way.fresh && oci.SysprogWorks() {
					b.Fatal("not the way that was asked for")
				}
				if code := wait(b, e); code != 0 {
					b.Fatalf("status %d", code)
				}
			})
		})
	}
}

// BenchmarkBusyboxTrue is the floor: fork and exec of the same program.
func BenchmarkBusyboxTrue(b *testing.B) {
	root := newRootfs(b)
	withCPU(b, func() { must(b, exec.Command(filepath.Join(root, "bin/true")).Run()) })
}
