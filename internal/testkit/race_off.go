//go:build !race

package testkit

const watchesRaces = false
