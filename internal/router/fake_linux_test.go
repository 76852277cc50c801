package router

import (
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// address is one of the host's own loopback addresses, by chance one that no other test uses.
func address() netip.Addr {
	return netip.AddrFrom4([4]byte{127, byte(1 + rand.IntN(250)), byte(rand.IntN(250)), byte(2 + rand.IntN(250))})
}

// entry is a mapping in a fake's table.
type entry struct {
	client   string
	internal int
	lease    int
}

// fakeIGD is a router that speaks UPnP on a loopback address. Its fields may be changed under mu.
type fakeIGD struct {
	addr   netip.Addr
	search uint16 // port of its search service
	web    *httptest.Server
	t      *testing.T

	mu        sync.Mutex
	version   int
	location  string // in its answers to searches
	external  string
	permanent bool // knows leases without end only
	room      int
	refuses   int              // the error that each AddPortMapping gets
	table     map[string]entry // by "8080 TCP"
	calls     map[string]int
	describe  http.HandlerFunc // instead of the description
	control   http.HandlerFunc // instead of the services
}

func newIGD(t *testing.T) *fakeIGD {
	t.Helper()
	f := &fakeIGD{t: t, addr: address(), version: 1, external: "203.0.113.7", room: 32, table: map[string]entry{}, calls: map[string]int{}}
	l, err := net.Listen("tcp4", netip.AddrPortFrom(f.addr, 0).String())
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/desc.xml", f.serveDescription)
	mux.HandleFunc("/control", f.serveControl)
	f.web = &httptest.Server{Listener: l, Config: &http.Server{Handler: mux}}
	f.web.Start()
	t.Cleanup(f.web.Close)
	f.location = f.web.URL + "/desc.xml"
	f.search = f.answerSearches(f.addr, func() string { f.mu.Lock(); defer f.mu.Unlock(); return f.location })
	return f
}

// set changes the fake, or looks at it.
func (f *fakeIGD) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// answerSearches is a search service at an address; it returns its port.
func (f *fakeIGD) answerSearches(at netip.Addr, location func() string) uint16 {
	f.t.Helper()
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(at, 0)))
	if err != nil {
		f.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 2048)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			if !strings.HasPrefix(string(buffer[:n]), "M-SEARCH * HTTP/1.1\r\n") {
				continue
			}
			answer := fmt.Sprintf("HTTP/1.1 200 OK\r\nCACHE-CONTROL: max-age=120\r\nST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\nLOCATION: %s\r\nEXT:\r\n\r\n", location())
			_, _ = conn.WriteToUDPAddrPort([]byte(answer), from)
		}
	}()
	f.t.Cleanup(func() { _ = conn.Close(); <-done })
	return conn.LocalAddr().(*net.UDPAddr).AddrPort().Port()
}

// config leads Find to the fake.
func (f *fakeIGD) config() Config {
	return Config{Gateway: f.addr, Local: f.addr, ssdp: f.search, search: netip.AddrPortFrom(f.addr, f.search)}
}

func (f *fakeIGD) serveDescription(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	describe, version := f.describe, f.version
	f.mu.Unlock()
	if describe != nil {
		describe(w, r)
		return
	}
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?>
<root xmlns="urn:schemas-upnp-org:device-1-0"><specVersion><major>1</major><minor>0</minor></specVersion>
<device><deviceType>urn:schemas-upnp-org:device:InternetGatewayDevice:%[1]d</deviceType><friendlyName>Home%[2]s box</friendlyName>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANDevice:%[1]d</deviceType>
<deviceList><device><deviceType>urn:schemas-upnp-org:device:WANConnectionDevice:%[1]d</deviceType>
<serviceList><service><serviceType>urn:schemas-upnp-org:service:WANIPConnection:%[1]d</serviceType>
<serviceId>urn:upnp-org:serviceId:WANIPConn1</serviceId><controlURL>/control</controlURL><eventSubURL>/e</eventSubURL><SCPDURL>/s</SCPDURL></service></serviceList>
</device></deviceList></device></deviceList></device></root>`, version, "\u0085")
}

var (
	argument = regexp.MustCompile(`<(New\w+)>([^<]*)</`)
	action   = regexp.MustCompile(`#(\w+)"`)
)

