package e2e

import (
	"errors"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/gantry/gantry/engine/network/networktest"
	"golang.org/x/sys/unix"
)

// netpluginMain: netplugin NAME serves a network driver in /run/docker/plugins until it is
// interrupted.
func netpluginMain() {
	if err := servePlugin(filepath.Join("/run/docker/plugins", os.Args[1]+".sock")); err != nil {
		die("netplugin", err)
	}
}

func servePlugin(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	p, err := networktest.NewPlugin()
	if err != nil {
		return err
	}
	defer p.Close()
	// One that was killed leaves its socket.
	_ = os.Remove(path)
	l, err := net.Listen("unix", path)
	if err != nil {
		return err
	}
	s := &http.Server{Handler: p, ReadHeaderTimeout: time.Minute}
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
