package e2e

import (
	"net"
	"os"
	"strings"

	"github.com/miekg/dns"
)

// dnsserverMain: dnsserver ADDRESS IP is a name server on port 53 for example.org: every name
// there has the IPv4 address, big.example.org has texts that fill several datagrams, no
// other name exists.
func dnsserverMain() {
	ip := net.ParseIP(os.Args[2]).To4()
	h := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		m := new(dns.Msg).SetReply(q)
		name := strings.ToLower(q.Question[0].Name)
		head := dns.RR_Header{Name: q.Question[0].Name, Rrtype: q.Question[0].Qtype, Class: dns.ClassINET, Ttl: 1}
		switch t := q.Question[0].Qtype; {
		case !strings.HasSuffix(name, ".example.org."):
			m.Rcode = dns.RcodeNameError
		case t == dns.TypeA:
			m.Answer = append(m.Answer, &dns.A{Hdr: head, A: ip})
		case t == dns.TypeTXT && name == "big.example.org.":
			for range 40 {
				m.Answer = append(m.Answer, &dns.TXT{Hdr: head, Txt: []string{strings.Repeat("x", 200)}})
			}
		}
		if _, udp := w.RemoteAddr().(*net.UDPAddr); udp {
			size := dns.MinMsgSize
			if o := q.IsEdns0(); o != nil {
				size = int(o.UDPSize())
			}
			m.Truncate(size)
		}
		_ = w.WriteMsg(m)
	})
	go func() {
		die("dnsserver", (&dns.Server{Addr: os.Args[1] + ":53", Net: "tcp", Handler: h}).ListenAndServe())
	}()
	die("dnsserver", (&dns.Server{Addr: os.Args[1] + ":53", Net: "udp", Handler: h}).ListenAndServe())
}
