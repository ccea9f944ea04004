package links

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	networktypes "github.com/moby/moby/api/types/network"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, name, alias, err string }{
		{"db:a", "db", "a", ""},
		{"db", "db", "db", ""},
		{"/db:/web/a", "db", "a", ""},
		{"", "", "", "empty string specified for links"},
		{"a:b:c", "", "", "bad format for links: a:b:c"},
	} {
		t.Run(c.name, func(t *testing.T) {
			name, alias, err := Parse(c.in)
			if err != nil && err.Error() != c.err || err == nil && c.err != "" || name != c.name || alias != c.alias {
				t.Errorf("%q: %q %q %v", c.in, name, alias, err)
			}
		})
	}
}

func TestVars(t *testing.T) {
	ports := networktypes.PortSet{}
	for _, p := range []string{"53/udp", "6002/tcp", "6000/tcp", "6001/tcp", "80/tcp"} {
		ports[networktypes.MustParsePort(p)] = struct{}{}
	}
	got := Vars("/web/my-db", "172.17.0.2", []string{"HOME=/x", "PATH=/y", "PASSWORD=a=b", "bare"}, ports)
	want := strings.Fields(`MY_DB_PORT=tcp://172.17.0.2:80
MY_DB_PORT_80_TCP=tcp://172.17.0.2:80 MY_DB_PORT_80_TCP_ADDR=172.17.0.2 MY_DB_PORT_80_TCP_PORT=80 MY_DB_PORT_80_TCP_PROTO=tcp
MY_DB_PORT_6000_TCP=tcp://172.17.0.2:6000 MY_DB_PORT_6000_TCP_ADDR=172.17.0.2 MY_DB_PORT_6000_TCP_PORT=6000 MY_DB_PORT_6000_TCP_PROTO=tcp
MY_DB_PORT_6001_TCP=tcp://172.17.0.2:6001 MY_DB_PORT_6001_TCP_ADDR=172.17.0.2 MY_DB_PORT_6001_TCP_PORT=6001 MY_DB_PORT_6001_TCP_PROTO=tcp
MY_DB_PORT_6002_TCP=tcp://172.17.0.2:6002 MY_DB_PORT_6002_TCP_ADDR=172.17.0.2 MY_DB_PORT_6002_TCP_PORT=6002 MY_DB_PORT_6002_TCP_PROTO=tcp
MY_DB_PORT_6000_TCP_START=tcp://172.17.0.2:6000 MY_DB_PORT_6000_TCP_PORT_START=6000
MY_DB_PORT_6000_TCP_END=tcp://172.17.0.2:6002 MY_DB_PORT_6000_TCP_PORT_END=6002
MY_DB_PORT_53_UDP=udp://172.17.0.2:53 MY_DB_PORT_53_UDP_ADDR=172.17.0.2 MY_DB_PORT_53_UDP_PORT=53 MY_DB_PORT_53_UDP_PROTO=udp
MY_DB_NAME=/web/my-db MY_DB_ENV_PASSWORD=a=b`)
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if got := Vars("/w/x", "1.2.3.4", nil, nil); !slices.Equal(got, []string{"X_NAME=/w/x"}) {
		t.Errorf("%q", got)
	}
}

func TestReaddress(t *testing.T) {
	in := "127.0.0.1\tlocalhost\n172.17.0.2\tdb abc db1\nfd00::2\tdb abc db1\n172.17.0.9\tdbx abc\n172.17.0.3\tme\nodd"
	a4, a6 := netip.MustParseAddr("172.17.0.7"), netip.Addr{}
	want := "127.0.0.1\tlocalhost\n172.17.0.7\tdb abc db1\nfd00::2\tdb abc db1\n172.17.0.9\tdbx abc\n172.17.0.3\tme\nodd"
	if got := string(Readdress([]byte(in), "db", a4, a6)); got != want {
		t.Errorf("%q", got)
	}
	if got := string(Drop([]byte(in), "db")); got != "127.0.0.1\tlocalhost\n172.17.0.9\tdbx abc\n172.17.0.3\tme\nodd" {
		t.Errorf("%q", got)
	}
}
