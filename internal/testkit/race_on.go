//go:build race

package testkit

const watchesRaces = true
