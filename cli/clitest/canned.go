package clitest

import (
	"fmt"
	"net/http"
	"strings"
)

const (
	id1 = "1111111111112222222222223333333333334444444444445555555555556666"
	id2 = "aaaaaaaaaaaabbbbbbbbbbbbccccccccccccddddddddddddeeeeeeeeeeeeffff"
)

const containersJSON = `[
{"Id":"` + id1 + `","Names":["/web","/other/db"],"Image":"nginx:1.27","ImageID":"sha256:` + id2 + `",
 "Command":"/docker-entrypoint.sh nginx -g 'daemon off;'","Created":1600000000,
 "Ports":[{"IP":"0.0.0.0","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},{"IP":"::","PrivatePort":80,"PublicPort":8080,"Type":"tcp"},
  {"PrivatePort":443,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":90,"PublicPort":90,"Type":"tcp"},{"IP":"0.0.0.0","PrivatePort":91,"PublicPort":91,"Type":"tcp"}],
 "Labels":{"com.example.tier-name":"front","b":"2"},"State":"running","Status":"Up 2 hours","SizeRw":1095,"SizeRootFs":187654321,
 "HostConfig":{"NetworkMode":"bridge"},"NetworkSettings":{"Networks":{"bridge":{}}},
 "Mounts":[{"Type":"volume","Name":"a-volume-with-a-long-name","Source":"","Destination":"/d","Driver":"local"},{"Type":"bind","Source":"/srv","Destination":"/s"}]},
{"Id":"` + id2 + `","Names":["/old_cat"],"Image":"sha256:` + id2 + `","ImageID":"sha256:` + id2 + `",
 "Command":"sh","Created":1500000000,"Ports":[],"Labels":{},"State":"exited","Status":"Exited (0) 3 weeks ago",
 "HostConfig":{"NetworkMode":"host"},"NetworkSettings":{"Networks":{"host":{}}},"Mounts":[]}]`

const imagesJSON = `[
{"Containers":-1,"Created":1600000000,"Id":"sha256:` + id1 + `","Labels":null,"ParentId":"","RepoDigests":["nginx@sha256:` + id2 + `"],"RepoTags":["nginx:1.27","nginx:latest","localhost:5000/a/b:x"],"SharedSize":-1,"Size":187654321},
{"Containers":-1,"Created":1500000000,"Id":"sha256:` + id2 + `","Labels":{"a":"b"},"ParentId":"","RepoDigests":[],"RepoTags":[],"SharedSize":-1,"Size":4261574}]`

const networksJSON = `[
{"Name":"host","Id":"` + id2 + `","Created":"2025-01-02T03:04:05.000000006Z","Scope":"local","Driver":"host","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":null},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{}},
{"Name":"bridge","Id":"` + id1 + `","Created":"2025-01-02T03:04:05.000000006Z","Scope":"local","Driver":"bridge","EnableIPv4":true,"EnableIPv6":false,"IPAM":{"Driver":"default","Options":null,"Config":[{"Subnet":"172.17.0.0/16","Gateway":"172.17.0.1"}]},"Internal":false,"Attachable":false,"Ingress":false,"ConfigFrom":{"Network":""},"ConfigOnly":false,"Containers":{},"Options":{},"Labels":{"l":"v"}}]`

const historyJSON = `[{"Comment":"buildkit.dockerfile.v0","Created":1600000000,"CreatedBy":"CMD [\"nginx\" \"-g\" \"daemon off;\"] and quite some more of it","Id":"sha256:` + id1 + `","Size":0,"Tags":["nginx:1.27"]},
{"Comment":"","Created":1500000000,"CreatedBy":"/bin/sh -c #(nop) ADD file","Id":"<missing>","Size":77800000,"Tags":null}]`

