package seccomp_test

import (
	"fmt"
	"log"
	"os"

	"github.com/go-privsep/sallyport/seccomp"
)

// What a filter does can be asked without installing it, for any architecture
// on any host.
func ExampleCompile() {
	filter, err := seccomp.Compile(seccomp.ARM64, seccomp.Streams|seccomp.Transfer, 4711)
	if err != nil {
		log.Fatal(err)
	}
	for _, name := range []string{"splice", "socket"} {
		nr, _ := seccomp.Number(seccomp.ARM64, name)
		fmt.Println(name, filter.Eval(filter.Call(nr)))
	}
	// Output:
	// splice allowed
	// socket killed
}

// A worker that reads files and does nothing else.
func ExampleFilter_Install() {
	filter, err := seccomp.Compile(seccomp.Host(), seccomp.ReadPaths, os.Getpid())
	if err == nil {
		err = filter.Install() // for all threads, for ever
	}
	if err != nil {
		log.Fatal(err)
	}
}

// What to tell an operator about a worker that was killed.
func ExampleExplain() {
	nr, _ := seccomp.Number(seccomp.AMD64, "pwrite64")
	fmt.Println(seccomp.Explain(seccomp.AMD64, seccomp.ReadPaths, nr))
	// Output: pwrite64: killed; Files allows it
}
