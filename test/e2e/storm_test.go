package e2e

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// stormMain: storm SECONDS CLIENTS CONTAINERS [down] asks the daemon at $SOCK for everything
// at once: clients that create, start, stop, remove, execute in, read and watch the same
// containers. An answer that Docker would not give under such a race fails it, and so does
// one that does not come. With "down" the daemon may be away meanwhile: connections that
// break are no fault, answers still are.
func stormMain() {
	seconds, err1 := strconv.Atoi(os.Args[1])
	clients, err2 := strconv.Atoi(os.Args[2])
	containers, err3 := strconv.Atoi(os.Args[3])
	if err := errors.Join(err1, err2, err3); err != nil {
		die("storm", err)
	}
	s := &storm{
		names: containers, down: len(os.Args) > 4 && os.Args[4] == "down", seen: map[string]int{},
		until: time.Now().Add(time.Duration(seconds) * time.Second),
	}
	s.http.Transport = &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv("SOCK"))
		},
		MaxIdleConnsPerHost: clients,
	}
	ctx, cancel := context.WithDeadline(context.Background(), s.until)
	defer cancel()
	var wg sync.WaitGroup
	wg.Go(func() { s.watch(ctx) })
	for i := range clients {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(i), 7919))
			for time.Now().Before(s.until) {
				s.one(r)
			}
		})
	}
	wg.Wait()
	for _, op := range sortedNames(s.seen) {
		fmt.Println(op, s.seen[op])
	}
	fmt.Println("events", s.events.Load(), "broken", s.broken.Load())
	if len(s.faults) > 0 {
		die("storm", fmt.Errorf("%d faults, of them:\n%s", len(s.faults), strings.Join(s.faults[:min(20, len(s.faults))], "\n")))
	}
}

type storm struct {
	http           http.Client
	names          int
	down           bool
	until          time.Time
	events, broken atomic.Int64

	mu     sync.Mutex
	seen   map[string]int // "operation status" → how often
	faults []string
}

// patience is how long an answer may take; everything asked for here is done within seconds.
const patience = 60 * time.Second

func (s *storm) fault(format string, args ...any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.faults = append(s.faults, time.Now().Format("15:04:05.000 ")+fmt.Sprintf(format, args...))
}

