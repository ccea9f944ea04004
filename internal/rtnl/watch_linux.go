package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"

	"golang.org/x/sys/unix"
)

// BridgeWatcher knows the names of the bridges that are not in Group, as they come and go.
type BridgeWatcher struct {
	f    *os.File
	nl   *Conn
	done chan struct{}
}

// WatchBridges calls changed with the names of all foreign bridges of the calling thread's
// network namespace: once before it returns, then from one goroutine after every change.
// The kernel filters the events: links of other kinds, and bridges in Group, wake nobody.
// nl stays the caller's and must work until Close.
func WatchBridges(nl *Conn, changed func(names map[int]string)) (*BridgeWatcher, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("watching bridges: %w", err)
	}
	w := &BridgeWatcher{f: os.NewFile(uintptr(fd), "link events"), nl: nl, done: make(chan struct{})}
	filter := foreignBridges()
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]})
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: unix.RTMGRP_LINK})
	}
	var names map[int]string
	if err == nil {
		names, err = w.list()
	}
	if err != nil {
		w.f.Close()
		return nil, fmt.Errorf("watching bridges: %w", err)
	}
	changed(maps.Clone(names))
	go w.run(names, changed)
	return w, nil
}

// Close ends the watch and waits for a call that runs.
func (w *BridgeWatcher) Close() error {
	err := w.f.Close()
	<-w.done
	return err
}

func (w *BridgeWatcher) list() (map[int]string, error) {
	links, err := w.nl.Links(0)
	if err != nil {
		return nil, err
	}
	names := map[int]string{}
	for _, l := range links {
		if l.Kind == KindBridge && l.Group != Group {
			names[l.Index] = l.Name
		}
	}
	return names, nil
}

func (w *BridgeWatcher) run(names map[int]string, changed func(map[int]string)) {
	defer close(w.done)
	buf := make([]byte, 32<<10)
	for {
		n, err := w.f.Read(buf)
		old := maps.Clone(names)
		switch {
		case err == nil:
			follow(names, buf[:n])
		case errors.Is(err, unix.ENOBUFS):
			// Events were lost: what is there now is what counts.
			if now, err := w.list(); err == nil {
				names = now
			}
		default:
			return
		}
		if !maps.Equal(old, names) {
			changed(maps.Clone(names))
		}
	}
}

// follow enters a datagram of link events. Only the kernel can send to the group.
func follow(names map[int]string, b []byte) {
	for len(b) >= unix.NLMSG_HDRLEN {
		l := int(binary.NativeEndian.Uint32(b))
		if l < unix.NLMSG_HDRLEN || l > len(b) {
			return
		}
		m := Reply{Type: binary.NativeEndian.Uint16(b[4:]), Data: b[unix.NLMSG_HDRLEN:l]}
		if link, ok := ParseLink(m); ok && link.Kind == KindBridge && link.Group != Group {
			names[link.Index] = link.Name
		} else if m.Type == unix.RTM_DELLINK && len(m.Data) >= unix.SizeofIfInfomsg {
			// The family tells a link from a bridge's port, whose end is told under its name.
			if m.Data[0] == unix.AF_UNSPEC {
				delete(names, int(binary.NativeEndian.Uint32(m.Data[4:])))
			}
		}
		b = b[min(align(l), len(b)):]
	}
}

// foreignBridges is a filter that lets events of bridges outside Group pass
// (Documentation/networking/filter.rst: SKF_AD_NLATTR finds an attribute from the offset in
// A, of the type in X; SKF_AD_NLATTR_NEST looks inside one). A foreign bridge that somebody
// puts into Group later stays known as foreign.
func foreignBridges() []unix.SockFilter {
	const (
		ld, ldx    = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_LDX | unix.BPF_W | unix.BPF_IMM
		ldi, ldInd = unix.BPF_LD | unix.BPF_W | unix.BPF_IMM, unix.BPF_LD | unix.BPF_W | unix.BPF_IND
		jeq, tax   = unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, unix.BPF_MISC | unix.BPF_TAX
		ret        = unix.BPF_RET | unix.BPF_K
		first      = unix.NLMSG_HDRLEN + unix.SizeofIfInfomsg
		extra      = 1<<32 - 0x1000 // SKF_AD_OFF
		attr, nest = extra + 12, extra + 16
	)
	var group, kind [4]byte
	binary.NativeEndian.PutUint32(group[:], Group)
	copy(kind[:], "brid")
	return []unix.SockFilter{
		{Code: ldi, K: first},
		{Code: ldx, K: unix.IFLA_LINKINFO},
		{Code: ld, K: attr},
		{Code: jeq, K: 0, Jt: 13},
		{Code: ldx, K: unix.IFLA_INFO_KIND},
		{Code: ld, K: nest},
		{Code: jeq, K: 0, Jt: 10},
		{Code: tax},
		{Code: ldInd, K: 4},
		{Code: jeq, K: binary.BigEndian.Uint32(kind[:]), Jf: 7},
		{Code: ldi, K: first},
		{Code: ldx, K: unix.IFLA_GROUP},
		{Code: ld, K: attr},
		{Code: jeq, K: 0, Jt: 4},
		{Code: tax},
		{Code: ldInd, K: 4},
		{Code: jeq, K: binary.BigEndian.Uint32(group[:]), Jf: 1},
		{Code: ret, K: 0},
		{Code: ret, K: 1<<32 - 1},
	}
}
