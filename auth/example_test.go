package auth_test

import (
	"fmt"
	"log"
	"time"

	"callbox/auth"
)

// What a back end does that gives its users room tokens.
func ExampleMintWith() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	id, secret, ok := auth.SplitKey("0123456789abcdef.what-callbox-key-add-has-printed")
	if !ok {
		log.Fatal("not an API key")
	}
	token, err := auth.MintWith(id, secret, auth.RoomToken{Subject: "ada", Name: "Ada", Room: "tea", Expires: now.Add(time.Hour)}, now)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(token) > 100)
	// Output: true
}

// TURN credentials as coturn's use-auth-secret has them, for another server that shares the secret.
func ExampleTURN_Credential() {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	issuer := auth.TURN{Secrets: [][]byte{[]byte("what both servers share")}, Realm: "callbox"}
	username, password, expires := issuer.Credential("ada", time.Hour, now)
	fmt.Println(expires.Format(time.TimeOnly), username != "", password != "")

	keys, _, _, err := issuer.Keys(username, "callbox", true, now)
	fmt.Println(len(keys), err)
	// Output:
	// 13:00:00 true true
	// 1 <nil>
}
