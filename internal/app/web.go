package app

import (
	"log/slog"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"callbox/auth"
	"callbox/bus"
	"callbox/internal/certs"
	"callbox/internal/config"
	"callbox/internal/control"
	"callbox/internal/localca"
	"callbox/internal/nat"
	"callbox/relay"
	"callbox/signal"
	"callbox/static"
)

const (
	cookieName = "callbox_session"

	// Limits of the HTTP server. A request is small, so whoever needs longer for it is slow on purpose.
	headerTimeout  = 10 * time.Second
	readTimeout    = 30 * time.Second
	writeTimeout   = 60 * time.Second
	idleTimeout    = 2 * time.Minute
	maxHeaderBytes = 32 << 10
)

// web answers HTTP. Its fields are set before it serves and do not change.
type web struct {
	log     *slog.Logger
	now     func() time.Time
	version string

	users     *auth.Users
	externals *auth.Externals
	openid    *openidLogin // nil: there is no provider
	sessions  *auth.Sessions
	keys      *auth.Keys
	setup     *auth.Setup
	throttle  *auth.Throttle
	invites   *auth.Invites

	hub   *signal.Hub
	relay *relay.Server
	bus   bus.Bus
	ice   func(c caller, from client, relayNode bus.NodeID) signal.ICE

	bases     func() []string        // URLs by which others reach the server
	publicURL func() string          // --public-url, or ""
	inviters  func() config.Inviters // --guest-invites

	origins  origins
	compat   compat
	trusted  func(netip.Addr) bool
	network  func() *nat.Report // nil: nobody looks
	draining func() bool
	linkUp   func() bool
	revoked  func() // something was revoked: whatever hangs on it ends
	metrics  http.Handler
	phone    phoneRoutes
	doctor   func() *readyDoctor // nil before the first examination

	certificate func() certs.State
	authority   func() (*localca.CA, error)
	challenge   func(w http.ResponseWriter, r *http.Request, host string) bool // answers a certificate authority; nil: none is asked
}

// methods answers a path by request method, and says which there are to any other.
type methods map[string]http.HandlerFunc

func (m methods) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	method := r.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if h, ok := m[method]; ok {
		h(w, r)
		return
	}
	var allowed []string
	for name := range m {
		allowed = append(allowed, name)
	}
	slices.Sort(allowed)
	w.Header().Set("Allow", strings.Join(allowed, ", "))
	writeError(w, &apiError{Status: http.StatusMethodNotAllowed, Code: "bad-method", Message: "this path answers " + strings.Join(allowed, " and ")})
}

// handler is every route with everything around it.
func (s *web) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/{$}", methods{"GET": s.getHome})
	mux.Handle("/login", methods{"GET": s.getLogin, "POST": s.postLogin})
	mux.Handle(pathOpenID, methods{"GET": s.getOpenID})
	mux.Handle(pathOpenIDCallback, methods{"GET": s.getOpenIDCallback})
	mux.Handle("/logout", methods{"GET": s.getLogout, "POST": s.postLogout})
	mux.Handle("/setup", methods{"GET": s.getSetup, "POST": s.postSetup})
	mux.Handle("/call/{room}", methods{"GET": s.getCall})
	mux.Handle(control.InvitePath+"{token}", methods{"GET": s.getInvite, "POST": s.postInvite})
	mux.Handle("/ws", methods{"GET": s.getWebSocket})
	s.compat.routes(s, mux)

	api := http.NewServeMux()
	api.Handle("/api/v1/login", methods{"POST": s.postAPILogin})
	api.Handle("/api/v1/invites", methods{"POST": s.postAPIInvite})
	api.Handle("/api/v1/ice-servers", methods{"GET": s.getICEServers})
	api.Handle("/api/v1/turn", methods{"GET": s.getTURN})
	api.Handle("/api/v1/relay", methods{"GET": s.getRelay})
	api.HandleFunc("/", s.notFound)
	mux.Handle("/api/", s.origins.withCORS(api))
	mux.Handle(static.Prefix, s.origins.withCORS(static.Handler(s.refuseFile)))

	mux.Handle(phonePath+"{token}", s.phone.page)
	mux.Handle(phonePath+"{token}/ws", s.phone.socket)
	mux.Handle(pathCA, methods{"GET": s.getCA})
	mux.Handle(pathCARoot, methods{"GET": s.getCARoot})
	mux.Handle(pathCAProfile, methods{"GET": s.getCAProfile})

	mux.Handle("/healthz", methods{"GET": s.getHealth})
	mux.Handle("/readyz", methods{"GET": s.getReady})
	mux.Handle("/metrics", methods{"GET": s.getMetrics})
	mux.HandleFunc("/", s.notFound)

	var h http.Handler = mux
	h = s.origins.withProtection(s.log, h)
	h = http.MaxBytesHandler(h, maxBody)
	h = withHTTPS(s.log, h)
	h = s.withChallenge(withRecovery(s.log, withHeaders(h)))
	return withClient(s.trusted, s.log, h)
}

func (s *web) notFound(w http.ResponseWriter, r *http.Request) {
	refuse(w, r, s.log, &apiError{Status: http.StatusNotFound, Code: "not-found", Message: "there is nothing at this address"})
}

// refuseFile answers for a file that is not there, or is not asked with GET.
func (s *web) refuseFile(w http.ResponseWriter, r *http.Request, status int) {
	if status == http.StatusNotFound {
		s.notFound(w, r)
		return
	}
	refuse(w, r, s.log, &apiError{Status: status, Code: "bad-method", Message: "this path answers " + w.Header().Get("Allow")})
}

// server is an http.Server with the limits that every listener of callbox has.
func (s *web) server(h http.Handler) *http.Server {
	return &http.Server{
		Handler:           h,
		ConnContext:       connContext,
		ReadHeaderTimeout: headerTimeout,
		ReadTimeout:       readTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}
