// Package localca gives a server on a private network the certificate that browsers ask for before they open a camera: a
// certificate authority of its own, made once, kept in the data directory and bound by name constraints to this host's
// names and private addresses, so that a stolen key opens nothing else; and leaf certificates made on demand. It also
// serves certificate files of the owner's instead. It speaks to no public authority.
package localca
