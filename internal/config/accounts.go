package config

// Inviters says who may make guest links on the call page.
type Inviters string

// The values of Inviters.
const (
	InviteUsers  Inviters = "users"
	InviteAdmins Inviters = "admins"
	InviteNobody Inviters = "off"
)

// UnmarshalText parses who may invite.
func (i *Inviters) UnmarshalText(text []byte) error {
	if string(text) == "false" || string(text) == "no" {
		text = []byte(InviteNobody)
	}
	return oneOf(i, text, InviteUsers, InviteAdmins, InviteNobody)
}
