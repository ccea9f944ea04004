package container_test

import (
	"testing"

	"github.com/gantry/gantry/cli/clitest"
)

// What each verb asks of the engine, says, and ends with.
func TestVerbs(t *testing.T) {
	lines := clitest.Lines(`
stop c1
stop c1 c2
stop -t 3 c1
stop -t 0 c1
stop -t -1 c1
stop --time 4 c1
stop -s HUP c1
stop none1
stop c1 none1 c2
stop
stop -t x c1
container stop c1
restart c1
restart -t 5 -s INT c1 c2
restart none1
kill c1
kill -s TERM c1
kill --signal 9 c1 c2
kill none1
pause c1 c2
pause none1
pause
unpause c1
unpause none1
rm c1
rm -f c1
rm -fvl c1
rm c1 none1
rm -f none1
rm -f none1 c1
rm /c1
rm /
rm
container rm c1
container remove c1
rename a b
rename none1 b
rename ' ' b
rename a ''
rename a
wait c1
wait c1 c2
wait none1
wait c1 none1
top c1
top c1 -o pid,cmd
top c1 aux
top none1
top
diff c1
diff unchanged
diff none1
diff
diff c1 c2
container diff c1
export c1
export none1
export
export c1 c2
export -o nosuch/out.tar c1
export -o . c1
container export c1
start c1
start c1 c2
start none1
start c1 none1 c2 none2
start -a c1
start -a c1 c2
start -i c1 c2
start --checkpoint cp c1
start --checkpoint cp --checkpoint-dir /d c1
start --checkpoint cp c1 c2
attach none1
attach
logs c1
logs none1
logs -f --tail 3 c1
logs -n 0 --details -t c1
logs --since 2025-01-01T00:00:00Z --until 1600000000.5 c1
logs --since bogus c1
logs
exec c1 ls
exec c1 ls -l --color
exec c1
exec none1 ls
exec -d c1 ls
exec -it c1 sh
exec -t c1 sh
exec --detach-keys ctrl-a,b -u u:g -w /w --privileged -e A=1 -e B c1 env
exec -e = c1 env
exec --env-file none c1 env
exec --env-file envs -e C=3 c1 env
port c1
port c1 80
port c1 80/tcp
port c1 80/
port c1 9/udp
port c1 443
port c1 81
port c1 x
port c1 70000
port c1 80/x/y
port none1
port
port a b c
inspect c1
inspect -s c1
inspect -f {{.Name}} c1 c2
inspect -f '{{.Name}} {{json .Config.Env}}\t{{index .Config.Env 1}}' c1
inspect -f {{.Unknown.New}} c1
inspect -f {{.Nope}} c1
inspect -f {{ c1
inspect -f json c1 c2
inspect none1
inspect c1 none1 c2
inspect -f {{.Name}} none1 c1
container inspect c1
container inspect none1
container inspect -s c1
container inspect
container prune -f
container prune -f --filter until=24h --filter label=a
container nosuch
container --nosuch
`)
	for i := range lines {
		lines[i].Files = map[string]string{"envs": "A=1\n# comment\n\nB=x y\nHOME\nNOT_THERE\n"}
	}
	clitest.Golden(t, "verbs.golden", append(lines,
		clitest.Line{Args: "container prune", Name: "yes", Stdin: "y\n"},
		clitest.Line{Args: "container prune", Name: "YES", Stdin: "Y\r\n"},
		clitest.Line{Args: "container prune", Name: "no", Stdin: "n\n"},
		clitest.Line{Args: "container prune", Name: "other word", Stdin: "yes\n"},
		clitest.Line{Args: "container prune", Name: "end of input"},
		clitest.Line{Args: "container prune -f", Name: "nothing", Engine: func(e *clitest.Engine) {
			e.Answer("POST /containers/prune", 200, `{"ContainersDeleted":null,"SpaceReclaimed":0}`)
		}},
		clitest.Line{Args: "container prune -f", Name: "error", Engine: func(e *clitest.Engine) {
			e.Answer("POST /containers/prune", 409, "a prune operation is already running")
		}},
		clitest.Line{Args: "exec -i c1 cat", Stdin: "to the program\n"},
		clitest.Line{Args: "attach stopped", Engine: state("stopped", `"Running":false`)},
		clitest.Line{Args: "attach paused", Engine: state("paused", `"Running":true,"Paused":true`)},
		clitest.Line{Args: "attach again", Engine: state("again", `"Running":true,"Restarting":true`)},
		clitest.Line{Args: "attach c1"},
		clitest.Line{Args: "attach --no-stdin --sig-proxy=false --detach-keys ctrl-z c1"},
		clitest.Line{Args: "attach c1", Name: "detachKeys", Config: `{"detachKeys":"ctrl-e"}`},
		clitest.Line{Args: "exec c1 ls", Name: "detachKeys", Config: `{"detachKeys":"ctrl-e"}`},
		clitest.Line{Args: "logs tty", Engine: func(e *clitest.Engine) {
			e.Answer("GET /containers/tty/json", 200, `{"Id":"tty","Config":{"Tty":true}}`)
			e.Answer("GET /containers/tty/logs", 200, "raw \x1b[1mbytes\r\n")
		}},
		clitest.Line{Args: "exec -it c1 sh", Name: "no terminal", Stdin: "x"},
		clitest.Line{Args: "stop c1", Name: "error", Engine: func(e *clitest.Engine) { e.Answer("POST /containers/c1/stop", 500, "cannot stop") }},
	))
}

func state(name, s string) func(*clitest.Engine) {
	return func(e *clitest.Engine) {
		e.Answer("GET /containers/"+name+"/json", 200, `{"Id":"`+name+`","State":{`+s+`},"Config":{}}`)
	}
}
