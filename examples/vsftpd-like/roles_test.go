//go:build linux

package main

import "github.com/go-privsep/sallyport/privsep"

// layersRole is a session worker that may have any sandbox.
var layersRole privsep.Role

// testRoles are the roles that only tests have. In a test's process both roles of
// the server can be taken over; see takeOver.
func testRoles() []*privsep.Role {
	takeOver(&sessionRole, sessionOrder)
	takeOver(&filesRole, filesOrder)
	layersRole = sessionRole
	layersRole.Name, layersRole.Check = "layers", nil
	return []*privsep.Role{&layersRole}
}
