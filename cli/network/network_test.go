package network_test

import (
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

func TestNetwork(t *testing.T) {
	clitest.Golden(t, "network.golden", append(clitest.Lines(`
network
network ls
network list
network ls -q
network ls --no-trunc
network ls -q --no-trunc
network ls -f driver=bridge -f name=a -f name=b
network ls -f bad
network ls --format json
network ls --format table
network ls --format 'table {{.Name}}\t{{.CreatedAt}}'
network ls --format 'table {{.ID}}' -q
network ls --format '{{.ID}} {{.Name}} {{.Driver}} {{.Scope}} {{.IPv4}} {{.IPv6}} {{.Internal}} {{.Labels}} {{.Label "l"}}'
network ls --format {{.Nope}}
network ls --format {{
network ls extra
network create net
network create -d macvlan -o parent=eth0 -o k net
network create --subnet 10.1.0.0/16 --gateway 10.1.0.1 --ip-range 10.1.2.0/24 --aux-address a=10.1.0.9 --aux-address b=10.1.0.8 net
network create --subnet 10.1.0.0/16 --subnet fd00::/64 --gateway fd00::1 --gateway 10.1.0.1 --ipv6 net
network create --subnet 10.1.0.0/16,10.2.0.0/16 net
network create --label x=y --label z --internal --attachable --ingress --scope local net
network create --label =y net
network create --ipv4=false --ipv6 net
network create --config-only --subnet 10.0.0.0/8 net
network create --config-from other net
network create --ipam-driver d --ipam-opt a=b net
network create --gateway 10.1.0.1 net
network create --ip-range 10.1.0.0/24 net
network create --subnet 10.1.0.0/16 --subnet 10.1.2.0/24 net
network create --subnet 10.1.0.0/16 --gateway 10.2.0.1 net
network create --subnet 10.1.0.0/16 --ip-range 10.2.0.0/24 net
network create --subnet 10.1.0.0/16 --aux-address a=10.2.0.1 net
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --gateway 10.1.0.1 --gateway 10.1.0.2 net
network create --subnet 10.1.0.0/16 --subnet 10.2.0.0/16 --ip-range 10.1.1.0/24 --ip-range 10.1.2.0/24 net
network create
network create a b
network rm n1
network rm n1 n2
network remove n1
network rm none1
network rm none1 n2
network rm -f none1
network rm -f none1 n2
network rm
network inspect bridge
network inspect -v bridge
network inspect bridge host
network inspect -f '{{.Name}} {{.Driver}}' bridge host
network inspect -f json bridge
network inspect none1
network inspect none1 bridge
network inspect
network connect n c
network connect --ip 10.0.0.2 --ip6 fd00::2 --link-local-ip 169.254.0.1 n c
network connect --alias a --alias b,c --link x:y --link z n c
network connect --driver-opt K=V --driver-opt 'a= b' --gw-priority -3 n c
network connect --driver-opt bad n c
network connect --gw-priority x n c
network connect none1 c
network connect n
network disconnect n c
network disconnect -f n c
network disconnect none1 c
network disconnect
network prune -f
network prune -f --filter until=24h --filter label!=x
network prune extra
network nosuch
`),
		clitest.Line{Args: "network ls", Name: "none", Engine: func(e *clitest.Engine) { e.Answer("GET /networks", 200, "[]") }},
		clitest.Line{Args: "network ls", Name: "networksFormat", Config: `{"networksFormat":"{{.Name}}={{.Driver}}"}`},
		clitest.Line{Args: "network ls -q", Name: "networksFormat", Config: `{"networksFormat":"{{.Name}}"}`},
		clitest.Line{Args: "network ls", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("GET /networks", 500, "it broke") }},
		clitest.Line{Args: "network create net", Name: "warning", Engine: func(e *clitest.Engine) {
			e.Answer("POST /networks/create", 201, `{"Id":"net1","Warning":"a warning"}`)
		}},
		clitest.Line{Args: "network create net", Name: "conflict", Engine: func(e *clitest.Engine) {
			e.Answer("POST /networks/create", 409, "network with name net already exists")
		}},
		clitest.Line{Args: "network prune", Name: "yes", Stdin: "y\n"},
		clitest.Line{Args: "network prune", Name: "no", Stdin: "\n"},
		clitest.Line{Args: "network prune -f", Name: "nothing", Engine: func(e *clitest.Engine) {
			e.Answer("POST /networks/prune", 200, `{"NetworksDeleted":null}`)
		}},
		clitest.Line{Args: "network rm n1", Name: "in use", Engine: func(e *clitest.Engine) {
			e.Answer("DELETE /networks/n1", 403, "error while removing network: network n1 has active endpoints")
		}},
	))
}
