package router

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"time"
)

const (
	// searchFor is how long answers are waited for.
	searchFor = 2 * time.Second
	// searchAgain is the pause between searches: the datagrams may be lost.
	searchAgain = 600 * time.Millisecond
	// maxLocations bounds what one router may name.
	maxLocations = 4
)

// targets are what is searched for. Many routers of version 2 answer to version 1 only.
var targets = [...]string{ // does not change
	"urn:schemas-upnp-org:device:InternetGatewayDevice:1",
	"urn:schemas-upnp-org:device:InternetGatewayDevice:2",
}

// errSilent says that the gateway has not answered a search.
var errSilent = errors.New("no answer")

// search calls take with every description that the gateway names, until it is content or the time is over. Searches go to
// the gateway itself and to the multicast group, since some routers answer only there; answers of other hosts, and those
// that lead to other hosts, are refused.
func search(ctx context.Context, cfg Config, gateway, local netip.Addr, take func(*url.URL) error) error {
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(local, 0)))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	port, group := cfg.ssdp, cfg.search
	if port == 0 {
		port = 1900
	}
	if !group.IsValid() {
		group = netip.AddrPortFrom(netip.AddrFrom4([4]byte{239, 255, 255, 250}), 1900)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	last, seen := errSilent, []string{}
	wait := cfg.wait
	if wait == 0 {
		wait = searchFor
	}
	end := time.Now().Add(wait)
	buffer := make([]byte, 2048)
	for ctx.Err() == nil && time.Now().Before(end) {
		sent := false
		for _, to := range []netip.AddrPort{netip.AddrPortFrom(gateway, port), group} {
			for _, target := range targets {
				// A host without a route for multicast still reaches the gateway.
				if _, err := conn.WriteToUDPAddrPort(searchRequest(to, target), to); err == nil {
					sent = true
				} else {
					last = err
				}
			}
		}
		if !sent {
			return last
		}
		until := time.Now().Add(searchAgain)
		if until.After(end) {
			until = end
		}
		if ctx.Err() != nil || conn.SetReadDeadline(until) != nil {
			break
		}
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				if !timedOut(err) && ctx.Err() == nil {
					continue // such as a port that is closed, as the gateway tells by ICMP
				}
				break
			}
			if from.Addr().Unmap() != gateway {
				continue
			}
			location, err := parseAnswer(buffer[:n], gateway)
			if err != nil {
				last = err
				continue
			}
			if slices.Contains(seen, location.String()) || len(seen) == maxLocations {
				continue
			}
			seen = append(seen, location.String())
			if last = take(location); last == nil {
				return nil
			}
		}
	}
	return last
}

func timedOut(err error) bool {
	var t net.Error
	return errors.As(err, &t) && t.Timeout()
}

func searchRequest(to netip.AddrPort, target string) []byte {
	return fmt.Appendf(nil, "M-SEARCH * HTTP/1.1\r\nHOST: %s\r\nMAN: \"ssdp:discover\"\r\nMX: 1\r\nST: %s\r\n\r\n", to, target)
}

// parseAnswer is the location that an answer names, which must be at the gateway.
func parseAnswer(datagram []byte, gateway netip.Addr) (*url.URL, error) {
	response, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(datagram)), nil)
	if err != nil {
		return nil, fmt.Errorf("answer to the search: %w", err)
	}
	_ = response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("answer to the search: %.40s", response.Status)
	}
	return atGateway(response.Header.Get("Location"), gateway)
}

// atGateway parses a URL and refuses one that leads anywhere but to the gateway.
func atGateway(text string, gateway netip.Addr) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil || u.Scheme != "http" || u.User != nil {
		return nil, fmt.Errorf("%.80q is not the address of a description", text)
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err != nil || addr.Unmap() != gateway {
		return nil, fmt.Errorf("the gateway %s names a description at another host, %.80q", gateway, u.Host)
	}
	return u, nil
}
