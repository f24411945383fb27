package transfer

import (
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
)

const benchSize = 512 << 20

// cpu reports the processor time of both ends: on a busy machine it says more
// than the clock.
func cpu(b *testing.B) func() {
	var from syscall.Rusage
	syscall.Getrusage(syscall.RUSAGE_SELF, &from)
	return func() {
		var to syscall.Rusage
		syscall.Getrusage(syscall.RUSAGE_SELF, &to)
		ms := (to.Utime.Nano() + to.Stime.Nano() - from.Utime.Nano() - from.Stime.Nano()) / 1e6
		b.ReportMetric(float64(ms)/float64(b.N)*(1<<30)/benchSize, "cpu-ms/GiB")
	}
}

// byHand is what the kernel's ways are compared with.
func byHand(dst io.Writer, src io.Reader, size int) error {
	buf := make([]byte, size)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return err
			}
		}
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func BenchmarkReceive(b *testing.B) {
	run := func(name string, receive func(dst, src *os.File) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			defer cpu(b)()
			dst, err := os.Create(b.TempDir() + "/f")
			if err != nil {
				b.Fatal(err)
			}
			defer dst.Close()
			block := make([]byte, 1<<20)
			for b.Loop() {
				b.StopTimer()
				dst.Truncate(0)
				dst.Seek(0, io.SeekStart)
				src, client := connected(b)
				b.StartTimer()
				go func() {
					for range benchSize / len(block) {
						client.Write(block)
					}
					client.Close()
				}()
				if err := receive(dst, src); err != nil {
					b.Fatal(err)
				}
				b.StopTimer()
				src.Close()
				b.StartTimer()
			}
		})
	}
	run("splice", func(dst, src *os.File) error {
		n, err := new(Mover).Receive(b.Context(), dst, src)
		if err == nil && n != benchSize {
			err = io.ErrUnexpectedEOF
		}
		return err
	})
	for _, size := range []int{64 << 10, 256 << 10, 1 << 20} {
		run(fmt.Sprintf("readwrite/buf=%dKiB", size>>10), func(dst, src *os.File) error { return byHand(dst, src, size) })
	}
}

func BenchmarkSend(b *testing.B) {
	src, err := os.Create(b.TempDir() + "/f")
	if err != nil {
		b.Fatal(err)
	}
	defer src.Close()
	if _, err := src.Write(make([]byte, benchSize)); err != nil {
		b.Fatal(err)
	}
	run := func(name string, send func(dst *os.File) error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(benchSize)
			defer cpu(b)()
			block := make([]byte, 1<<20)
			for b.Loop() {
				b.StopTimer()
				dst, client := connected(b)
				done := make(chan int)
				b.StartTimer()
				go func() {
					total := 0
					for {
						n, err := client.Read(block)
						total += n
						if err != nil {
							done <- total
							return
						}
					}
				}()
				if err := send(dst); err != nil {
					b.Fatal(err)
				}
				dst.Close()
				if got := <-done; got != benchSize {
					b.Fatalf("client got %d bytes", got)
				}
			}
		})
	}
	run("sendfile", func(dst *os.File) error {
		_, err := new(Mover).Send(b.Context(), dst, src, 0, benchSize)
		return err
	})
	run("readwrite/buf=256KiB", func(dst *os.File) error {
		src.Seek(0, io.SeekStart)
		return byHand(struct{ io.Writer }{dst}, struct{ io.Reader }{src}, 256<<10)
	})
}
