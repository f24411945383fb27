//go:build linux

package main

import (
	"testing"

	"github.com/go-privsep/sallyport/internal/mutation"
)

// The mistakes by which monitors have failed, each made in this server. What
// catches it is named: a test, or the compiler.
func TestHistoricMistakes(t *testing.T) {
	if testing.Short() {
		return // each is a build; the full suite has them
	}
	t.Parallel()
	const (
		policyTests = "^(TestPolicy|TestMessages)$"
		proofTests  = "^(TestNoUserWithoutProof|TestNoPortAfterItsUse)$"
		permits     = "	privsep.Permit(authed, ListenData, (*user).listenData)\n"
	)
	all := []mutation.Mistake{
		{Name: "the user name is sent again after the login (CVE-2015-6563)", File: "ops.go", Run: policyTests, Caught: "--- FAIL: TestMessages",
			Old: "type ListenDataRequest struct{}\n",
			New: "type ListenDataRequest struct {\n	User string `privsep:\"max=64\"`\n}\n\nfunc (*ListenDataRequest) Check() error { return nil }\n"},
		{Name: "login is permitted once more after the login (CVE-2015-6563)", File: "policy.go", Import: "context", Run: policyTests, Caught: "--- FAIL: TestPolicy",
			Old: permits,
			New: permits + "	privsep.Permit(authed, Login, func(u *user, ctx context.Context, r LoginRequest) (reply LoginReply, err error) {\n" +
				"		_, _, err = u.client.login(ctx, r)\n		return reply, err\n	})\n"},
		{Name: "no error and nothing to ask is a success (OpenSSH 2026)", File: "client.go", Run: proofTests, Caught: "--- FAIL: TestNoUserWithoutProof",
			Old: "	who, err := c.server.authenticate(ctx, r)\n",
			New: "	if r.Password == \"\" {\n		return LoginReply{}, &user{client: c}, nil\n	}\n	who, err := c.server.authenticate(ctx, r)\n"},
		{Name: "an operation is left permitted before the login (OpenSSH 2016)", File: "policy.go", Run: policyTests, Caught: "does not match",
			Old: permits, New: permits + "	privsep.Permit(preauth, ListenData, (*user).listenData)\n"},
		{Name: "an operation is left permitted before the login, by hand (OpenSSH 2016)", File: "policy.go", Import: "context", Run: policyTests, Caught: "--- FAIL: TestPolicy",
			Old: permits,
			New: permits + "	privsep.Permit(preauth, ListenData, func(c *client, ctx context.Context, r ListenDataRequest) (ListenDataReply, error) {\n" +
				"		return (&user{client: c}).listenData(ctx, r)\n	})\n"},
		{Name: "options are applied before the verdict (OpenSSH 2024)", File: "client.go", Run: proofTests, Caught: "--- FAIL: TestNoUserWithoutProof",
			Old: "		return LoginReply{}, nil, err\n	}\n	mine, theirs", New: "		return LoginReply{}, &user{client: c, account: who}, err\n	}\n	mine, theirs"},
		{Name: "a port is used after it was freed (CVE-2015-6564)", File: "data.go", Run: proofTests, Caught: "--- FAIL: TestNoPortAfterItsUse",
			Old: "		c.passive = nil\n", New: "\n"},
		{Name: "an operation is reachable before its edge", File: "policy.go", Run: policyTests, Caught: "does not match",
			Old: "privsep.Advance(preauth, Login, authed, (*client).login)", New: "privsep.Advance(authed, Login, authed, (*client).login)"},
		{Name: "an edge leads back", File: "policy.go", Import: "context", Run: policyTests, Caught: "a session only goes forward",
			Old: permits,
			New: permits + "	privsep.Advance(authed, Login, preauth, func(u *user, ctx context.Context, r LoginRequest) (LoginReply, *client, error) {\n" +
				"		return LoginReply{}, u.client, nil\n	})\n"},
		{Name: "-1 is true (CVE-2006-5794)", File: "client.go", Run: proofTests, Caught: "--- FAIL: TestNoUserWithoutProof",
			Old: "		return LoginReply{}, nil, err\n	}\n	mine, theirs",
			New: "		if authenticated := -1; authenticated != 0 {\n			return LoginReply{}, &user{client: c}, nil\n		}\n	}\n	mine, theirs"},
		{Name: "-1 for a user (CVE-2006-5794)", File: "client.go", Run: proofTests, Caught: "cannot use -1",
			Old: "		return LoginReply{}, nil, err\n	}\n	mine, theirs", New: "		return LoginReply{}, -1, err\n	}\n	mine, theirs"},
		{Name: "logins are counted in the worker (vsftpd)", File: "ops.go", Run: policyTests, Caught: "--- FAIL: TestPolicy",
			Old: `Name: "login", Calls: 3`, New: `Name: "login", Calls: privsep.Unlimited`},
		{Name: "logins have no count", File: "ops.go", Run: policyTests, Caught: "operation login: needs Calls",
			Old: `Name: "login", Calls: 3, `, New: `Name: "login", `},
		{Name: "the uid is in the message (OpenSMTPD)", File: "ops.go", Run: policyTests, Caught: "--- FAIL: TestMessages",
			Old: "type LoginRequest struct {\n", New: "type LoginRequest struct {\n	UID uint32\n"},
		{Name: "a path is not judged", File: "fileops.go", Run: policyTests, Caught: "needs a method Check() error",
			Old: "func (r *PathRequest) Check() error", New: "func (r *PathRequest) Judge() error"},
		{Name: "a field has no bound (dhcpcd)", File: "ops.go", Run: policyTests, Caught: "main.LoginRequest.Password needs a privsep",
			Old: "	Password string `privsep:\"max=255\"`\n", New: "	Password string\n"},
	}
	for i := range all {
		all[i].Package = "."
	}
	mutation.Run(t, all)
}
