package e2e

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/gantry/gantry/test/testimage"
	"golang.org/x/sys/unix"
)

// The programs below are this test binary under another name; scripts run them as
// processes, so that they live in the script's network namespace.

func mkimageMain() {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := testimage.Tool(ctx, os.Args[1:], os.Stdout); err != nil {
		die("mkimage", err)
	}
}

func die(name string, err error) {
	fmt.Fprintln(os.Stderr, name+":", err)
	os.Exit(1)
}

// genMain: gen BYTES prints that many pseudo-random bytes, always the same.
func genMain() {
	n, err := strconv.ParseInt(os.Args[1], 10, 64)
	if err != nil {
		die("gen", err)
	}
	buf := make([]byte, 256<<10)
	x := uint64(88172645463325252)
	for n > 0 {
		for i := 0; i < len(buf); i += 8 {
			x ^= x << 13
			x ^= x >> 7
			x ^= x << 17
			for j := range 8 {
				buf[i+j] = byte(x >> (8 * j))
			}
		}
		m, err := os.Stdout.Write(buf[:min(n, int64(len(buf)))])
		if err != nil {
			die("gen", err)
		}
		n -= int64(m)
	}
}

// sumMain: sum [FILE] prints SHA-256 and length.
func sumMain() {
	in := io.Reader(os.Stdin)
	if len(os.Args) > 1 {
		f, err := os.Open(os.Args[1])
		if err != nil {
			die("sum", err)
		}
		in = f
	}
	h := sha256.New()
	n, err := io.CopyBuffer(struct{ io.Writer }{h}, in, make([]byte, 1<<20))
	if err != nil {
		die("sum", err)
	}
	fmt.Printf("%x %d\n", h.Sum(nil), n)
}

// slowproxyMain: slowproxy LISTEN UPSTREAM BYTES/S forwards HTTP, letting at most so
// many bytes a second through, and prints "METHOD PATH BYTES" after each request.
func slowproxyMain() {
	listen, upstream := os.Args[1], os.Args[2]
	rate, err := strconv.ParseInt(os.Args[3], 10, 64)
	if err != nil {
		die("slowproxy", err)
	}
	target := &url.URL{Scheme: "http", Host: upstream}
	lim := &limiter{rate: rate}
	var mu sync.Mutex
	rp := &httputil.ReverseProxy{
		Rewrite: func(r *httputil.ProxyRequest) {
			r.SetURL(target)
			r.Out.Host = r.In.Host
		},
		FlushInterval: -1,
	}
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		sw := &slowWriter{ResponseWriter: w, lim: lim}
		defer func() {
			mu.Lock()
			defer mu.Unlock()
			fmt.Println(r.Method, r.URL.Path, sw.n.Load())
		}()
		rp.ServeHTTP(sw, r)
	})
	l, err := net.Listen("tcp", listen)
	if err != nil {
		die("slowproxy", err)
	}
	die("slowproxy", (&http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}).Serve(l))
}

type limiter struct {
	mu   sync.Mutex
	rate int64
	next time.Time
}

func (l *limiter) wait(n int) {
	l.mu.Lock()
	now := time.Now()
	if l.next.Before(now) {
		l.next = now
	}
	l.next = l.next.Add(time.Duration(int64(n) * int64(time.Second) / l.rate))
	d := l.next.Sub(now)
	l.mu.Unlock()
	time.Sleep(d)
}

type slowWriter struct {
	http.ResponseWriter
	lim *limiter
	n   atomic.Int64
}

func (w *slowWriter) Write(b []byte) (int, error) {
	w.lim.wait(len(b))
	n, err := w.ResponseWriter.Write(b)
	w.n.Add(int64(n))
	return n, err
}

func (w *slowWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// apigetMain: apiget METHOD PATH asks the socket $SOCK, prints status and body.
func apigetMain() {
	c := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv("SOCK"))
	}}}
	var body io.Reader
	if len(os.Args) > 3 {
		f, err := os.Open(os.Args[3])
		if err != nil {
			die("apiget", err)
		}
		body = f
	}
	req, err := http.NewRequest(os.Args[1], "http://docker"+os.Args[2], body)
	if err != nil {
		die("apiget", err)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.Do(req)
	if err != nil {
		die("apiget", err)
	}
	fmt.Println("status", resp.StatusCode)
	for _, h := range []string{"Api-Version", "Server", "Ostype", "Content-Type"} {
		fmt.Printf("%s: %s\n", h, resp.Header.Get(h))
	}
	if _, err := io.Copy(os.Stdout, io.LimitReader(resp.Body, 8<<20)); err != nil {
		die("apiget", err)
	}
	fmt.Println()
}

// activateMain: activate SOCKET PROGRAM ARGS… becomes PROGRAM with a listening socket
// as descriptor 3, as a service manager starts a socket-activated unit.
func activateMain() {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: os.Args[1], Net: "unix"})
	if err != nil {
		die("activate", err)
	}
	f, err := l.File()
	if err != nil {
		die("activate", err)
	}
	if f.Fd() == 3 {
		_, err = unix.FcntlInt(3, unix.F_SETFD, 0)
	} else {
		err = unix.Dup3(int(f.Fd()), 3, 0)
	}
	if err != nil {
		die("activate", err)
	}
	env := append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=docker.socket", "LISTEN_PID="+strconv.Itoa(os.Getpid()))
	die("activate", unix.Exec(os.Args[2], os.Args[2:], env))
}

// notifiedMain: notified SOCKET prints what a service says to its manager.
func notifiedMain() {
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: os.Args[1], Net: "unixgram"})
	if err != nil {
		die("notified", err)
	}
	b := make([]byte, 4096)
	for {
		n, err := c.Read(b)
		if err != nil {
			die("notified", err)
		}
		fmt.Println(string(b[:n]))
	}
}
