package cli

import (
	"context"

	"callbox/auth"
	"callbox/internal/control"
)

// userCmd holds the commands about users.
type userCmd struct {
	Add    userAddCmd    `cmd:"" help:"Add a user."`
	List   userListCmd   `cmd:"" help:"List the users."`
	Passwd userPasswdCmd `cmd:"" help:"Change a user's password and end the user's sessions."`
	Remove userRemoveCmd `cmd:"" help:"Remove a user and end the user's sessions."`
}

type userAddCmd struct {
	Name          string `arg:"" help:"Name to log in with."`
	Admin         bool   `name:"admin" help:"Make the user an administrator. The first user is one in any case."`
	PasswordStdin bool   `name:"password-stdin" help:"Read the password from standard input instead of asking."`
}

// Run adds a user. The first one is an administrator, as by the set-up link, which ends with it: nobody else could be asked to
// make one.
func (cmd *userAddCmd) Run(ctx context.Context, c *call) error {
	if !auth.ValidUserName(cmd.Name) {
		return auth.ErrName
	}
	return c.withAccounts(ctx, true, func(a accounts) error {
		password, err := c.password(ctx, cmd.PasswordStdin)
		if err != nil {
			return err
		}
		users, err := a.Users(ctx)
		if err != nil {
			return err
		}
		added, admin := "user", cmd.Admin || len(users) == 0
		if err := a.AddUser(ctx, control.UserAdd{Name: cmd.Name, Password: password, Admin: admin}); err != nil {
			return err
		}
		if admin {
			added = "administrator"
		}
		return c.printf("added %s %s\n", added, cmd.Name)
	})
}

type userListCmd struct {
	JSON bool `name:"json" help:"As one JSON object."`
}

// Run lists the users.
func (cmd *userListCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		users, err := a.Users(ctx)
		if err != nil {
			return err
		}
		if cmd.JSON {
			return c.printJSON(control.UserList{Users: users})
		}
		rows := [][]string{{"NAME", "ADMIN", "CREATED", "PASSWORD CHANGED"}}
		for _, u := range users {
			admin := "no"
			if u.Admin {
				admin = "yes"
			}
			changed := "-"
			if !u.PasswordChanged.IsZero() {
				changed = timestamp(u.PasswordChanged)
			}
			rows = append(rows, []string{u.Name, admin, timestamp(u.Created), changed})
		}
		return c.printTable(rows)
	})
}

type userPasswdCmd struct {
	Name          string `arg:"" help:"The user."`
	PasswordStdin bool   `name:"password-stdin" help:"Read the password from standard input instead of asking."`
}

// Run changes a password.
func (cmd *userPasswdCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		password, err := c.password(ctx, cmd.PasswordStdin)
		if err != nil {
			return err
		}
		if err := a.SetPassword(ctx, control.UserPasswd{Name: cmd.Name, Password: password}); err != nil {
			return err
		}
		return c.printf("changed the password of %s; all sessions of this user have ended\n", cmd.Name)
	})
}

type userRemoveCmd struct {
	Name string `arg:"" help:"The user."`
}

// Run removes a user.
func (cmd *userRemoveCmd) Run(ctx context.Context, c *call) error {
	return c.withAccounts(ctx, false, func(a accounts) error {
		if err := a.RemoveUser(ctx, cmd.Name); err != nil {
			return err
		}
		return c.printf("removed user %s; all sessions of this user have ended\n", cmd.Name)
	})
}
