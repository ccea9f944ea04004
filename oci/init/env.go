package ociinit

import (
	"bytes"
	"strconv"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// maxPasswd bounds how much of an image's /etc/passwd is read.
const maxPasswd = 1 << 20

// environment is the program's.
func environment(r root, p *initmsg.Process) []string {
	return initmsg.Environment(p.Env, func() string { return home(r, p.UID) })
}

// home looks the home directory of uid up in the image's /etc/passwd.
func home(r root, uid uint32) string {
	fd, err := r.open("/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	if err != nil {
		return defaultHome(uid)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
		return defaultHome(uid)
	}
	b := make([]byte, min(st.Size, maxPasswd))
	n, err := unix.Pread(fd, b, 0)
	if err != nil || n < 0 {
		return defaultHome(uid)
	}
	if h := homeIn(b[:n], uid); h != "" {
		return h
	}
	return defaultHome(uid)
}

func defaultHome(uid uint32) string {
	if uid == 0 {
		return "/root"
	}
	return "/"
}

// homeIn finds the sixth field of the first line whose third is uid.
func homeIn(passwd []byte, uid uint32) string {
	for len(passwd) > 0 {
		var line []byte
		line, passwd, _ = bytes.Cut(passwd, []byte{'\n'})
		f := bytes.SplitN(line, []byte{':'}, 8)
		if len(f) < 6 {
			continue
		}
		if id, err := strconv.ParseUint(string(f[2]), 10, 32); err == nil && uint32(id) == uid {
			return string(f[5])
		}
	}
	return ""
}
