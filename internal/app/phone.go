package app

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"callbox/auth"
	"callbox/internal/control"
	"callbox/internal/doctor"
	"callbox/relay"
	"callbox/static"
)

const (
	// phoneLife is how long the link of a probe is good.
	phoneLife = 10 * time.Minute
	// phoneOwner is whose the allocations of a probe are; see doctorOwner.
	phoneOwner = "callbox:phone"
	// phonePath begins the links; the token follows.
	phonePath = "/doctor/"
	// phoneCookie ties a link to the browser that opened it first.
	phoneCookie = "callbox_doctor"
	// echoTime bounds the WebSocket of the page, echoSize its one message in bytes.
	echoTime = 20 * time.Second
	echoSize = 256
)

// phones lets one phone at a time try this server from outside.
type phones struct {
	a *App

	mu    sync.Mutex // guards what follows
	probe *phoneProbe
}

// phoneProbe is one link and what has come by it. Its mutable fields are guarded by phones.mu.
type phoneProbe struct {
	token   string
	session string // of its TURN credential
	expires time.Time
	browser string          // the cookie of who has opened it; "" nobody
	from    client          // who has
	tried   map[string]bool // steps that were reported
	news    chan control.PhoneLine
}

// phoneRoutes answer the links of probes.
type phoneRoutes struct{ page, socket methods }

func (a *App) phoneRoutes() phoneRoutes {
	return phoneRoutes{page: methods{"GET": a.getPhone, "POST": a.postPhone}, socket: methods{"GET": a.getPhoneSocket}}
}

// begin makes a probe; nil where there is one already.
func (p *phones) begin(now time.Time) *phoneProbe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probe != nil {
		return nil
	}
	p.probe = &phoneProbe{
		token: rand.Text(), session: phoneOwner + ":" + rand.Text(), expires: now.Add(phoneLife), tried: make(map[string]bool),
		news: make(chan control.PhoneLine, len(doctor.PhoneSteps())+1), // each step and the opening are told once: never full
	}
	return p.probe
}

// end forgets a probe, and closes the relays that were made for it.
func (p *phones) end() {
	p.mu.Lock()
	session := p.probe.session
	p.probe = nil
	p.mu.Unlock()
	tag := auth.SessionTag(p.a.secrets.Master, session)
	p.a.relay.Revoke(func(o relay.Owner) bool { return o.Session == tag })
}

// allows says whether a TURN credential may make allocations: those of a probe only while it lives.
func (p *phones) allows(userTag, sessionTag string) bool {
	if userTag != auth.UserTag(p.a.secrets.Master, phoneOwner) {
		return true
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.probe != nil && sessionTag == auth.SessionTag(p.a.secrets.Master, p.probe.session)
}

// find is the probe of a request's token; nil: there is none.
func (p *phones) find(r *http.Request, now time.Time) *phoneProbe {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.probe == nil || !now.Before(p.probe.expires) || subtle.ConstantTimeCompare([]byte(r.PathValue("token")), []byte(p.probe.token)) != 1 {
		return nil
	}
	return p.probe
}

// opens lets the first browser in, and again where it has the cookie. It returns the cookie to set, or "".
func (p *phones) opens(probe *phoneProbe, r *http.Request) (cookie string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if probe.browser != "" {
		return "", hasCookie(r, probe.browser)
	}
	probe.browser, probe.from = rand.Text(), clientOf(r)
	probe.news <- control.PhoneLine{Opened: probe.from.Addr.String()}
	return probe.browser, true
}

// opened says whether a request is of the browser that has opened the link.
func (p *phones) opened(probe *phoneProbe, r *http.Request) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return probe.browser != "" && hasCookie(r, probe.browser)
}

func hasCookie(r *http.Request, value string) bool {
	c, err := r.Cookie(phoneCookie)
	return err == nil && subtle.ConstantTimeCompare([]byte(c.Value), []byte(value)) == 1
}

// report takes what the page says of a step, once.
func (p *phones) report(probe *phoneProbe, t doctor.Tried) {
	l := p.a.live.Load()
	p.mu.Lock()
	defer p.mu.Unlock()
	if probe.tried[t.Step] {
		return
	}
	probe.tried[t.Step] = true
	from := probe.from
	check := doctor.FromOutside(doctor.Phone{
		From: from.Addr, Inside: !outside(from.Addr, l.public), Secure: from.Secure,
		Trusted: p.a.offersTLS(from.Hostname()), Port: p.a.addr.Port(),
	}, t)
	probe.news <- control.PhoneLine{Check: &check}
}

// controlPhone waits for a phone, for as long as who has asked listens.
func (a *App) controlPhone(w http.ResponseWriter, r *http.Request) {
	if a.watcher != nil {
		a.awaitNetwork(r.Context()) // the link names the public address
	}
	probe := a.phones.begin(time.Now())
	if probe == nil {
		writeError(w, &apiError{Status: http.StatusServiceUnavailable, Code: control.CodeBusy, Message: "a phone is waited for already; end that callbox doctor --phone first"})
		return
	}
	defer a.phones.end()
	say := a.lines(w, r, phoneLife)
	base, note := a.phoneBase()
	say(control.PhoneLine{Link: &control.PhoneLink{URL: base + phonePath + probe.token, Expires: probe.expires.UTC(), Note: note}})
	over := time.NewTimer(time.Until(probe.expires))
	defer over.Stop()
	for left := len(doctor.PhoneSteps()); left > 0; {
		select {
		case <-r.Context().Done():
			return
		case <-a.ending:
			say(control.PhoneLine{Ended: control.PhoneStopping})
			return
		case <-over.C:
			say(control.PhoneLine{Ended: control.PhoneExpired})
			return
		case line := <-probe.news:
			say(line)
			if line.Check != nil {
				left--
			}
		}
	}
	say(control.PhoneLine{Ended: control.PhoneDone})
}

