package privsep_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"syscall"
	"time"

	"github.com/go-privsep/sallyport/privsep"
)

// recordScripts are what the workers of the tests of logs and observers do.
var recordScripts = map[string]func(ctx context.Context, w *privsep.Worker) error{
	"log in each phase": func(ctx context.Context, w *privsep.Worker) error {
		w.Log().Info("first", "n", 1)
		if _, err := moveTo.Call(ctx, w, wordRequest{"friend"}); err != nil {
			return err
		}
		w.Log().With("a", "b").WithGroup("g").Error("second", "n", 2, slog.Group("h", "x", errors.New("why")))
		_, err := secondOp.Call(ctx, w, empty{})
		return err
	},
	"log only": func(_ context.Context, w *privsep.Worker) error {
		for i := range 50 {
			w.Log().Info("only", "i", i)
		}
		return nil
	},
	"log injection": func(_ context.Context, w *privsep.Worker) error {
		for _, s := range injections {
			w.Log().Info(s, "session", 99, "peer", "192.0.2.99", "role", "monitor", "phase", "cellar", s, s, "text", "t", "", "nameless")
		}
		return nil
	},
	"log giant": func(_ context.Context, w *privsep.Worker) error {
		giant := strings.Repeat("é", 1<<20)
		args := []any{giant, giant}
		for i := range 100_000 {
			args = append(args, fmt.Sprint(i), i)
		}
		w.Log().Info(giant, args...)
		w.Log().With(args...).WithGroup(giant).Info("\x80"+strings.Repeat("\x80", 1<<20), "k", "v")
		return nil
	},
	"log levels": func(_ context.Context, w *privsep.Worker) error {
		for _, level := range []slog.Level{-100, slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError, 100} {
			w.Log().Log(context.Background(), level, level.String())
		}
		return nil
	},
	"log much": func(ctx context.Context, w *privsep.Worker) error {
		for range 100_000 {
			w.Log().Info("much")
		}
		time.Sleep(200 * time.Millisecond) // a few records' worth
		w.Log().Info("last")
		return nil
	},
	"log flood": func(context.Context, *privsep.Worker) error {
		fd, packet := channel(), logPacket(0, lawfulRecord)
		for {
			if err := syscall.Sendmsg(fd, packet, nil, nil, 0); err != nil && err != syscall.EAGAIN {
				return err
			}
		}
	},
	"log malformed": func(context.Context, *privsep.Worker) error {
		return syscall.Sendmsg(channel(), logPacket(0, lawfulRecord[:len(lawfulRecord)-1]), nil, nil, 0)
	},
	"log trailing": func(context.Context, *privsep.Worker) error {
		return syscall.Sendmsg(channel(), logPacket(0, lawfulRecord+"x"), nil, nil, 0)
	},
	"log a call": func(context.Context, *privsep.Worker) error {
		return syscall.Sendmsg(channel(), logPacket(1, lawfulRecord), nil, nil, 0)
	},
	"log a file": func(context.Context, *privsep.Worker) error {
		packet := logPacket(0, lawfulRecord)
		packet[1] = 1
		return syscall.Sendmsg(channel(), packet, syscall.UnixRights(0), nil, 0)
	},
	"log nothing": func(context.Context, *privsep.Worker) error {
		return syscall.Sendmsg(channel(), logPacket(0, ""), nil, nil, 0)
	},
	"ask beside": func(ctx context.Context, w *privsep.Worker) error {
		_, err := secondOp.Call(ctx, w, empty{})
		return err
	},
	"hundred": func(ctx context.Context, w *privsep.Worker) error {
		for range 100 {
			if _, err := sayOp.Call(ctx, w, wordRequest{"hello"}); err != nil {
				return err
			}
		}
		return nil
	},
}

// channel is the number of a worker's channel: its only socket.
func channel() int {
	for fd := range 64 {
		if kind, err := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); err == nil && kind == syscall.SOCK_SEQPACKET {
			return fd
		}
	}
	return -1
}

// lawfulRecord is a record with the text "x", as msgpack.
const lawfulRecord = "\x84\xa5Level\x00\xa4Text\xa1x\xa5Attrs\x90\xa4More\x00"

func logPacket(call uint32, body string) []byte {
	packet := make([]byte, 16, 64)
	packet[0] = 8
	binary.LittleEndian.PutUint32(packet[4:], call)
	return append(packet, body...)
}

var injections = []string{
	"a\nlevel=ERROR msg=forged", "\x1b[31mred\x1b[0m", "\xff\xfe\x80", "%s%n%d", "nul\x00", "\r\n", "\u202etxt.exe", "\u2028line",
	`quote" session=1`, `back\slash`, "\x9b31m", "\u0085", "",
}
