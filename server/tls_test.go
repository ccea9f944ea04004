package server

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/gantry/gantry/api/stream"
	"github.com/gantry/gantry/engine/container"
)

// TestHijackOverTLS: the engine gets a plain socket although the client speaks TLS.
func TestHijackOverTLS(t *testing.T) {
	h := serve(t)
	h.c.attach = func(_ container.AttachOptions, hijack stream.Hijack) error {
		conn, err := hijack(false)
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, ok := conn.Conn.(*net.UnixConn); !ok {
				t.Errorf("%T", conn.Conn)
			}
			in, _ := io.ReadAll(conn)
			fmt.Fprintf(conn, "%s%s", conn.Prefix, strings.ToUpper(string(in)))
		}()
		return nil
	}
	ts := httptest.NewTLSServer(h.Server)
	defer ts.Close()
	c, err := tls.Dial("tcp", ts.Listener.Addr().String(), ts.Client().Transport.(*http.Transport).TLSClientConfig)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "POST /containers/x/attach?stream=1 HTTP/1.1\r\nHost: d\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
	r := bufio.NewReader(c)
	if line, err := r.ReadString('\n'); err != nil || line != "HTTP/1.1 101 UPGRADED\r\n" {
		t.Fatalf("%q %v", line, err)
	}
	for line := ""; line != "\r\n"; {
		if line, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	big := strings.Repeat("hello ", 100_000)
	go func() {
		io.WriteString(c, big)
		c.CloseWrite()
	}()
	out, err := io.ReadAll(r)
	if err != nil || string(out) != strings.ToUpper(big) {
		t.Errorf("%d bytes back of %d, %v", len(out), len(big), err)
	}
}
