package nat

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"callbox/internal/stunaddr"

	"github.com/pion/stun/v2"
)

// pauses between transmissions of a request: RFC 8489 section 6.2.1 begins with 500 ms and doubles. What has not answered
// within their sum is silent.
var pauses = [...]time.Duration{500 * time.Millisecond, time.Second, 1500 * time.Millisecond} // does not change

// maxServers bounds how many are asked.
const maxServers = 8

// errNoAddress says that a server has no address of the family asked for.
var errNoAddress = errors.New("it has no address of this family")

// errOtherFamily says that a server has seen an address that no packet of ours had.
var errOtherFamily = errors.New("its answer names an address of the other family")

// ask asks all servers from one socket of one family, and compares where they see it.
func ask(ctx context.Context, cfg Config, host []netip.Addr, six bool) Family {
	out := Family{Mapping: Unknown}
	local, has := netip.Addr{}, false
	for _, a := range host {
		// A loopback address does not make a family, or each host had IPv6; but tests have nothing else.
		has = has || a.Is6() == six && !a.IsLinkLocalUnicast()
	}
	for _, a := range cfg.Local {
		if a.Is6() == six && !a.IsUnspecified() {
			local = a
		}
	}
	if !has || len(cfg.Servers) == 0 {
		return out
	}
	network := "udp4"
	if six {
		network = "udp6"
	}
	var laddr *net.UDPAddr
	if local.IsValid() {
		laddr = net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0))
	}
	conn, err := net.ListenUDP(network, laddr)
	if err != nil {
		out.Problem = err.Error()
		return out
	}
	defer func() { _ = conn.Close() }()
	out.Answers = bindings(ctx, conn, cfg, six)
	out.compare(host)
	return out
}

// question is one server's request on its way.
type question struct {
	request *stun.Message
	sent    time.Time
	index   int // of its answer
	done    bool
}

// bindings asks the servers and waits for their answers. It returns early where nobody is left to answer.
func bindings(ctx context.Context, conn *net.UDPConn, cfg Config, six bool) []Answer {
	servers := cfg.Servers[:min(len(cfg.Servers), maxServers)]
	answers := make([]Answer, len(servers))
	var open []*question
	for i, at := range locate(ctx, cfg, servers, six) {
		answers[i] = Answer{Server: servers[i], At: at.addr}
		if at.err != nil {
			answers[i].Error = at.err.Error()
			continue
		}
		request, err := stun.Build(stun.TransactionID, stun.BindingRequest)
		if err != nil {
			answers[i].Error = err.Error()
			continue
		}
		answers[i].Error = "no answer"
		open = append(open, &question{request: request, index: i})
	}
	waiting := len(open)
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buffer := make([]byte, 1500)
	for _, pause := range pauses {
		if waiting == 0 || ctx.Err() != nil {
			break
		}
		for _, q := range open {
			if q.done {
				continue
			}
			q.sent = time.Now()
			if _, err := conn.WriteToUDPAddrPort(q.request.Raw, answers[q.index].At); err != nil {
				answers[q.index].Error = err.Error()
				q.done = true
				waiting--
			}
		}
		if conn.SetReadDeadline(time.Now().Add(pause)) != nil || ctx.Err() != nil {
			break
		}
		for waiting > 0 {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				var t net.Error
				if errors.As(err, &t) && t.Timeout() || ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
					break
				}
				continue // a closed port, told by ICMP to the wrong socket on some systems
			}
			from = netip.AddrPortFrom(from.Addr().Unmap(), from.Port())
			for _, q := range open {
				a := &answers[q.index]
				// Only the server itself answers, and only with the 96 bits that it was sent.
				if q.done || from != a.At {
					continue
				}
				mapped, err := parseBinding(buffer[:n], q.request.TransactionID)
				if errors.Is(err, errForeign) {
					continue
				}
				q.done = true
				waiting--
				a.Took, a.Error = time.Since(q.sent), ""
				if err == nil && mapped.Addr().Is6() != six {
					err = errOtherFamily
				}
				if a.Mapped = mapped; err != nil {
					a.Mapped, a.Error = netip.AddrPort{}, err.Error()
				}
			}
		}
	}
	return answers
}

// errForeign says that a datagram is not the answer to the request.
var errForeign = errors.New("not the answer")

