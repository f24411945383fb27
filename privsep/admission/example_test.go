package admission_test

import (
	"fmt"
	"net/netip"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/admission"
)

func Example() {
	gate := admission.NewGate(admission.Limits{PerSource: 50}, admission.Penalties{})
	peer := netip.MustParseAddr("192.0.2.7")

	slot, err := gate.Admit(peer)
	if err != nil {
		return // too many, or penalized: close the connection
	}
	// err = privsep.Serve(ctx, monitor, phase, state), whose login handler
	// calls slot.LoggedIn or slot.LoginFailed. Here its worker broke the rules:
	err = &privsep.ViolationError{Phase: "preauth", Op: "login", Reason: "called too often"}
	fmt.Println("offence:", slot.Close(err))

	_, err = gate.Admit(peer)
	fmt.Println("admitted again:", err == nil)
	// Output:
	// offence: violation
	// admitted again: false
}
