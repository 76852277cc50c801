package relay

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"github.com/pion/stun/v2"
)

const (
	silent  = 0   // no answer is due
	success = 200 // for tables beside error codes
)

// TestGateAnswers is the table of what clients must see. Each row starts with an allocation unless it says otherwise.
func TestGateAnswers(t *testing.T) {
	unknownRequired := attr(0x7FFF, 1, 2, 3, 4)
	rows := []struct {
		name  string
		fresh bool // without an allocation
		user  string
		sends func(w *wire) *stun.Message
		want  int
	}{
		{"wrong password", true, "", func(w *wire) *stun.Message {
			w.password = "wrong"
			return w.signed(stun.MethodAllocate, transportUDP)
		}, 401},
		{"wrong password on an allocation", false, "", func(w *wire) *stun.Message {
			w.password = "wrong"
			return w.signed(stun.MethodRefresh)
		}, 401},
		{"unknown user", true, "1:nobody", func(w *wire) *stun.Message { return w.signed(stun.MethodAllocate, transportUDP) }, 401},
		{"expired user allocates", true, "1:expired", func(w *wire) *stun.Message { return w.signed(stun.MethodAllocate, transportUDP) }, 401},
		{"expired user refreshes", true, "1:expired", func(w *wire) *stun.Message { return w.signed(stun.MethodRefresh) }, 437},
		{"foreign realm", true, "", func(w *wire) *stun.Message {
			w.learn()
			w.realm = "elsewhere"
			return w.signed(stun.MethodAllocate, transportUDP)
		}, 401},
		{"no username", true, "", func(w *wire) *stun.Message {
			w.learn()
			return w.bare(stun.MethodAllocate, transportUDP, stun.NewRealm(w.realm), stun.NewNonce(w.nonce), w.key())
		}, 400},
		{"user name that is no text", true, "1:\xff\xfe", func(w *wire) *stun.Message { return w.signed(stun.MethodAllocate, transportUDP) }, 401},
		{"invented nonce", true, "", func(w *wire) *stun.Message {
			w.learn()
			w.nonce = "AAAAAAAAAAAAAAAA"
			return w.signed(stun.MethodAllocate, transportUDP)
		}, 438},
		{"integrity of SHA-256 alone", true, "", func(w *wire) *stun.Message {
			w.learn()
			return w.bare(stun.MethodAllocate, transportUDP, stun.NewUsername(w.username), stun.NewRealm(w.realm), stun.NewNonce(w.nonce), attr(0x001C, make([]byte, 32)...))
		}, 401},
		{"user hash for the user name", true, "", func(w *wire) *stun.Message {
			w.learn()
			return w.bare(stun.MethodAllocate, transportUDP, attr(0x001E, make([]byte, 32)...), stun.NewRealm(w.realm), stun.NewNonce(w.nonce), w.key())
		}, 400},
		{"integrity of the wrong length", true, "", func(w *wire) *stun.Message {
			return w.bare(stun.MethodAllocate, attr(stun.AttrMessageIntegrity, 1, 2, 3, 4))
		}, silent},

		{"no transport", true, "", func(w *wire) *stun.Message { return w.signed(stun.MethodAllocate) }, 400},
		{"transport TCP", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, attr(stun.AttrRequestedTransport, 6, 0, 0, 0))
		}, 442},
		{"family that does not exist", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrRequestedAddressFamily, 7, 0, 0, 0))
		}, 440},
		{"additional family IPv4", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(0x8000, wireFour, 0, 0, 0))
		}, 400},
		{"requested and additional family", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(0x8000, wireSix, 0, 0, 0), attr(stun.AttrRequestedAddressFamily, wireFour, 0, 0, 0))
		}, 400},
		{"even port and token", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrEvenPort, 0x80), attr(stun.AttrReservationToken, make([]byte, 8)...))
		}, 400},
		{"invented token", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrReservationToken, make([]byte, 8)...))
		}, 508},
		{"malformed lifetime", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(stun.AttrLifetime, 1))
		}, 400},
		{"second allocation", false, "", func(w *wire) *stun.Message { return w.signed(stun.MethodAllocate, transportUDP) }, 437},
		{"unknown required attribute", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, unknownRequired)
		}, 420},
		{"unknown required attribute, no credentials", true, "", func(w *wire) *stun.Message {
			return w.bare(stun.MethodAllocate, transportUDP, unknownRequired)
		}, 401},
		{"Binding with an unknown required attribute", true, "", func(w *wire) *stun.Message {
			return w.bare(stun.MethodBinding, unknownRequired)
		}, 420},
		{"unknown optional attribute", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodAllocate, transportUDP, attr(0xFFFE, 1))
		}, success},

		{"refresh without allocation", true, "", func(w *wire) *stun.Message { return w.signed(stun.MethodRefresh) }, 437},
		{"permission without allocation", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1"))
		}, 437},
		{"channel without allocation", true, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:1"))
		}, 437},
		{"refresh by another user", false, "1:bob", func(w *wire) *stun.Message { return w.signed(stun.MethodRefresh, lifetime(0)) }, 441},
		{"permission by another user", false, "1:bob", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1"))
		}, 441},
		{"channel by another user", false, "1:bob", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:1"))
		}, 441},
		{"refresh by an unknown user", false, "1:nobody", func(w *wire) *stun.Message { return w.signed(stun.MethodRefresh) }, 401},
		{"refresh of the other family", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodRefresh, attr(stun.AttrRequestedAddressFamily, wireSix, 0, 0, 0))
		}, 443},

		{"permission", false, "", func(w *wire) *stun.Message { return w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1")) }, success},
		{"permission for nobody", false, "", func(w *wire) *stun.Message { return w.signed(stun.MethodCreatePermission) }, 400},
		{"permission for the private network", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, peer("8.8.8.8:1"), peer("10.1.2.3:1"))
		}, 403},
		{"permission for metadata", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, peer("169.254.169.254:80"))
		}, 403},
		{"permission for the other family", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, peer("[2600::1]:1"))
		}, 443},
		{"malformed peer", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodCreatePermission, attr(stun.AttrXORPeerAddress, 0, 9, 1, 2))
		}, 400},

		{"channel", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4FFF), peer("8.8.8.8:1"))
		}, success},
		{"channel for the private network", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("192.168.0.1:1"))
		}, 403},
		{"channel for the server itself", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), xorPeer(netip.MustParseAddrPort(w.conn.RemoteAddr().String())))
		}, 403},
		{"channel of the other family", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("[2600::1]:1"))
		}, 443},
		{"channel 0x5000", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x5000), peer("8.8.8.8:1"))
		}, 400},
		{"channel 0x3FFF", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x3FFF), peer("8.8.8.8:1"))
		}, 400},
		{"channel for port 0", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000), peer("8.8.8.8:0"))
		}, 400},
		{"channel without number", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, peer("8.8.8.8:1"))
		}, 400},
		{"channel without peer", false, "", func(w *wire) *stun.Message {
			return w.signed(stun.MethodChannelBind, channelNumber(0x4000))
		}, 400},

		{"unknown method", false, "", func(w *wire) *stun.Message { return w.signed(stun.Method(0x0AB)) }, silent},
		{"Connect of RFC 6062", false, "", func(w *wire) *stun.Message { return w.signed(stun.Method(0x00A)) }, silent},
		{"success from a client", false, "", func(w *wire) *stun.Message {
			return stun.MustBuild(stun.TransactionID, stun.BindingSuccess)
		}, silent},
		{"Binding indication", false, "", func(w *wire) *stun.Message {
			return stun.MustBuild(stun.TransactionID, stun.NewType(stun.MethodBinding, stun.ClassIndication))
		}, silent},
		{"wrong fingerprint", true, "", func(w *wire) *stun.Message {
			return w.bare(stun.MethodBinding, attr(stun.AttrFingerprint, 1, 2, 3, 4))
		}, silent},
		{"attribute longer than the message", true, "", func(w *wire) *stun.Message {
			m := w.bare(stun.MethodBinding, attr(0x8000, 1, 2, 3, 4))
			binary.BigEndian.PutUint16(m.Raw[22:], 400)
			return m
		}, silent},
	}
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			both(t, nil, func(t *testing.T, s *testServer, network string) {
				w := dial(t, s, network)
				if !row.fresh {
					w.allocate()
				}
				if row.user != "" {
					w.as(row.user)
				}
				m := row.sends(w)
				if row.want == silent {
					w.silent(m.Raw)
					return
				}
				answer := w.ask(m)
				if row.want == success {
					if answer.Type.Class != stun.ClassSuccessResponse {
						t.Fatalf("answer %v %d", answer, errorCode(answer))
					}
					return
				}
				w.code(answer, row.want)
				switch row.want {
				case 401, 438:
					if w.text(answer, stun.AttrRealm) != "callbox" || len(w.text(answer, stun.AttrNonce)) != 16 {
						t.Fatalf("no realm or nonce in %v", answer)
					}
				case 420:
					if got := w.text(answer, stun.AttrUnknownAttributes); got != "\x7f\xff" {
						t.Fatalf("UNKNOWN-ATTRIBUTES %q", got)
					}
				}
				if row.want == 441 {
					w.as("1:alice").succeed(stun.MethodRefresh) // it is still there
				}
			})
		})
	}
}

