package firewall

import (
	"errors"

	"github.com/gantry/gantry/internal/nft"
	"golang.org/x/sys/unix"
)

// RemoveLeft removes the table of an earlier daemon, in the calling thread's network
// namespace, where the firewall is switched off now: nobody would keep it right. What the
// user put into it stays. A kernel without nftables has none.
func RemoveLeft() error {
	c, err := nft.Dial()
	if errors.Is(err, unix.EPROTONOSUPPORT) {
		return nil
	}
	if err != nil {
		return err
	}
	return errors.Join(c.Clear(Table, UserChain), c.Close())
}