// parseBinding is the address that a Binding response tells. Whatever is not a whole response to the request is errForeign.
func parseBinding(datagram []byte, id [stun.TransactionIDSize]byte) (netip.AddrPort, error) {
	m := &stun.Message{Raw: slices.Clone(datagram)}
	if !stun.IsMessage(datagram) || m.Decode() != nil || m.TransactionID != id {
		return netip.AddrPort{}, errForeign
	}
	switch m.Type {
	case stun.BindingSuccess:
	case stun.BindingError:
		var code stun.ErrorCodeAttribute
		if code.GetFrom(m) != nil {
			return netip.AddrPort{}, errors.New("it answers with an error")
		}
		return netip.AddrPort{}, fmt.Errorf("it answers with error %d", code.Code)
	default:
		return netip.AddrPort{}, errForeign
	}
	if addr, err := stunaddr.XOR(m, stun.AttrXORMappedAddress); err == nil {
		return addr, nil
	}
	var plain stun.MappedAddress // of servers older than RFC 5389
	_ = plain.GetFrom(m)         // without an address it is as empty as without the attribute
	addr, ok := netip.AddrFromSlice(plain.IP)
	if !ok || plain.Port <= 0 || plain.Port > 0xffff {
		return netip.AddrPort{}, errors.New("its answer names no address")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(plain.Port)), nil
}

// location is where a server is, or why that is unknown.
type location struct {
	addr netip.AddrPort
	err  error
}

// locate looks all names up at the same time.
func locate(ctx context.Context, cfg Config, servers []string, six bool) []location {
	out := make([]location, len(servers))
	done := make(chan struct{}, len(servers))
	for i, server := range servers {
		go func() {
			defer func() { done <- struct{}{} }()
			out[i].addr, out[i].err = locateOne(ctx, cfg, server, six)
		}()
	}
	for range servers {
		<-done
	}
	return out
}

func locateOne(ctx context.Context, cfg Config, server string, six bool) (netip.AddrPort, error) {
	host, text, err := net.SplitHostPort(server)
	if err != nil {
		return netip.AddrPort{}, err
	}
	port, err := net.LookupPort("udp", text)
	if err != nil {
		return netip.AddrPort{}, err
	}
	list := []netip.Addr{}
	if literal, err := netip.ParseAddr(host); err == nil {
		list = append(list, literal)
	} else if list, err = cfg.Resolve(ctx, host); err != nil {
		return netip.AddrPort{}, fmt.Errorf("its name is not found: %w", err)
	}
	for _, a := range list {
		if a = a.Unmap(); a.Is6() == six {
			return netip.AddrPortFrom(a, uint16(port)), nil
		}
	}
	return netip.AddrPort{}, errNoAddress
}

// compare concludes from the answers. Two that contradict each other prove neither.
func (f *Family) compare(host []netip.Addr) {
	var seen []Answer
	problem := "no STUN server answers"
	for i, a := range f.Answers {
		switch {
		case !a.Mapped.IsValid():
			if i == 0 {
				problem += fmt.Sprintf(" (%s: %s)", a.Server, a.Error)
			}
		case !reachable(a.Mapped.Addr()) && !slices.Contains(host, a.Mapped.Addr()):
			problem = fmt.Sprintf("%s sees %s, which is not a public address", a.Server, a.Mapped.Addr())
		default:
			seen = append(seen, a)
		}
	}
	if len(seen) == 0 {
		f.Problem = problem
		return
	}
	first := seen[0]
	for _, a := range seen[1:] {
		if a.Mapped.Addr() != first.Mapped.Addr() {
			f.Mapping = Dependent
			f.Problem = fmt.Sprintf("%s sees %s, but %s sees %s", first.Server, first.Mapped.Addr(), a.Server, a.Mapped.Addr())
			return
		}
		if a.At.Addr() == first.At.Addr() && a.At.Port() == first.At.Port() {
			continue // one server under two names tells nothing new
		}
		if f.Mapping != Dependent {
			f.Mapping = Independent
		}
		if a.Mapped.Port() != first.Mapped.Port() {
			f.Mapping = Dependent
		}
	}
	f.Public, f.Source = first.Mapped.Addr(), "stun"
	if slices.Contains(host, f.Public) {
		f.Mapping, f.Source = None, "host"
	}
}