func TestBareRequestIsNotAmplified(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.ask(w.bare(stun.MethodAllocate))
		if len(m.Raw) > 60 {
			t.Fatalf("%d bytes", len(m.Raw))
		}
		w.code(m, 401)
	})
}

func TestFingerprintWhereAsked(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		for _, asked := range []bool{true, false} {
			var with []stun.Setter
			if asked {
				with = append(with, stun.Fingerprint)
			}
			w.nonce = ""
			answers := []*stun.Message{
				w.ask(w.bare(stun.MethodBinding, with...)),
				w.ask(w.bare(stun.MethodAllocate, with...)),
				w.ask(w.bare(stun.MethodRefresh, append([]stun.Setter{stun.NewUsername(w.username)}, with...)...)),
			}
			w.learn()
			answers = append(answers, w.ask(w.bare(stun.MethodRefresh, append([]stun.Setter{stun.NewUsername(w.username),
				stun.NewRealm(w.realm), stun.NewNonce(w.nonce), w.key()}, with...)...)))
			for _, m := range answers {
				if m.Contains(stun.AttrFingerprint) != asked {
					t.Errorf("asked %v, got %v", asked, m)
				}
			}
		}
	})
}

func TestBindingTellsTheClientsAddress(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		m := w.ask(w.bare(stun.MethodBinding))
		if got := w.address(m, stun.AttrXORMappedAddress).String(); got != w.conn.LocalAddr().String() {
			t.Fatalf("%v is told %v", w.conn.LocalAddr(), got)
		}
	})
}

