package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// How often Watch calls back: at once after a change in quiet times, then with a pause
// that doubles as long as changes go on, so that two programs which both insist on a
// table do not eat the machine.
const (
	firstPause = 100 * time.Millisecond
	maxPause   = time.Second
	quiet      = 10 * time.Second
)

// Watcher tells when somebody else changes a table.
type Watcher struct {
	f    *os.File
	own  uint32 // port of the connection that is ours
	r    Ruleset
	done chan struct{}
}

// Watch calls changed, from one goroutine, after somebody else than c changed a table
// of r's name: removed anything of it, or changed rules of a chain that is not the
// user's; also when messages were lost. When changed fails it is called again after a
// pause. Close the Watcher.
func (c *Conn) Watch(r Ruleset, changed func() error) (*Watcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1 << (unix.NFNLGRP_NFTABLES - 1)}); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("watching nftables: %w", err)
	}
	w := &Watcher{f: os.NewFile(uintptr(fd), "nftables events"), own: c.port, r: r, done: make(chan struct{})}
	go w.run(changed)
	return w, nil
}

// Close ends the watch and waits for a call that runs.
func (w *Watcher) Close() error {
	err := w.f.Close()
	<-w.done
	return err
}

func (w *Watcher) run(changed func() error) {
	defer close(w.done)
	buf := make([]byte, 64<<10)
	var due, last time.Time // due is zero when nothing is to be done
	pause := firstPause
	soon := func() {
		if due.IsZero() {
			due = last.Add(pause)
		}
	}
	for {
		_ = w.f.SetReadDeadline(due) // sockets in the poller take one
		n, err := w.f.Read(buf)
		switch {
		case err == nil:
			if w.foreign(buf[:n]) {
				soon()
			}
		case errors.Is(err, os.ErrDeadlineExceeded):
			pause = min(pause*2, maxPause)
			if time.Since(last) > quiet {
				pause = firstPause
			}
			err := changed()
			due, last = time.Time{}, time.Now()
			if err != nil {
				soon()
			}
		case errors.Is(err, unix.ENOBUFS):
			soon()
		default:
			return
		}
	}
}

// foreign tells whether a datagram of nf_tables notifications has a change of our table
// that we did not make.
func (w *Watcher) foreign(b []byte) bool {
	for len(b) >= unix.NLMSG_HDRLEN {
		l := int(binary.NativeEndian.Uint32(b))
		if l < unix.NLMSG_HDRLEN || l > len(b) {
			return true // not understood: look
		}
		typ, port := binary.NativeEndian.Uint16(b[4:]), binary.NativeEndian.Uint32(b[12:])
		if port != w.own && typ>>8 == unix.NFNL_SUBSYS_NFTABLES && w.concerns(typ&0xff, b[unix.NLMSG_HDRLEN:l]) {
			return true
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return false
}

// concerns tells whether one notification is about what is ours.
func (w *Watcher) concerns(typ uint16, body []byte) bool {
	named := uint16(0) // the attribute that names the object of the table
	switch typ {
	case unix.NFT_MSG_DELTABLE, unix.NFT_MSG_NEWTABLE: // a new one may be dormant
	case unix.NFT_MSG_NEWRULE, unix.NFT_MSG_DELRULE:
		named = unix.NFTA_RULE_CHAIN
	case unix.NFT_MSG_DELCHAIN:
		named = unix.NFTA_CHAIN_NAME
	case unix.NFT_MSG_DELSET:
		named = unix.NFTA_SET_NAME
	case unix.NFT_MSG_DELSETELEM:
		named = unix.NFTA_SET_ELEM_LIST_SET
	default:
		return false
	}
	if len(body) < 4 || body[0] != unix.NFPROTO_INET {
		return false
	}
	// The table's name is the first attribute of all of them.
	if stringAttr(body[4:], 1) != w.r.Table {
		return false
	}
	return named == 0 || !w.r.theirs(stringAttr(body[4:], named))
}

// stringAttr finds one attribute and returns it without its final zero.
func stringAttr(b []byte, want uint16) string {
	for len(b) >= unix.SizeofNlAttr {
		l := int(binary.NativeEndian.Uint16(b))
		if l < unix.SizeofNlAttr || l > len(b) {
			return ""
		}
		if binary.NativeEndian.Uint16(b[2:])&0x3fff == want {
			return strings.TrimRight(string(b[unix.SizeofNlAttr:l]), "\x00")
		}
		b = b[min((l+3)&^3, len(b)):]
	}
	return ""
}
