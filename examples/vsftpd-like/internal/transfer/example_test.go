package transfer_test

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/go-privsep/sallyport/examples/vsftpd-like/internal/transfer"
)

// What failed decides what the client is told.
func ExampleMover() {
	file, _ := os.CreateTemp("", "")
	defer os.Remove(file.Name())
	defer file.Close()

	var m transfer.Mover
	_, err := m.Receive(context.Background(), file, file) // a file is no connection
	var e *transfer.Error
	fmt.Println(errors.As(err, &e), e.Network, errors.Is(err, os.ErrNoDeadline), m.Moved())
	// Output: true true true 0
}
