//go:build !linux

package relay

const onLinux = false
