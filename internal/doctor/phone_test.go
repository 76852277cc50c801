package doctor

import (
	"strings"
	"testing"
	"unicode/utf8"
)

func TestVerdictsFromOutside(t *testing.T) {
	p := Phone{From: addr("198.51.100.9"), Secure: true, Trusted: true, Port: 443}
	inside, plain, own := p, p, p
	inside.Inside, plain.Secure, own.Trusted = true, false, false
	for _, tc := range []struct {
		p           Phone
		tried       Tried
		verdict     Verdict
		saw, remedy string
	}{
		{p, Tried{Step: StepHTTPS, OK: true}, OK, "opened from 198.51.100.9", ""},
		{inside, Tried{Step: StepHTTPS, OK: true}, Warn, "of this network", "Wi-Fi off"},
		{plain, Tried{Step: StepHTTPS, OK: true}, Warn, "without TLS", "https://"},
		{p, Tried{Step: StepWebSocket, OK: true, Millis: 40}, OK, "works, in 40ms", ""},
		{p, Tried{Step: StepWebSocket}, Fail, "nothing came back", "reverse proxy"},
		{p, Tried{Step: StepSTUN, OK: true, Detail: "198.51.100.9"}, OK, ": 198.51.100.9", ""},
		{p, Tried{Step: StepSTUN, Detail: "701 timed out"}, Fail, "701 timed out", "forward UDP port 443"},
		{p, Tried{Step: StepUDP, OK: true}, OK, "works", ""},
		{p, Tried{Step: StepUDP}, Fail, "nothing came back", "forward UDP port 443"},
		{p, Tried{Step: StepTCP, OK: true}, OK, "works", ""},
		{p, Tried{Step: StepTCP}, Fail, "nothing came back", "forward TCP port 443"},
		{p, Tried{Step: StepTLS, OK: true}, OK, "works", ""},
		{p, Tried{Step: StepTLS}, Fail, "nothing came back", "forward TCP port 443"},
		{own, Tried{Step: StepTLS}, Warn, "not publicly trusted", "--domain"},
	} {
		expect(t, FromOutside(tc.p, tc.tried), tc.verdict, tc.saw, tc.remedy)
	}
}

func FuzzWhatAPhoneSays(f *testing.F) {
	f.Add(StepSTUN, "\x1b[2Jgone\r\n", -5, false)
	f.Add("nonsense", strings.Repeat("é", 300), 1<<40, true)
	f.Fuzz(func(t *testing.T, step, detail string, millis int, ok bool) {
		tried := Tried{Step: step, Detail: detail, Millis: millis, OK: ok}
		if !tried.Known() {
			return
		}
		saw := FromOutside(Phone{}, tried).Saw
		if len(saw) > 400 || !utf8.ValidString(saw) || strings.ContainsAny(saw, "\x1b\r\n\x00") {
			t.Errorf("%q", saw)
		}
	})
}
