package ipc_test

import (
	"errors"
	"fmt"
	"os"

	"github.com/go-privsep/sallyport/ipc"
)

type LoginRequest struct {
	User     string `privsep:"max=32"`
	Password string `privsep:"max=255"`
}

// A plan says what a message type costs at most, before any message exists.
func ExamplePlanFor() {
	plan, err := ipc.PlanFor[LoginRequest]()
	fmt.Println(plan.MaxSize(), err)

	type Careless struct{ Path string }
	_, err = ipc.PlanFor[Careless]()
	fmt.Println(err)
	// Output:
	// 306 <nil>
	// ipc: ipc_test.Careless.Path needs a privsep:"max=N" tag
}

func ExamplePlan_Encode() {
	plan, err := ipc.PlanFor[LoginRequest]()
	if err != nil {
		panic(err)
	}
	body, _, err := plan.Encode(nil, &LoginRequest{User: "anonymous", Password: "me@"})
	fmt.Printf("%q %v\n", body, err)

	_, _, err = plan.Encode(nil, &LoginRequest{User: "a name that no passwd file can hold"})
	fmt.Println(err)
	// Output:
	// "\x82\xa4User\xa9anonymous\xa8Password\xa3me@" <nil>
	// ipc: ipc_test.LoginRequest.User has the length 35, its max is 32
}

// Here 19 bytes claim a user name of four gigabytes.
func ExamplePlan_Decode() {
	plan, err := ipc.PlanFor[LoginRequest]()
	if err != nil {
		panic(err)
	}
	var r LoginRequest
	err = plan.Decode(&ipc.Packet{Body: []byte("\x82\xa4User\xa3bob\xa8Password\xa0")}, &r)
	fmt.Printf("%+v %v\n", r, err)

	err = plan.Decode(&ipc.Packet{Body: []byte("\x82\xa4User\xdb\xff\xff\xff\xffPassword")}, &r)
	if e, ok := errors.AsType[*ipc.FormatError](err); ok {
		fmt.Println(e)
	}
	// Output:
	// {User:bob Password:} <nil>
	// ipc: ipc_test.LoginRequest.User at byte 11: longer than its bound
}

// Files are no part of the encoding. They travel beside it, in the order of
// their fields.
func ExamplePlan_Encode_files() {
	type Report struct {
		Title string   `privsep:"max=80"`
		Text  *os.File `privsep:"kind=pipe-read"`
	}
	plan, err := ipc.PlanFor[Report]()
	if err != nil {
		panic(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	defer r.Close()
	defer w.Close()

	_, files, err := plan.Encode(nil, &Report{Title: "today", Text: r})
	fmt.Println(plan.Files(), len(files), err)

	_, _, err = plan.Encode(nil, &Report{Title: "today", Text: w})
	e, ok := errors.AsType[*ipc.KindError](err)
	fmt.Println(ok, e.Field, e.Want)
	// Output:
	// [pipe-read] 1 <nil>
	// true ipc_test.Report.Text pipe-read
}
