// Package certs gets certificates for public names and addresses by ACME (RFC 8555, RFC 8738), keeps them among the records
// that all nodes share, renews them, and says how it stands with them. The protocol is certmagic's work; this package decides
// when an order is placed, where things are kept, who holds the lock, and what a failure means.
//
// It opens no socket: challenges are answered by whoever serves TLS (Manager.Challenge) and HTTP (Manager.AnswerHTTP), on
// any node.
package certs
