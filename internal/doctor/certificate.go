package doctor

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"
)

// Kind is where a certificate comes from.
type Kind string

// The kinds of certificates.
const (
	LocalCA Kind = "local" // of callbox's own authority
	OwnFile Kind = "files" // --tls-cert
	ACME    Kind = "acme"  // --domain
)

// Certificate is what TLS is served with.
type Certificate struct {
	Kind    Kind
	Leaf    *x509.Certificate // as served; nil: none was
	Served  error             // of the handshake
	Trouble string            // why the last order, renewal or reading has failed; "" it has not
	Out     bool              // Trouble is that the authority could not be asked
	Trusted bool              // the world's clients accept the chain
	Names   []string          // by which people come: --domain, --name
	Missing []string          // those of Names that there is no certificate for
	Now     time.Time
}

// expiry is how long before its end a certificate should have been renewed: a third of its life, at most a month.
func expiry(leaf *x509.Certificate) time.Duration {
	return min(leaf.NotAfter.Sub(leaf.NotBefore)/3, 30*24*time.Hour) / 2
}

// certificate judges what browsers get to see.
func certificate(c Certificate) Check {
	refused := "see that port 80 or 443 of the name reaches this server from outside, and that the name's DNS leads here; callbox tries again by itself"
	if c.Out {
		refused = "let this machine reach the authority (--acme-ca) over https, and see that its clock is right; callbox tries again by itself"
	}
	if c.Leaf == nil {
		saw := "none is served"
		if c.Served != nil {
			saw += ": " + c.Served.Error()
		}
		switch {
		case c.Kind == ACME && c.Trouble != "":
			return failure(NameCertificate, "none: "+c.Trouble, refused)
		case c.Kind == ACME:
			return failure(NameCertificate, saw, refused)
		}
		return failure(NameCertificate, saw, "look at the server's log; --tls-cert and --tls-key must be readable")
	}
	lacks := slices.Clone(c.Missing)
	for _, name := range c.Names {
		if c.Kind == OwnFile && c.Leaf.VerifyHostname(name) != nil {
			lacks = append(lacks, name)
		}
	}
	left := c.Leaf.NotAfter.Sub(c.Now)
	until := "until " + stamp(c.Leaf.NotAfter)
	renew := "renew the files of --tls-cert and --tls-key; callbox takes them over when they change"
	if c.Kind == ACME {
		renew = refused
	}
	switch {
	case c.Kind == ACME && len(lacks) > 0:
		why := "none yet for " + strings.Join(lacks, ", ")
		if c.Trouble != "" {
			return failure(NameCertificate, why+": "+c.Trouble, refused)
		}
		return warning(NameCertificate, why+"; nothing has failed either", "a server gets it within a minute of its start: ask again then")
	case left <= 0:
		return failure(NameCertificate, "expired at "+stamp(c.Leaf.NotAfter), renew)
	case c.Now.Before(c.Leaf.NotBefore):
		return failure(NameCertificate, "not good before "+stamp(c.Leaf.NotBefore), "see "+NameClock)
	case len(lacks) > 0 && c.Kind == LocalCA:
		return warning(NameCertificate, "of callbox's own authority, which cannot speak for "+strings.Join(lacks, ", "),
			"remove ca.crt and ca.key from the data directory for a new authority, which devices must trust anew")
	case len(lacks) > 0:
		return failure(NameCertificate, "not for "+strings.Join(lacks, ", "), "get one for all names by which people come")
	case c.Kind == LocalCA:
		return good(NameCertificate, "of callbox's own authority, "+until+": each device warns once, and TURN over TLS is not offered; --domain gets one that all trust")
	case c.Trouble != "":
		return warning(NameCertificate, until+", but getting the next has failed: "+c.Trouble, renew)
	case !c.Trusted:
		return warning(NameCertificate, "not publicly trusted; "+until,
			"put the intermediate certificates behind the certificate in the file of --tls-cert, or get one of a public authority")
	case left < expiry(c.Leaf):
		return warning(NameCertificate, "ends soon: "+until, renew)
	}
	return good(NameCertificate, "publicly trusted, "+until)
}

// servedCertificate makes a handshake with the server and returns what it serves. Whether that is trusted is judged elsewhere.
func servedCertificate(ctx context.Context, at netip.AddrPort, name string) (*x509.Certificate, error) {
	d := tls.Dialer{NetDialer: &net.Dialer{}, Config: &tls.Config{ServerName: name, InsecureSkipVerify: true}}
	conn, err := d.DialContext(ctx, "tcp", at.String())
	if err != nil {
		return nil, cause(err)
	}
	defer conn.Close()
	state := conn.(*tls.Conn).ConnectionState()
	return state.PeerCertificates[0], nil
}
