package doctor

import (
	"fmt"
	"net/netip"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Names of what a phone outside tries, in this order.
const (
	StepHTTPS     = "HTTPS"
	StepWebSocket = "WebSocket"
	StepSTUN      = "STUN"
	StepUDP       = NameRelayUDP
	StepTCP       = NameRelayTCP
	StepTLS       = NameRelayTLS
)

// PhoneSteps are all of them.
func PhoneSteps() []string {
	return []string{StepHTTPS, StepWebSocket, StepSTUN, StepUDP, StepTCP, StepTLS}
}

// Tried is what the page on the phone says of one step. It comes from outside: nothing in it is believed but that it was said.
type Tried struct {
	Step   string `json:"step"`
	OK     bool   `json:"ok"`
	Detail string `json:"detail"` // what the browser said
	Millis int    `json:"millis"`
}

// Phone is what the server knows of the phone and of itself.
type Phone struct {
	From    netip.Addr // whence the page was asked for
	Inside  bool       // that is of this network: not from outside at all
	Secure  bool       // the page came by TLS
	Trusted bool       // browsers accept the certificate for TURN
	Port    uint16     // the one port
}

// maxDetail bounds what a browser may say, in bytes.
const maxDetail = 200

// FromOutside judges one step.
func FromOutside(p Phone, t Tried) Check {
	detail := clean(t.Detail)
	if t.OK {
		saw := "works, in " + brief(time.Duration(max(t.Millis, 0))*time.Millisecond)
		if detail != "" {
			saw += ": " + detail
		}
		if t.Step != StepHTTPS {
			return good(t.Step, saw)
		}
	} else if detail == "" {
		detail = "nothing came back"
	}
	forward := func(transport string) string {
		return fmt.Sprintf("forward %s port %d in the router to this machine, and let firewalls pass it", transport, p.Port)
	}
	switch t.Step {
	case StepHTTPS:
		switch {
		case !p.Secure:
			return warning(t.Step, fmt.Sprintf("the page came without TLS, from %v", p.From), "open the https:// link; browsers give a page from elsewhere no camera without it")
		case p.Inside:
			return warning(t.Step, fmt.Sprintf("the page was opened, but from %v, which is of this network", p.From), "switch the phone's Wi-Fi off, so that it comes from outside, and try again")
		}
		return good(t.Step, fmt.Sprintf("the page was opened from %v", p.From))
	case StepWebSocket:
		return failure(t.Step, detail, "where a reverse proxy stands in front, let it pass WebSockets (Upgrade and Connection headers); else the mobile network filters them")
	case StepSTUN:
		return failure(t.Step, detail, forward("UDP"))
	case StepUDP:
		return failure(t.Step, detail, forward("UDP")+"; where that is done, the mobile network blocks UDP, and calls go over TCP")
	case StepTCP:
		return failure(t.Step, detail, forward("TCP"))
	}
	if !p.Trusted {
		return warning(t.Step, detail+"; browsers refuse TURN over TLS with a certificate that is not publicly trusted", "get one that is: --domain NAME; without it the two other ways must do")
	}
	return failure(t.Step, detail, forward("TCP"))
}

// Known says whether a step is one of those that a phone tries.
func (t Tried) Known() bool {
	for _, s := range PhoneSteps() {
		if s == t.Step {
			return true
		}
	}
	return false
}

// clean makes a text of a stranger fit for a terminal: one line, bounded, nothing that moves the cursor.
func clean(s string) string {
	s = strings.ToValidUTF8(s, "")
	s = strings.Join(strings.FieldsFunc(s, func(r rune) bool { return unicode.IsSpace(r) || !unicode.IsPrint(r) }), " ")
	for len(s) > maxDetail {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return s
}
