package netns

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
)

// Sysctl writes below /proc/sys in the calling thread's network namespace. The parts
// are ours or checked interface names.
func Sysctl(path, value string) error {
	if err := os.WriteFile("/proc/sys/"+path, []byte(value), 0); err != nil {
		return fmt.Errorf("setting %s: %w", path, err)
	}
	return nil
}

// OptionalSysctl is Sysctl where the kernel may lack the setting.
func OptionalSysctl(path, value string) error {
	if err := Sysctl(path, value); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return nil
}

// NewHostIf is a name for the host's end of a veth pair.
func NewHostIf() string {
	var b [4]byte
	rand.Read(b[:])
	return "veth" + hex.EncodeToString(b[:])[:7]
}

// RandomMAC is a locally administered unicast address.
func RandomMAC() net.HardwareAddr {
	m := make(net.HardwareAddr, 6)
	rand.Read(m)
	m[0] = m[0]&^1 | 2
	return m
}