func (f *fakeIGD) serveControl(w http.ResponseWriter, r *http.Request) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.control != nil {
		f.control(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	in := map[string]string{}
	for _, m := range argument.FindAllStringSubmatch(string(body), -1) {
		in[m[1]] = m[2]
	}
	name := ""
	if m := action.FindStringSubmatch(r.Header.Get("Soapaction")); m != nil {
		name = m[1]
	}
	f.calls[name]++
	key := in["NewExternalPort"] + " " + in["NewProtocol"]
	held, taken := f.table[key]
	switch name {
	case "GetStatusInfo":
		f.answer(w, name, "<NewConnectionStatus>Connected</NewConnectionStatus><NewLastConnectionError>ERROR_NONE</NewLastConnectionError><NewUptime>5</NewUptime>")
	case "GetExternalIPAddress":
		f.answer(w, name, "<NewExternalIPAddress>"+f.external+"</NewExternalIPAddress>")
	case "GetSpecificPortMappingEntry":
		if !taken {
			f.fault(w, 714)
			return
		}
		f.answer(w, name, fmt.Sprintf("<NewInternalPort>%d</NewInternalPort><NewInternalClient>%s</NewInternalClient><NewEnabled>1</NewEnabled><NewPortMappingDescription>game</NewPortMappingDescription><NewLeaseDuration>%d</NewLeaseDuration>", held.internal, held.client, held.lease))
	case "AddPortMapping":
		lease, _ := strconv.Atoi(in["NewLeaseDuration"])
		internal, _ := strconv.Atoi(in["NewInternalPort"])
		switch {
		case f.refuses != 0:
			f.fault(w, f.refuses)
			return
		case f.permanent && lease != 0:
			f.fault(w, 725)
			return
		case !taken && len(f.table) >= f.room:
			f.fault(w, 728)
			return
		}
		f.table[key] = entry{in["NewInternalClient"], internal, lease}
		f.answer(w, name, "")
	case "DeletePortMapping":
		if !taken {
			f.fault(w, 714)
			return
		}
		delete(f.table, key)
		f.answer(w, name, "")
	default:
		f.fault(w, 401)
	}
}

func (f *fakeIGD) answer(w http.ResponseWriter, name, arguments string) {
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><u:%[1]sResponse xmlns:u="urn:schemas-upnp-org:service:WANIPConnection:%[3]d">%[2]s</u:%[1]sResponse></s:Body></s:Envelope>`, name, arguments, f.version)
}

func (f *fakeIGD) fault(w http.ResponseWriter, code int) {
	w.WriteHeader(http.StatusInternalServerError)
	_, _ = fmt.Fprintf(w, `<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" s:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body><s:Fault><faultcode>s:Client</faultcode><faultstring>UPnPError</faultstring><detail><UPnPError xmlns="urn:schemas-upnp-org:control-1-0"><errorCode>%d</errorCode><errorDescription>no</errorDescription></UPnPError></detail></s:Fault></s:Body></s:Envelope>`, code)
}

// fakePMP is a router that speaks NAT-PMP on a loopback address.
type fakePMP struct {
	addr netip.Addr

	mu    sync.Mutex
	epoch uint32
	code  uint16
	taken map[uint16]bool // ports of others
	table map[[3]byte]uint32
}

func newPMP(t *testing.T) *fakePMP {
	t.Helper()
	f := &fakePMP{addr: address(), epoch: 100, taken: map[uint16]bool{}, table: map[[3]byte]uint32{}}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(f.addr, 5351)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		buffer := make([]byte, 64)
		for {
			n, from, err := conn.ReadFromUDPAddrPort(buffer)
			if err != nil {
				return
			}
			if answer := f.answer(buffer[:n]); answer != nil {
				_, _ = conn.WriteToUDPAddrPort(answer, from)
			}
		}
	}()
	t.Cleanup(func() { _ = conn.Close(); <-done })
	return f
}

func (f *fakePMP) config() Config {
	// Nobody answers searches there.
	return Config{Gateway: f.addr, Local: f.addr, ssdp: 9, search: netip.AddrPortFrom(f.addr, 9), wait: time.Millisecond}
}

// set changes the fake.
func (f *fakePMP) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// answer is RFC 6886 section 3.
func (f *fakePMP) answer(request []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(request) < 2 || request[0] != 0 {
		return nil
	}
	out := []byte{0, request[1] | 0x80}
	out = binary.BigEndian.AppendUint16(out, f.code)
	out = binary.BigEndian.AppendUint32(out, f.epoch)
	if request[1] == 0 {
		return append(out, 203, 0, 113, 9)
	}
	if len(request) != 12 {
		return nil
	}
	internal, external, life := binary.BigEndian.Uint16(request[4:]), binary.BigEndian.Uint16(request[6:]), binary.BigEndian.Uint32(request[8:])
	key := [3]byte{request[1], request[4], request[5]}
	if f.code == 0 {
		delete(f.table, key)
		if life > 0 {
			f.table[key] = life
		}
	}
	if f.taken[external] {
		external++
	}
	out = binary.BigEndian.AppendUint16(out, internal)
	out = binary.BigEndian.AppendUint16(out, external)
	return binary.BigEndian.AppendUint32(out, life)
}
