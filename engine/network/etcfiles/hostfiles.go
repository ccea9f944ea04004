package etcfiles

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"slices"
)

// maxHostFile bounds what is read of the host's resolv.conf and hosts.
const maxHostFile = 1 << 20

// systemdStub and systemdResolv are systemd-resolved's own resolver, which only the
// host reaches, and the file with the real ones.
const systemdResolv = "/run/systemd/resolve/resolv.conf"

func systemdStub() netip.Addr { return netip.AddrFrom4([4]byte{127, 0, 0, 53}) }

// ReadResolvConf reads the host's resolver configuration from file ("": /etc/resolv.conf,
// or systemd-resolved's when that names only its stub); a missing file says nothing.
func ReadResolvConf(file string) (ResolvConf, error) {
	path := file
	if path == "" {
		path = "/etc/resolv.conf"
	}
	data, err := readBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		return ResolvConf{path: path}, nil
	}
	if err != nil {
		return ResolvConf{}, err
	}
	rc := ParseResolvConf(path, data)
	if file == "" && slices.Equal(rc.Servers, []netip.Addr{systemdStub()}) {
		if data, err := readBounded(systemdResolv); err == nil {
			return ParseResolvConf(systemdResolv, data), nil
		}
	}
	return rc, nil
}

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxHostFile+1))
	if err == nil && len(data) > maxHostFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxHostFile)
	}
	return data, err
}

// Host returns the files of a container that uses the host's network. With lines of its
// own its hosts file is not the host's: else it could not put others in place of those
// there.
func Host(rc ResolvConf, extra []HostLine) (resolv, hosts []byte, err error) {
	if len(extra) > 0 {
		return rc.Render(), RenderHosts(true, extra, nil), nil
	}
	hosts, err = readBounded("/etc/hosts")
	if errors.Is(err, os.ErrNotExist) {
		hosts, err = RenderHosts(true, nil, nil), nil
	}
	return rc.Render(), hosts, err
}
