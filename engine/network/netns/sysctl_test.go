package netns

import (
	"reflect"
	"testing"
)

func TestEndpointSysctls(t *testing.T) {
	got, err := ParseEndpointSysctls("net.ipv4.conf.ifname.log_martians=1, net.ipv6.neigh.IFNAME.gc_stale_time=5", "eth0")
	if want := [][2]string{{"net/ipv4/conf/eth0/log_martians", "1"}, {"net/ipv6/neigh/eth0/gc_stale_time", "5"}}; err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%v %v", got, err)
	}
	for _, bad := range []string{"x=1", "net.ipv4.conf.eth0.log_martians=1", "net.ipv4.conf.IFNAME./../../kernel/core_pattern=|x", "net.ipv4.ip_forward=1", "net.ipv4.conf.IFNAME.x"} {
		t.Run(bad, func(t *testing.T) {
			if _, err := ParseEndpointSysctls(bad, "eth0"); err == nil {
				t.Errorf("%q was taken", bad)
			}
		})
	}
}
