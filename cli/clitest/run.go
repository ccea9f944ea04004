package clitest

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/gantry/gantry/api/extension"
	"golang.org/x/sys/unix"
)

// run is extension.RunPath, made of what answers the ordinary requests.
func (e *Engine) run(w http.ResponseWriter, r *http.Request) {
	if !e.Extended {
		fail(w, 404, "%v", errNoRoute)
		return
	}
	body, _ := io.ReadAll(io.LimitReader(r.Body, 1<<20))
	if e.Hold != nil {
		e.Hold <- struct{}{}
		<-e.Hold
	}
	made := httptest.NewRecorder()
	if e.create(made, r, body); made.Code != http.StatusCreated {
		fail(w, made.Code, "%s", messageOf(made))
		return
	}
	created := &extension.RunCreated{}
	_ = json.Unmarshal(made.Body.Bytes(), created)
	hijacked, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer hijacked.Close()
	conn, ok := hijacked.(*net.UnixConn)
	if !ok {
		return
	}
	ours, theirs, err := socketpair()
	if err != nil {
		return
	}
	c := e.find(created.ID)
	go c.live(ours, bufio.NewReader(ours))
	line, _ := json.Marshal(extension.RunMessage{Created: created})
	head := "HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: gantry-run\r\n\r\n"
	_, _, err = conn.WriteMsgUnix(append([]byte(head), append(line, '\n')...), unix.UnixRights(int(theirs.Fd())), nil)
	theirs.Close()
	if err != nil {
		return
	}
	tell := json.NewEncoder(conn).Encode
	started := httptest.NewRecorder()
	if e.start(started, created.ID, c); started.Code != http.StatusNoContent {
		_ = tell(extension.RunMessage{Failed: &extension.RunFailed{Status: started.Code, Message: messageOf(started)}})
		return
	}
	if q := r.URL.Query(); !q.Has("stdin") && !q.Has("stdout") && !q.Has("stderr") {
		_ = tell(extension.RunMessage{Started: true})
		return
	}
	<-c.done
	_ = tell(extension.RunMessage{Ended: &extension.RunEnded{StatusCode: int64(c.code)}})
}

// Started tells how many containers have started and not ended.
func (e *Engine) Started() int {
	e.mu.Lock()
	defer e.mu.Unlock()
	n := 0
	for _, c := range e.ctrs {
		select {
		case <-c.started:
			select {
			case <-c.done:
			default:
				n++
			}
		default:
		}
	}
	return n
}

func messageOf(r *httptest.ResponseRecorder) string {
	var m struct{ Message string }
	_ = json.Unmarshal(r.Body.Bytes(), &m)
	return m.Message
}

// socketpair answers one end as a connection and the other as a file.
func socketpair() (net.Conn, *os.File, error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, err
	}
	f := os.NewFile(uintptr(fds[0]), "")
	defer f.Close()
	theirs := os.NewFile(uintptr(fds[1]), "")
	conn, err := net.FileConn(f)
	if err != nil {
		theirs.Close()
	}
	return conn, theirs, err
}
