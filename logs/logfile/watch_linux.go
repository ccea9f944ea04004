package logfile

import (
	"os"

	"golang.org/x/sys/unix"
)

// watcher tells of changes in the log's directory.
type watcher struct {
	f  *os.File
	ch chan struct{}
}

func watch(dir string) *watcher {
	fd, err := unix.InotifyInit1(unix.IN_NONBLOCK | unix.IN_CLOEXEC)
	if err != nil {
		return &watcher{} // out of instances: looking every second has to do
	}
	w := &watcher{f: os.NewFile(uintptr(fd), "inotify"), ch: make(chan struct{}, 1)}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MODIFY|unix.IN_MOVED_TO|unix.IN_CREATE); err != nil {
		w.f.Close()
		return &watcher{}
	}
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := w.f.Read(buf); err != nil {
				return
			}
			select {
			case w.ch <- struct{}{}:
			default:
			}
		}
	}()
	return w
}

func (w *watcher) close() {
	if w.f != nil {
		w.f.Close()
	}
}
