package network

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

var systemdStub = netip.AddrFrom4([4]byte{127, 0, 0, 53})

// readResolvConf reads the host's resolver configuration; a missing file says nothing.
func (s *Service) readResolvConf() (resolvConf, error) {
	path := s.cfg.ResolvConf
	if path == "" {
		path = "/etc/resolv.conf"
	}
	data, err := readBounded(path)
	if errors.Is(err, os.ErrNotExist) {
		return resolvConf{}, nil
	}
	if err != nil {
		return resolvConf{}, err
	}
	rc := parseResolvConf(data)
	if s.cfg.ResolvConf == "" && slices.Equal(rc.servers, []netip.Addr{systemdStub}) {
		if data, err := readBounded(systemdResolv); err == nil {
			return parseResolvConf(data), nil
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
