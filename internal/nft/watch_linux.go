package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// settle is how long changes must rest before Watch calls back: a reload of somebody's
// firewall comes as many messages.
const settle = 100 * time.Millisecond

// Watcher tells when somebody removes tables, chains, rules or sets.
type Watcher struct {
	f    *os.File
	done chan struct{}
}

// Watch calls changed, from one goroutine, after something was removed from nf_tables
// in the network namespace of the calling thread; also when messages were lost.
func Watch(changed func()) (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	w := &Watcher{f: os.NewFile(uintptr(fd), "nftables events"), done: make(chan struct{})}
	go w.run(changed)
	return w, nil
}

// Close ends the watch and waits for a call that runs.
func (w *Watcher) Close() error {
	err := w.f.Close()
	<-w.done
	return err
}

func (w *Watcher) run(changed func()) {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	pending := false
	for {
		deadline := time.Time{}
		if pending {
			deadline = time.Now().Add(settle)
		}
		w.f.SetReadDeadline(deadline)
		n, err := w.f.Read(buf)
		switch {
		case err == nil:
			pending = pending || removes(buf[:n])
		case errors.Is(err, os.ErrDeadlineExceeded):
			pending = false
			changed()
		case errors.Is(err, unix.ENOBUFS):
			pending = true
		default:
			return
		}
	}
}

// removes tells whether a datagram of nf_tables notifications removes anything but
// elements of sets.
func removes(b []byte) bool {
	for len(b) >= unix.NLMSG_HDRLEN {
		l := int(binary.NativeEndian.Uint32(b))
		if l < unix.NLMSG_HDRLEN || l > len(b) {
			return false
		}
		switch binary.NativeEndian.Uint16(b[4:]) & 0xff {
		case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_DELCHAIN, unix.NFT_MSG_DELRULE, unix.NFT_MSG_DELSET:
			return true
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return false
}
