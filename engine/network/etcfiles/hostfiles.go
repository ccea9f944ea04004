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
		return ResolvConf{}, nil
	}
	if err != nil {
		return ResolvConf{}, err
	}
	rc := ParseResolvConf(data)
	if file == "" && slices.Equal(rc.Servers, []netip.Addr{systemdStub()}) {
		if data, err := readBounded(systemdResolv); err == nil {
			return ParseResolvConf(data), nil
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

// Host returns the files of a container that uses the host's network.
func Host(rc ResolvConf, extra []HostLine) (resolv, hosts []byte, err error) {
	hosts, err = readBounded("/etc/hosts")
	if errors.Is(err, os.ErrNotExist) {
		hosts, err = RenderHosts(true, nil, nil), nil
	}
	if err != nil {
		return nil, nil, err
	}
	if len(extra) > 0 {
		if len(hosts) > 0 && hosts[len(hosts)-1] != '\n' {
			hosts = append(hosts, '\n')
		}
		for _, l := range extra {
			hosts = append(hosts, l.Addr.String()+"\t"+l.Names+"\n"...)
		}
	}
	return rc.Render(), hosts, nil
}
