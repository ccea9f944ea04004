package e2e

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/gantry/gantry/engine/volume/driver/drivertest"
	"golang.org/x/sys/unix"
)

// volpluginMain: volplugin SOCKET DIR serves a volume driver that keeps its volumes in DIR, until
// it is interrupted.
func volpluginMain() {
	if err := serveVolumes(os.Args[1], os.Args[2]); err != nil {
		die("volplugin", err)
	}
}

func serveVolumes(path, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	// One that was killed leaves its socket.
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: drivertest.NewPlugin(dir), ReadHeaderTimeout: time.Minute}
	end := make(chan os.Signal, 1)
	signal.Notify(end, os.Interrupt, unix.SIGTERM)
	go func() {
		<-end
		s.Close()
	}()
	if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// pluginplaceMain: pluginplace DIR PROGRAM ARGS… becomes PROGRAM in a mount namespace in which
// /run/docker/plugins is DIR, so that the daemons of other scripts do not see its plugins.
func pluginplaceMain() {
	runtime.LockOSThread()
	if err := os.MkdirAll(pluginPlace, 0o755); err != nil {
		die("pluginplace", err)
	}
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		die("pluginplace", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_SLAVE|unix.MS_REC, ""); err != nil {
		die("pluginplace", err)
	}
	dir, err := filepath.Abs(os.Args[1])
	if err == nil {
		err = unix.Mount(dir, pluginPlace, "", unix.MS_BIND, "")
	}
	if err == nil {
		err = syscall.Exec(os.Args[2], os.Args[2:], os.Environ())
	}
	die("pluginplace", err)
}

// pluginPlace is where daemons look for sockets of plugins.
const pluginPlace = "/run/docker/plugins"
