package main

import (
	"github.com/go-privsep/sallyport/caps"
	"github.com/go-privsep/sallyport/privsep"
)

// newPolicy is the whole of what a session worker may ask the monitor, and
// when. testdata/policy.txt is what it prints.
func newPolicy(connectFromPort uint16) (*privsep.Policy, *privsep.Phase[client], *privsep.Phase[user]) {
	var lowPort []caps.Cap
	if 0 < connectFromPort && connectFromPort < 1024 {
		lowPort = []caps.Cap{caps.NetBindService}
	}
	policy := new(privsep.Policy)
	preauth := privsep.NewPhase(policy, "preauth", (*client).launchSession)
	authed := privsep.NewPhase[user](policy, "authed", nil)
	privsep.OnDemand(authed, (*user).launchFiles)

	privsep.Permit(preauth, TLSCertificate, (*client).tlsCertificate)
	privsep.Permit(preauth, TLSSign, (*client).tlsSign)
	privsep.Permit(authed, TLSSignData, (*user).tlsSignData)
	privsep.Advance(preauth, Login, authed, (*client).login)
	privsep.Permit(authed, ListenData, (*user).listenData)
	privsep.Permit(authed, AcceptData, (*user).acceptData)
	privsep.Permit(authed, ConnectData, (*user).connectData, lowPort...)
	return policy, preauth, authed
}

type policyMaker func(connectFromPort uint16) (*privsep.Policy, *privsep.Phase[client], *privsep.Phase[user])
