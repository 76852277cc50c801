package cli

// Where the system has no certificate authorities, as in an empty container, the public ones compiled in are used.
import _ "golang.org/x/crypto/x509roots/fallback"
