package router

import (
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"
	"unicode"

	"github.com/huin/goupnp"
	"github.com/huin/goupnp/dcps/internetgateway2"
	"github.com/huin/goupnp/soap"
)

const (
	// maxXML bounds whatever the router answers.
	maxXML = 256 << 10
	// callTimeout bounds one call, from dialling to the last byte.
	callTimeout = 3 * time.Second
	// description is how our mappings are named in the router's list.
	description = "callbox"
	maxServices = 4
	maxText     = 80
)

// connection is what the three services have alike that can forward ports.
type connection interface {
	GetExternalIPAddressCtx(ctx context.Context) (string, error)
	GetStatusInfoCtx(ctx context.Context) (status, lastError string, uptime uint32, err error)
	GetSpecificPortMappingEntryCtx(ctx context.Context, remote string, external uint16, protocol string) (internal uint16, client string, enabled bool, text string, lease uint32, err error)
	AddPortMappingCtx(ctx context.Context, remote string, external uint16, protocol string, internal uint16, client string, enabled bool, text string, lease uint32) error
	DeletePortMappingCtx(ctx context.Context, remote string, external uint16, protocol string) error
}

// igd is a router that speaks UPnP.
type igd struct {
	connection
	version Kind
	title   string
	local   netip.Addr
}

func findIGD(ctx context.Context, cfg Config, gateway, local netip.Addr) (protocol, error) {
	var out *igd
	err := search(ctx, cfg, gateway, local, func(location *url.URL) error {
		var err error
		out, err = openIGD(ctx, location, gateway, local)
		return err
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// openIGD reads a description and chooses among the services it names: one that is connected, else the first.
func openIGD(ctx context.Context, location *url.URL, gateway, local netip.Addr) (*igd, error) {
	client := gatewayClient(gateway, local)
	root, err := describe(ctx, client, location)
	if err != nil {
		return nil, fmt.Errorf("description: %w", err)
	}
	base := location
	if root.URLBaseStr != "" {
		if base, err = atGateway(root.URLBaseStr, gateway); err != nil {
			return nil, err
		}
	}
	root.SetURLBase(base)
	var all []connection
	for _, service := range []string{internetgateway2.URN_WANIPConnection_2, internetgateway2.URN_WANIPConnection_1, internetgateway2.URN_WANPPPConnection_1} {
		generic, err := goupnp.NewServiceClientsFromRootDevice(root, base, service)
		if err != nil {
			continue // it has none of these
		}
		for _, g := range generic[:min(len(generic), maxServices)] {
			if _, err := atGateway(g.SOAPClient.EndpointURL.String(), gateway); err != nil {
				return nil, err
			}
			g.SOAPClient = &soap.SOAPClient{EndpointURL: g.SOAPClient.EndpointURL, HTTPClient: *client}
			switch service {
			case internetgateway2.URN_WANIPConnection_2:
				all = append(all, &internetgateway2.WANIPConnection2{ServiceClient: g})
			case internetgateway2.URN_WANIPConnection_1:
				all = append(all, &internetgateway2.WANIPConnection1{ServiceClient: g})
			default:
				all = append(all, &internetgateway2.WANPPPConnection1{ServiceClient: g})
			}
		}
	}
	if len(all) == 0 {
		return nil, errors.New("it has no service that forwards ports")
	}
	out := &igd{connection: all[0], version: IGD1, title: printable(root.Device.FriendlyName), local: local}
	if strings.HasSuffix(root.Device.DeviceType, ":2") {
		out.version = IGD2
	}
	for _, c := range all[:min(len(all), maxServices)] {
		if status, _, _, err := c.GetStatusInfoCtx(ctx); err == nil && strings.EqualFold(status, "Connected") {
			out.connection = c
			break
		}
	}
	return out, nil
}

func describe(ctx context.Context, client *http.Client, location *url.URL) (*goupnp.RootDevice, error) {
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, location.String(), nil)
	if err != nil {
		return nil, err
	}
	response, err := client.Do(request)
	if err != nil {
		return nil, err
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the router answers %.40s", response.Status)
	}
	root := new(goupnp.RootDevice)
	d := xml.NewDecoder(response.Body)
	d.DefaultSpace = goupnp.DeviceXMLNamespace
	if err := d.Decode(root); err != nil {
		return nil, err
	}
	return root, nil
}

// gatewayClient is an HTTP client that connects to the gateway alone, follows nothing and reads little. It comes from the
// address that ports are to be forwarded to: many routers forward none to another.
func gatewayClient(gateway, local netip.Addr) *http.Client {
	dialer := &net.Dialer{Timeout: callTimeout, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(local, 0))}
	return &http.Client{
		Timeout:       callTimeout,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: bounded{&http.Transport{
			DisableKeepAlives:      true,
			MaxResponseHeaderBytes: 16 << 10,
			DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
				host, _, err := net.SplitHostPort(addr)
				if err != nil {
					return nil, err
				}
				if ip, err := netip.ParseAddr(host); err != nil || ip.Unmap() != gateway {
					return nil, fmt.Errorf("%s is not the gateway", host)
				}
				return dialer.DialContext(ctx, "tcp4", addr)
			},
		}},
	}
}