// phoneBase is the URL by which somebody outside reaches the server, and what is to be known of it. It is an https: one in
// any case.
func (a *App) phoneBase() (base, note string) {
	l := a.live.Load()
	all := a.linkBases()
	switch {
	case l.cfg.PublicURL != "" || len(l.cfg.HostNames()) > 0:
		base = all[0]
	case len(l.public) > 0:
		return webURL("https", l.public[0].String(), a.addr.Port()), ""
	default:
		base, note = all[0], "The public address is not known: only a phone of this network can open the link, and what it tells holds for this network."
	}
	if host, ok := strings.CutPrefix(base, "http://"); ok {
		base = "https://" + host
	}
	return base, note
}

// phoneConfig is what the page tries.
func (a *App) phoneConfig(from client, probe *phoneProbe) static.PhoneConfig {
	l := a.live.Load()
	offer := a.offer(from.Hostname())
	if offer.Name == "" && len(l.public) > 0 {
		offer.Public = l.public
	}
	host, secure := offer.hosts()[0], offer.hosts()[0]
	if a.offersTLS(from.Hostname()) {
		secure = from.Hostname() // the certificate may be for the name alone
	}
	at := hostPort(host, offer.Port)
	c := static.PhoneConfig{
		STUN: "stun:" + at,
		UDP:  "turn:" + at + "?transport=udp", TCP: "turn:" + at + "?transport=tcp",
		TLS: "turns:" + hostPort(secure, offer.Port) + "?transport=tcp",
	}
	// What stands in front of this server is what clients are given.
	for _, u := range slices.Backward(offer.URLs) {
		switch {
		case strings.HasPrefix(u, "turns:"):
			c.TLS = u
		case strings.HasSuffix(u, "transport=tcp"):
			c.TCP = u
		case strings.HasPrefix(u, "turn:"):
			c.UDP = u
		case strings.HasPrefix(u, "stun:"):
			c.STUN = u
		}
	}
	c.Username, c.Credential, _ = l.turn.Credential(auth.Handle(a.secrets.Master, phoneOwner, probe.session), time.Until(probe.expires), time.Now())
	return c
}

func errPhoneGone() *apiError {
	return &apiError{Status: http.StatusNotFound, Code: "not-found", Message: "this link has ended, or another browser has opened it; run callbox doctor --phone for a new one"}
}

// getPhone is the page; only it has the credentials, and only for the browser that comes first.
func (a *App) getPhone(w http.ResponseWriter, r *http.Request) {
	probe := a.phones.find(r, time.Now())
	if probe == nil {
		refuse(w, r, a.log, errPhoneGone())
		return
	}
	if r.Method == http.MethodHead { // somebody looks at the link, and opens nothing
		w.WriteHeader(http.StatusOK)
		return
	}
	cookie, ok := a.phones.opens(probe, r)
	if !ok {
		refuse(w, r, a.log, errPhoneGone())
		return
	}
	if cookie != "" {
		http.SetCookie(w, &http.Cookie{
			Name: phoneCookie, Value: cookie, Path: phonePath + probe.token, MaxAge: int(phoneLife / time.Second),
			Secure: clientOf(r).Secure, HttpOnly: true, SameSite: http.SameSiteStrictMode,
		})
	}
	page(w, http.StatusOK, a.log, func(out io.Writer) error {
		return static.Phone(out, static.PhonePage{Config: a.phoneConfig(clientOf(r), probe)})
	})
}

// postPhone takes what the page has found.
func (a *App) postPhone(w http.ResponseWriter, r *http.Request) {
	probe := a.phones.find(r, time.Now())
	if probe == nil || !a.phones.opened(probe, r) {
		writeError(w, errPhoneGone())
		return
	}
	var tried doctor.Tried
	if err := readJSON(r, &tried); err != nil {
		writeError(w, err)
		return
	}
	if !tried.Known() {
		writeError(w, &apiError{Status: http.StatusBadRequest, Code: "bad-step", Message: "there is no such step"})
		return
	}
	a.phones.report(probe, tried)
	w.WriteHeader(http.StatusNoContent)
}

// getPhoneSocket says one message back.
func (a *App) getPhoneSocket(w http.ResponseWriter, r *http.Request) {
	probe := a.phones.find(r, time.Now())
	if probe == nil || !a.phones.opened(probe, r) {
		writeError(w, errPhoneGone())
		return
	}
	conn, err := websocket.Accept(w, r, nil) // which compares Origin with Host
	if err != nil {
		return // answered
	}
	defer conn.CloseNow()
	conn.SetReadLimit(echoSize)
	ctx, cancel := context.WithTimeout(r.Context(), echoTime)
	defer cancel()
	kind, text, err := conn.Read(ctx)
	if err == nil {
		err = conn.Write(ctx, kind, text)
	}
	if err == nil {
		err = conn.Close(websocket.StatusNormalClosure, "")
	}
	if err != nil {
		a.log.Debug("the phone's WebSocket ended", logError, err)
	}
}
