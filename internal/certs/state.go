package certs

import "time"

// Where a server's certificate comes from.
const (
	SourceACME    = "acme"     // an authority on the Internet, or a private one that speaks ACME
	SourceFiles   = "files"    // the owner's files
	SourceLocalCA = "local-ca" // this server's own authority
)

// State is how it stands with a server's certificate.
type State struct {
	Source string   // SourceACME, SourceFiles or SourceLocalCA
	Names  []string // the names and addresses that it is, or is to be, good for
	// Missing are those of Names for which there is no certificate yet; the local authority answers for them meanwhile.
	Missing  []string
	NotAfter time.Time // the earliest end of those there are; zero: there is none, or the local authority makes them as needed
	Issuer   string    // common name of who signed
	// Trusted says that the world's clients accept the chain.
	Trusted bool
	// Err is why the last order, renewal or reading of the files has failed, with the cause and what to do; nil once one
	// has succeeded.
	Err error
	// Retry is when the next attempt begins; zero: none is planned.
	Retry time.Time
}
