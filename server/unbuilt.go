package server

import (
	"strings"

	"github.com/gantry/gantry/internal/errclass"
)

// unbuilt lists the endpoints of Docker's API that this engine does not have
// yet. They answer 501 with a message that names them. Building one means taking
// its line out and adding a route; a test checks that every endpoint of the API is
// either here or routed.
const unbuilt = `
GET /containers/{id}/stats
POST /containers/{id}/update
GET /containers/{id}/attach/ws
HEAD /containers/{id}/archive
GET /containers/{id}/archive
PUT /containers/{id}/archive
GET /containers/{id}/checkpoints
POST /containers/{id}/checkpoints
DELETE /containers/{id}/checkpoints/{checkpoint}
POST /build
POST /build/prune
POST /build/cancel
GET /images/{name...}/attestations
POST /images/{name...}/push
GET /images/search
POST /commit
GET /system/df
PUT /volumes/{name}
GET /plugins/privileges
POST /plugins/pull
DELETE /plugins/{name...}
POST /plugins/{name...}/enable
POST /plugins/{name...}/disable
POST /plugins/{name...}/upgrade
POST /plugins/create
POST /plugins/{name...}/push
POST /plugins/{name...}/set
GET /nodes
GET /nodes/{id}
DELETE /nodes/{id}
POST /nodes/{id}/update
GET /swarm
POST /swarm/init
POST /swarm/join
POST /swarm/leave
POST /swarm/update
GET /swarm/unlockkey
POST /swarm/unlock
GET /services
POST /services/create
GET /services/{id}
DELETE /services/{id}
POST /services/{id}/update
GET /services/{id}/logs
GET /tasks
GET /tasks/{id}
GET /tasks/{id}/logs
GET /secrets
POST /secrets/create
GET /secrets/{id}
DELETE /secrets/{id}
POST /secrets/{id}/update
GET /configs
POST /configs/create
GET /configs/{id}
DELETE /configs/{id}
POST /configs/{id}/update
GET /distribution/{name...}/json
POST /session
POST /grpc
GET /debug/vars
`

func unbuiltRoutes() []route {
	var routes []route
	for line := range strings.Lines(unbuilt) {
		method, pattern, ok := strings.Cut(strings.TrimSpace(line), " ")
		if !ok {
			continue
		}
		routes = append(routes, route{method, pattern, func(*call) error {
			return errclass.NotImplemented("%s %s is not built yet in this engine", method, strings.ReplaceAll(pattern, "...", ""))
		}})
	}
	return routes
}