// ask makes a request and returns the body; ok says that there was an answer, of the allowed statuses.
func (s *storm) ask(what, method, path string, body any, allowed ...int) (text []byte, ok bool) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var in io.Reader
	if body != nil {
		data, err := json.Marshal(body)
		if err != nil {
			s.fault("%s: %v", what, err)
			return nil, false
		}
		in = bytes.NewReader(data)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://d"+path, in)
	if err != nil {
		s.fault("%s: %v", what, err)
		return nil, false
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := s.http.Do(req)
	if err == nil {
		defer resp.Body.Close()
		text, err = io.ReadAll(io.LimitReader(resp.Body, 8<<20))
	}
	switch {
	case ctx.Err() != nil:
		s.fault("%s %s: no answer after %s", what, path, patience)
		return nil, false
	case err != nil && s.down:
		s.broken.Add(1)
		time.Sleep(20 * time.Millisecond) // not a busy loop while there is no daemon
		return nil, false
	case err != nil:
		s.fault("%s %s: %v", what, path, err)
		return nil, false
	}
	s.mu.Lock()
	s.seen[what+" "+strconv.Itoa(resp.StatusCode)]++
	s.mu.Unlock()
	if !slices.Contains(allowed, resp.StatusCode) {
		if s.down && resp.StatusCode == http.StatusServiceUnavailable {
			return nil, false // asked in its last moments
		}
		s.fault("%s %s: %d %s", what, path, resp.StatusCode, bytes.TrimSpace(text[:min(len(text), 400)]))
		return nil, false
	}
	return text, resp.StatusCode < 300
}

// one does one thing to one container.
func (s *storm) one(r *rand.Rand) {
	name := "s" + strconv.Itoa(r.IntN(s.names))
	c := "/containers/" + name
	switch r.IntN(22) {
	case 0, 1, 2:
		s.create(r, name)
	case 3, 4, 5:
		s.ask("start", "POST", c+"/start", nil, 204, 304, 404, 409)
	case 6:
		s.ask("stop", "POST", c+"/stop?t=1", nil, 204, 304, 404)
	case 7:
		s.ask("kill", "POST", c+"/kill", nil, 204, 404, 409)
	case 8:
		s.ask("remove -f", "DELETE", c+"?force=1&v=1", nil, 204, 404, 409)
	case 9:
		s.ask("remove", "DELETE", c, nil, 204, 404, 409)
	case 10:
		s.ask("restart", "POST", c+"/restart?t=1", nil, 204, 404, 409)
	case 11:
		s.ask("pause", "POST", c+"/pause", nil, 204, 404, 409)
		s.ask("unpause", "POST", c+"/unpause", nil, 204, 404, 409)
	case 12, 13, 14:
		s.exec(name)
	case 15:
		s.ask("logs", "GET", c+"/logs?stdout=1&stderr=1&tail=5&timestamps=1", nil, 200, 404)
	case 16, 17:
		s.inspect(name)
	case 18:
		s.ask("list", "GET", "/containers/json?all=1", nil, 200)
	case 19:
		s.ask("top", "GET", c+"/top", nil, 200, 404, 409)
	case 20:
		s.wait(c)
	case 21:
		other := "s" + strconv.Itoa(r.IntN(s.names))
		s.ask("rename", "POST", c+"/rename?name="+other, nil, 204, 400, 404, 409)
	}
}

// wait waits for an end, but not as long as some programs live.
func (s *storm) wait(c string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://d"+c+"/wait", nil)
	if err != nil {
		s.fault("wait: %v", err)
		return
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return // away, or not answered in time: both may be
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return
	}
	var end struct{ StatusCode int }
	if err := json.Unmarshal(text, &end); resp.StatusCode == http.StatusOK && (err != nil || !slices.Contains([]int{0, 3, 4, 137, 143}, end.StatusCode)) {
		logs, _ := s.ask("logs", "GET", c+"/logs?stdout=1&stderr=1&tail=5", nil, 200, 404)
		config, _ := s.ask("inspect", "GET", c+"/json", nil, 200, 404)
		s.fault("wait %s: %v %s\nits output: %s\n%s", c, err, text, logs, config)
	}
}

// stormProgram lives until it is told to end, or for a second or two, so that waiters have something to wait for.
const stormProgram = `trap 'exit 3' TERM; i=0; while [ $i -lt %d ]; do echo line $i; i=$((i+1)); sleep 0.1; done; exit 4`

func (s *storm) create(r *rand.Rand, name string) {
	host := map[string]any{"NetworkMode": []string{"bridge", "none", "none"}[r.IntN(3)]}
	switch r.IntN(6) {
	case 0:
		host["AutoRemove"] = true
	case 1:
		host["RestartPolicy"] = map[string]any{"Name": "on-failure", "MaximumRetryCount": 3}
	case 2:
		host["Init"] = true
	}
	rounds := 5 + r.IntN(20)
	if r.IntN(4) == 0 {
		rounds = 1 << 30 // it ends when it is told to: if nobody holds it, never
	}
	body := map[string]any{
		"Image": "bb", "Cmd": []string{"sh", "-c", fmt.Sprintf(stormProgram, rounds)}, "HostConfig": host,
		"Tty": r.IntN(5) == 0, "Env": []string{"STORM=" + os.Getenv("ROOT")},
	}
	if r.IntN(4) == 0 {
		body["Volumes"] = map[string]any{"/v": map[string]any{}}
	}
	if r.IntN(4) == 0 {
		body["Healthcheck"] = map[string]any{"Test": []string{"CMD", "true"}, "Interval": int64(200 * time.Millisecond)}
	}
	s.ask("create", "POST", "/containers/create?name="+name, body, 201, 409)
}

// exec runs a command and wants its output and its exit code whole, unless the container ended under it.
func (s *storm) exec(name string) {
	text, ok := s.ask("exec", "POST", "/containers/"+name+"/exec",
		map[string]any{"Cmd": []string{"sh", "-c", "echo out; exit 5"}, "AttachStdout": true}, 201, 404, 409)
	if !ok {
		return
	}
	var made struct{ ID string } // decoding minds no case
	if err := json.Unmarshal(text, &made); err != nil {
		s.fault("exec: %v", err)
		return
	}
	text, ok = s.ask("exec start", "POST", "/exec/"+made.ID+"/start", map[string]any{}, 200, 404, 409)
	if !ok {
		return
	}
	if len(text) >= 8 && int(binary.BigEndian.Uint32(text[4:])) == len(text)-8 && string(text[8:]) == "out\n" {
		text, ok = s.ask("exec inspect", "GET", "/exec/"+made.ID+"/json", nil, 200, 404)
		var st struct {
			Running  bool
			ExitCode *int
		}
		if !ok {
			return
		}
		if err := json.Unmarshal(text, &st); err != nil || st.ExitCode == nil && !st.Running {
			s.fault("exec inspect: %v %s", err, text)
			return
		}
		if st.ExitCode != nil && *st.ExitCode != 5 && *st.ExitCode != 137 {
			s.fault("exec ended with %d: %s", *st.ExitCode, text)
		}
	}
}

// inspect looks for states that cannot be.
func (s *storm) inspect(name string) {
	text, ok := s.ask("inspect", "GET", "/containers/"+name+"/json", nil, 200, 404)
	if !ok {
		return
	}
	var c struct {
		State struct {
			Status          string
			Running, Paused bool
			Pid             int
		}
	}
	if err := json.Unmarshal(text, &c); err != nil {
		s.fault("inspect: %v", err)
		return
	}
	st := c.State
	if up := st.Status == "running" || st.Status == "paused"; up != (st.Pid != 0) || up && !st.Running || st.Paused != (st.Status == "paused") {
		s.fault("inspect %s: %+v", name, st)
	}
}

// watch follows the events, over daemons.
func (s *storm) watch(ctx context.Context) {
	for ctx.Err() == nil {
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://d/events", nil)
		if err != nil {
			s.fault("events: %v", err)
			return
		}
		resp, err := s.http.Do(req)
		if err != nil {
			time.Sleep(20 * time.Millisecond)
			continue
		}
		for d := json.NewDecoder(resp.Body); ; s.events.Add(1) {
			var ev struct{ Action string }
			if err := d.Decode(&ev); err != nil {
				break
			}
		}
		resp.Body.Close()
		if !s.down && ctx.Err() == nil {
			s.fault("events: the stream broke")
		}
	}
}
