package config

import (
	"slices"
	"strings"
	"testing"
)

func TestCompatNamesProtocols(t *testing.T) {
	c, _, err := Load(Sources{Flags: map[string][]string{"compat": {"peerjs,y-webrtc", "ayame matchbox"}}, Environ: []string{"CALLBOX_COMPAT_OPEN=true"}})
	if err != nil || !slices.Equal(c.Compat, []Compat{PeerJS, YWebRTC, Ayame, Matchbox}) || !bool(c.CompatOpen) {
		t.Errorf("%v %v: %v", c.Compat, c.CompatOpen, err)
	}
	for text, flags := range map[string]map[string][]string{
		"use one of peerjs, y-webrtc, ayame, matchbox": {"compat": {"skype"}},
		"use one of on, off":                           {"compat": {"peerjs"}, "compat-open": {"auto"}},
		"opens no protocol":                            {"compat-open": {"on"}},
	} {
		if _, _, err := Load(Sources{Flags: flags}); err == nil || !strings.Contains(err.Error(), text) {
			t.Errorf("%v: %v", flags, err)
		}
	}
}