const infoJSON = `{"ID":"11f2-aa","Containers":3,"ContainersRunning":1,"ContainersPaused":0,"ContainersStopped":2,"Images":5,"Driver":"overlay2","DriverStatus":[["Backing Filesystem","extfs"],["Supports d_type","true"]],
"Plugins":{"Volume":["local"],"Network":["bridge","host","null"],"Authorization":null,"Log":["json-file","none"]},"MemoryLimit":true,"SwapLimit":true,"CpuCfsPeriod":true,"CpuCfsQuota":true,"CPUShares":true,"CPUSet":true,"PidsLimit":true,"IPv4Forwarding":true,"Debug":false,"NFd":30,"OomKillDisable":false,"NGoroutines":50,"SystemTime":"2025-01-02T03:04:05Z","LoggingDriver":"json-file","CgroupDriver":"cgroupfs","CgroupVersion":"1","NEventsListener":0,"KernelVersion":"6.18","OperatingSystem":"Debian","OSVersion":"13","OSType":"linux","Architecture":"x86_64","IndexServerAddress":"https://index.docker.io/v1/","RegistryConfig":{"InsecureRegistryCIDRs":["127.0.0.0/8"],"IndexConfigs":{"docker.io":{"Name":"docker.io","Mirrors":[],"Secure":true,"Official":true}},"Mirrors":null},"NCPU":2,"MemTotal":8000000000,"DockerRootDir":"/var/lib/docker","HttpProxy":"","HttpsProxy":"","NoProxy":"","Name":"box","Labels":["a=b"],"ExperimentalBuild":false,"ServerVersion":"28.2.2","Runtimes":{"runc":{"path":"runc"},"io.containerd.runc.v2":{"path":"runc"}},"DefaultRuntime":"runc","Swarm":{"NodeID":"","NodeAddr":"","LocalNodeState":"inactive","ControlAvailable":false,"Error":"","RemoteManagers":null},"LiveRestoreEnabled":false,"Isolation":"","InitBinary":"docker-init","ContainerdCommit":{"ID":"c1"},"RuncCommit":{"ID":"r1"},"InitCommit":{"ID":"i1"},"SecurityOptions":["name=seccomp,profile=builtin"],"CDISpecDirs":["/etc/cdi"],"Warnings":["WARNING: a warning"]}`

const versionJSON = `{"Platform":{"Name":"Fake Engine"},"Components":[{"Name":"Engine","Version":"28.2.2","Details":{"ApiVersion":"1.50","Arch":"amd64","BuildTime":"2025-05-30T12:07:14.000000000+00:00","Experimental":"false","GitCommit":"45873be","GoVersion":"go1.24.3","KernelVersion":"6.18","MinAPIVersion":"1.24","Os":"linux"}},{"Name":"containerd","Version":"1.7.27","Details":{"GitCommit":"05044ec"}}],"Version":"28.2.2","ApiVersion":"1.50","MinAPIVersion":"1.24","GitCommit":"45873be","GoVersion":"go1.24.3","Os":"linux","Arch":"amd64","KernelVersion":"6.18","BuildTime":"2025-05-30T12:07:14.000000000+00:00"}`

const eventsJSON = `{"status":"start","id":"c1","from":"nginx","Type":"container","Action":"start","Actor":{"ID":"c1","Attributes":{"image":"nginx","name":"web"}},"scope":"local","time":1600000000,"timeNano":1600000000123456789}
{"Type":"network","Action":"connect","Actor":{"ID":"n1","Attributes":{}},"scope":"local","time":1600000001,"timeNano":1600000001000000000}
`

const volumesJSON = `{"Volumes":[
{"CreatedAt":"2025-01-02T03:04:05Z","Driver":"local","Labels":{"b":"2","a":"1"},"Mountpoint":"/var/lib/docker/volumes/vol2/_data","Name":"vol2","Options":null,"Scope":"local"},
{"CreatedAt":"2025-01-02T03:04:05Z","Driver":"nfs","Labels":null,"Mountpoint":"/mnt/vol1","Name":"vol1","Options":{"o":"1"},"Scope":"global","UsageData":{"Size":4096,"RefCount":2}}],"Warnings":null}`

// inspectJSON is a running container without terminal.
func inspectJSON(ref string) string {
	return fmt.Sprintf(`{"Id":"%s","Created":"2025-01-02T03:04:05Z","Path":"nginx","Args":["-g","<daemon>"],"State":{"Status":"running","Running":true,"Paused":false,"Restarting":false,"OOMKilled":false,"Dead":false,"Pid":42,"ExitCode":0,"Error":"","StartedAt":"2025-01-02T03:04:06Z","FinishedAt":"0001-01-01T00:00:00Z"},"Image":"sha256:%s","Name":"/%s","RestartCount":0,"HostConfig":{"NetworkMode":"bridge","AutoRemove":false},"Config":{"Hostname":"h","Tty":false,"OpenStdin":false,"Env":["A=1","B=2"],"Labels":{"x":"y"}},"NetworkSettings":{"Ports":{"80/tcp":[{"HostIp":"0.0.0.0","HostPort":"8080"},{"HostIp":"::","HostPort":"8080"}],"443/tcp":null,"9/udp":[{"HostIp":"127.0.0.1","HostPort":"900"}]},"Networks":{}},"Unknown":{"New":1}}`, id1, id2, ref)
}

