package subnets

import (
	"net/netip"
	"strings"
	"testing"
)

// What the default bridge gets by what it has and what the configuration says, as Docker's
// daemon decides.
func TestDefaultBridge(t *testing.T) {
	for _, c := range []struct {
		name, have, bip, fixed string
		theirs                 bool
		want                   string // subnet, range, gateway shown, the bridge's own address
	}{
		{name: "nothing"},
		{name: "fixed alone", fixed: "192.168.176.0/24", want: "192.168.176.0/24 192.168.176.0/24 - 192.168.176.1/24"},
		{name: "bip alone", bip: "192.168.176.88/24", want: "192.168.176.0/24 - 192.168.176.88 192.168.176.88/24"},
		{name: "what is there", have: "192.168.176.88/24", want: "192.168.176.0/24 - 192.168.176.88 192.168.176.88/24"},
		{name: "fixed in the old subnet", have: "192.168.176.88/20", fixed: "192.168.176.0/24", want: "192.168.176.0/20 192.168.176.0/24 192.168.176.88 192.168.176.88/20"},
		{name: "and a new bip", have: "192.168.176.88/20", fixed: "192.168.176.0/24", bip: "192.168.176.99/24", want: "192.168.176.0/24 192.168.176.0/24 192.168.176.99 192.168.176.99/24"},
		{name: "the old subnet in fixed", have: "192.168.176.88/24", fixed: "192.168.176.0/20", want: "192.168.176.0/20 192.168.176.0/20 192.168.176.88 192.168.176.88/20"},
		{name: "apart", have: "192.168.176.88/24", fixed: "192.168.177.0/24", want: "192.168.177.0/24 192.168.177.0/24 - 192.168.177.1/24"},
		{name: "apart with bip", have: "192.168.176.88/24", fixed: "192.168.177.0/24", bip: "192.168.177.99/24", want: "192.168.177.0/24 192.168.177.0/24 192.168.177.99 192.168.177.99/24"},
		{name: "the second is right", have: "10.0.0.1/8 192.168.177.5/24", fixed: "192.168.177.0/25", want: "192.168.177.0/24 192.168.177.0/25 192.168.177.5 192.168.177.5/24"},
		{name: "their bridge", have: "192.168.160.88/20", fixed: "192.168.161.0/24", theirs: true, want: "192.168.160.0/20 192.168.161.0/24 192.168.160.88 192.168.160.88/20"},
		{name: "their bridge, apart", have: "192.168.176.88/24", fixed: "192.168.177.0/24", theirs: true, want: "192.168.176.0/24 192.168.177.0/24 192.168.176.88 192.168.176.88/24"},
		{name: "fixed6 alone", fixed: "fdd1:8161::/64", have: "fe80::1/64 192.168.1.1/24", want: "fdd1:8161::/64 fdd1:8161::/64 - fdd1:8161::1/64"},
		{name: "bip6", bip: "fdd1:8161::8888/64", want: "fdd1:8161::/64 - fdd1:8161::8888 fdd1:8161::8888/64"},
		{name: "IPv6 there", have: "fe80::1/64 fdd1:8161::8888/64", want: "fdd1:8161::/64 - fdd1:8161::8888 fdd1:8161::8888/64"},
		{name: "link-local wanted", have: "fe80::5/64", fixed: "fe80::/64", want: "fe80::/64 fe80::/64 fe80::5 fe80::5/64"},
		{name: "link-local alone", have: "fe80::5/64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have []netip.Prefix
			for _, s := range strings.Fields(c.have) {
				have = append(have, netip.MustParsePrefix(s))
			}
			prefix := func(s string) (p netip.Prefix) {
				if s != "" {
					p = netip.MustParsePrefix(s)
				}
				return p
			}
			v6 := strings.Contains(c.have+c.bip+c.fixed, "::")
			conf, own, ok := choose(have, prefix(c.bip), prefix(c.fixed), !c.theirs, v6)
			got := ""
			if ok {
				got = strings.ReplaceAll(strings.ReplaceAll(strings.Join([]string{conf.Subnet.String(), conf.IPRange.String(), conf.Gateway.String(), own.String()}, " "), "invalid Prefix", "-"), "invalid IP", "-")
			}
			if got != c.want {
				t.Errorf("%s: %q, want %q", c.name, got, c.want)
			}
		})
	}
}