func TestLifetimes(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		for _, row := range []struct{ asked, allocate, refresh uint32 }{
			{0, 600, 0}, {1, 600, 600}, {600, 600, 600}, {1000, 1000, 1000}, {3599, 3599, 3599}, {3600, 3600, 3600}, {3601, 3600, 3600},
			{1 << 31, 3600, 3600},
		} {
			w := dial(t, s, network)
			granted := func(m *stun.Message) uint32 {
				return binary.BigEndian.Uint32([]byte(w.text(m, stun.AttrLifetime)))
			}
			if got := granted(w.succeed(stun.MethodAllocate, transportUDP, lifetime(row.asked))); got != row.allocate {
				t.Errorf("Allocate with lifetime %d got %d, want %d", row.asked, got, row.allocate)
			}
			if got := granted(w.succeed(stun.MethodRefresh, lifetime(row.asked))); got != row.refresh {
				t.Errorf("Refresh with lifetime %d got %d, want %d", row.asked, got, row.refresh)
			}
			if row.refresh == 0 {
				w.code(w.do(stun.MethodRefresh), 437)
				w.allocate() // the five-tuple is free again
			}
		}
	})
}

func TestAttributesAfterIntegrityDoNotCount(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		w := dial(t, s, network)
		w.allocate()
		m := w.signed(stun.MethodRefresh)
		if err := lifetime(0).AddTo(m); err != nil {
			t.Fatal(err)
		}
		if got := w.text(w.ask(m), stun.AttrLifetime); got != "\x00\x00\x02\x58" {
			t.Fatalf("lifetime % x", got)
		}
		w.succeed(stun.MethodRefresh)
	})
}

func TestNonceOfAnotherAddressIsStale(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		a, b := dial(t, s, network), dial(t, s, network)
		a.learn()
		b.realm, b.nonce = a.realm, a.nonce
		m := b.ask(b.signed(stun.MethodAllocate, transportUDP))
		b.code(m, 438)
		b.nonce = b.text(m, stun.AttrNonce)
		b.allocate()
	})
}

func TestNonceGrowsStale(t *testing.T) {
	n := newNonces(time.Hour)
	c := &client{remote: netip.MustParseAddrPort("192.0.2.7:1000")}
	now := time.Unix(1e9, 0)
	text := n.issue(c, now)
	for _, row := range []struct {
		after time.Duration
		want  bool
	}{{0, true}, {time.Hour, true}, {time.Hour + time.Second, false}, {-time.Second, false}} {
		if got := n.valid(text[:], c, now.Add(row.after)); got != row.want {
			t.Errorf("after %v: %v", row.after, got)
		}
	}
	for i := range text {
		text[i] ^= 1
		if n.valid(text[:], c, now) {
			t.Errorf("valid with character %d changed", i)
		}
		text[i] ^= 1
	}
}

func TestEverySecretsKeyFits(t *testing.T) {
	both(t, nil, func(t *testing.T, s *testServer, network string) {
		for _, p := range []string{"of the newest secret", password("1:alice")} {
			w := dial(t, s, network)
			w.password = p
			w.allocate()
			w.succeed(stun.MethodRefresh)
		}
	})
}

func TestRefusedPermissionsInstallNothing(t *testing.T) {
	both(t, allowLoopback, func(t *testing.T, s *testServer, network string) {
		to := echo(t, "127.0.0.1:0").AddrPort()
		w := dial(t, s, network)
		w.allocate()
		w.code(w.do(stun.MethodCreatePermission, xorPeer(to), peer("10.0.0.1:1")), 403)
		w.sendTo(to, []byte("not yet"))
		w.alive()
		if got := s.Stats().Drops["no-permission"]; got != 1 {
			t.Fatalf("%d dropped for want of a permission", got)
		}
		w.succeed(stun.MethodCreatePermission, xorPeer(to))
		w.sendTo(to, []byte("now"))
		if from, data := w.data(); from != to || string(data) != "now" {
			t.Fatalf("%q from %v", data, from)
		}
	})
}