// bounded cuts bodies off, so that decoders meet an early end.
type bounded struct{ next http.RoundTripper }

func (b bounded) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := b.next.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	response.Body = struct {
		io.Reader
		io.Closer
	}{io.LimitReader(response.Body, maxXML), response.Body}
	return response, nil
}

func (g *igd) kind() Kind   { return g.version }
func (g *igd) name() string { return g.title }

func (g *igd) external(ctx context.Context) (netip.Addr, error) {
	text, err := g.GetExternalIPAddressCtx(ctx)
	if err != nil {
		return netip.Addr{}, upnpError(err)
	}
	if text == "" {
		return netip.Addr{}, nil
	}
	addr, err := netip.ParseAddr(strings.TrimSpace(text))
	if addr = addr.Unmap(); err != nil || !addr.Is4() {
		return netip.Addr{}, fmt.Errorf("the router's address outside is %.40q, which is none of IPv4", text)
	}
	return addr, nil
}

// The error codes of WANIPConnection.
const (
	codeNotAuthorized  = 606
	codeNoSuchEntry    = 714
	codeConflict       = 718
	codePermanentOnly  = 725
	codeNoRoom         = 728
	codeOtherMechanism = 729
)

func (g *igd) add(ctx context.Context, p Port, lease time.Duration, now time.Time) (Mapping, error) {
	protocol := strings.ToUpper(p.Protocol)
	// Some routers let the last one win, so who holds the port is asked before.
	internal, client, _, text, _, err := g.GetSpecificPortMappingEntryCtx(ctx, "", p.Number, protocol)
	if ctx.Err() != nil {
		return Mapping{}, ctx.Err()
	}
	if err == nil {
		addr, bad := netip.ParseAddr(strings.TrimSpace(client))
		switch {
		case bad == nil && addr.Unmap() != g.local:
			return Mapping{}, fmt.Errorf("%w: it goes to %s (%s)", ErrConflict, addr, printable(text))
		case bad == nil && internal != p.Number:
			return Mapping{}, fmt.Errorf("%w: it goes to port %d of this host (%s)", ErrConflict, internal, printable(text))
		}
	}
	seconds := uint32(lease / time.Second)
	err = g.AddPortMappingCtx(ctx, "", p.Number, protocol, p.Number, g.local.String(), true, description, seconds)
	if code(err) == codePermanentOnly {
		seconds = 0
		err = g.AddPortMappingCtx(ctx, "", p.Number, protocol, p.Number, g.local.String(), true, description, 0)
	}
	if err != nil {
		return Mapping{}, upnpError(err)
	}
	if seconds == 0 {
		return Mapping{Port: p}, nil
	}
	return Mapping{Port: p, Until: now.Add(lease)}, nil
}

func (g *igd) remove(ctx context.Context, p Port) error {
	protocol := strings.ToUpper(p.Protocol)
	_, client, _, _, _, err := g.GetSpecificPortMappingEntryCtx(ctx, "", p.Number, protocol)
	if code(err) == codeNoSuchEntry {
		return nil
	}
	if err == nil {
		if addr, bad := netip.ParseAddr(strings.TrimSpace(client)); bad == nil && addr.Unmap() != g.local {
			return nil
		}
	}
	err = g.DeletePortMappingCtx(ctx, "", p.Number, protocol)
	if code(err) == codeNoSuchEntry {
		return nil
	}
	return upnpError(err)
}

func (g *igd) lost(ctx context.Context, p Port) bool {
	_, _, _, _, _, err := g.GetSpecificPortMappingEntryCtx(ctx, "", p.Number, strings.ToUpper(p.Protocol))
	return code(err) == codeNoSuchEntry
}

// code is the number of an error that the router itself has answered, else 0.
func code(err error) int {
	var fault *soap.SOAPFaultError
	if errors.As(err, &fault) {
		return fault.Detail.UPnPError.Errorcode
	}
	return 0
}

// upnpError names what the router has answered, within bounds.
func upnpError(err error) error {
	var fault *soap.SOAPFaultError
	switch code(err) {
	case 0:
		if err == nil {
			return nil
		}
		return errors.New(clip(err.Error(), 2*maxText)) // the library's texts may quote whole answers
	case codeNotAuthorized:
		return fmt.Errorf("%w: error 606", ErrRefused)
	case codeConflict, codeOtherMechanism:
		return ErrConflict
	case codeNoRoom:
		return ErrFull
	}
	errors.As(err, &fault)
	return fmt.Errorf("%w: error %d, %s", ErrRefused, fault.Detail.UPnPError.Errorcode, printable(fault.Detail.UPnPError.ErrorDescription))
}

// printable makes the router's text fit to be shown.
func printable(s string) string {
	return clip(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, s), maxText)
}

func clip(s string, n int) string {
	if runes := []rune(s); len(runes) > n {
		return string(runes[:n])
	}
	return s
}