// fixed are the answers that depend on nothing but the request.
func fixed(request string) (reply, bool) {
	r, ok := map[string]reply{
		"GET /containers/json":  {code: 200, body: containersJSON},
		"GET /images/json":      {code: 200, body: imagesJSON},
		"POST /images/prune":    {code: 200, body: `{"ImagesDeleted":[{"Untagged":"a:1"},{"Deleted":"sha256:00"}],"SpaceReclaimed":1000}`},
		"GET /networks":         {code: 200, body: networksJSON},
		"POST /networks/create": {code: 201, body: `{"Id":"net1","Warning":""}`},
		"POST /networks/prune":  {code: 200, body: `{"NetworksDeleted":["n1","n2"]}`},
		"GET /info":             {code: 200, body: infoJSON},
		"GET /version":          {code: 200, body: versionJSON},
		"GET /events":           {code: 200, body: eventsJSON},
		"GET /volumes":          {code: 200, body: volumesJSON},
		"POST /volumes/create":  {code: 201, body: `{"CreatedAt":"2025-01-02T03:04:05Z","Driver":"local","Labels":null,"Mountpoint":"/m","Name":"made","Options":null,"Scope":"local"}`},
		"POST /volumes/prune":   {code: 200, body: `{"VolumesDeleted":["v1","v2"],"SpaceReclaimed":2048}`},
		"POST /auth":            {code: 200, body: `{"IdentityToken":"","Status":"Login Succeeded"}`},
	}[request]
	return r, ok
}

func (e *Engine) canned(w http.ResponseWriter, r *http.Request, path string, parts []string) {
	if fix, ok := fixed(r.Method + " " + path); ok {
		answer(w, fix.code, fix.body)
		return
	}
	name := ""
	if len(parts) > 1 {
		name = parts[1]
	}
	switch {
	case strings.HasPrefix(name, "none"):
		missing(w, strings.TrimSuffix(parts[0], "s"), name)
	case parts[0] == "images":
		cannedImage(w, r, name, parts[len(parts)-1])
	case parts[0] == "volumes" && len(parts) == 2:
		cannedVolume(w, r, name)
	case parts[0] == "networks":
		cannedNetwork(w, r, name, parts[len(parts)-1])
	default:
		fail(w, 404, "%v", errNoRoute)
	}
}

func missing(w http.ResponseWriter, kind, name string) {
	switch kind {
	case "network":
		fail(w, 404, "network %s not found", name)
	case "volume":
		fail(w, 404, "get %s: no such volume", name)
	default:
		fail(w, 404, "No such %s: %s", kind, name)
	}
}

func cannedImage(w http.ResponseWriter, r *http.Request, name, action string) {
	switch {
	case action == "history":
		answer(w, 200, historyJSON)
	case action == "json":
		answer(w, 200, `{"Id":"sha256:`+id1+`","RepoTags":["nginx:1.27"],"Architecture":"amd64","Os":"linux","Size":5,"RootFS":{"Type":"layers","Layers":["sha256:1"]},"Config":{"Env":["P=1"]}}`)
	case action == "tag":
		w.WriteHeader(http.StatusCreated)
	case action == "push":
		answer(w, 200, `{"status":"The push refers to repository [docker.io/library/a]"}`+"\n"+`{"status":"latest: digest: sha256:00 size: 1"}`+"\n")
	case action == "get":
		_, _ = w.Write([]byte("TAR"))
	case r.Method == http.MethodDelete:
		answer(w, 200, `[{"Untagged":"`+name+`:latest"},{"Deleted":"sha256:`+id1+`"}]`)
	default:
		fail(w, 404, "%v", errNoRoute)
	}
}

func cannedVolume(w http.ResponseWriter, r *http.Request, name string) {
	if r.Method == http.MethodDelete {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	answer(w, 200, `{"CreatedAt":"2025-01-02T03:04:05Z","Driver":"local","Labels":{"a":"1"},"Mountpoint":"/m","Name":"`+name+`","Options":null,"Scope":"local"}`)
}

func cannedNetwork(w http.ResponseWriter, r *http.Request, name, action string) {
	switch {
	case r.Method == http.MethodDelete:
		w.WriteHeader(http.StatusNoContent)
	case action == "connect", action == "disconnect":
		w.WriteHeader(http.StatusOK)
	case action == name && name != "":
		answer(w, 200, `{"Name":"`+name+`","Id":"`+id1+`","Driver":"bridge","Created":"2025-01-02T03:04:05Z"}`)
	default:
		fail(w, 404, "%v", errNoRoute)
	}
}
