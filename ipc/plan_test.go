package ipc

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"
)

type (
	recursive struct {
		Kids []recursive `privsep:"max=2"`
	}
	mutual struct {
		Other []other2 `privsep:"max=2"`
	}
	other2 struct{ Back mutual }
	inner  struct {
		File *os.File `privsep:"kind=stream"`
	}
	word     string
	hidden   struct{ secret int }
	embedder struct{ hidden }
)

func TestPlanRefusals(t *testing.T) {
	for _, tt := range []struct {
		name  string
		typ   reflect.Type
		field string // and what is said of it
	}{
		{"no type", nil, "<nil> is not a struct"},
		{"no struct", reflect.TypeFor[string](), "string is not a struct"},
		{"pointer to a struct", reflect.TypeFor[*login](), "*ipc.login is not a struct"},
		{"unbounded string", reflect.TypeFor[struct{ V string }](), `.V needs a privsep:"max=N" tag`},
		{"unbounded bytes", reflect.TypeFor[struct{ V []byte }](), `.V needs a privsep:"max=N" tag`},
		{"unbounded slice", reflect.TypeFor[struct{ V []int }](), `.V needs a privsep:"max=N" tag`},
		{"unbounded named string", reflect.TypeFor[struct{ V word }](), `.V needs a privsep:"max=N" tag`},
		{"unbounded element", reflect.TypeFor[struct {
			V []string `privsep:"max=2"`
		}](), `.V[] needs a privsep:"max=N,each=N" tag`},
		{"unbounded byte slices", reflect.TypeFor[struct {
			V [][]byte `privsep:"max=2"`
		}](), `.V[] needs a privsep:"max=N,each=N" tag`},
		{"three slices deep", reflect.TypeFor[struct {
			V [][]string `privsep:"max=2,each=2"`
		}](), ".V[][] is too deep"},
		{"unbounded inner field", reflect.TypeFor[struct{ V struct{ W string } }](), ".V.W needs a"},
		{"unexported", reflect.TypeFor[struct{ v bool }](), ".v is unexported"},
		{"blank", reflect.TypeFor[struct{ _ bool }](), "._ is unexported"},
		{"unexported inside", reflect.TypeFor[struct{ V hidden }](), ".V.secret is unexported"},
		{"unexported embedded", reflect.TypeFor[embedder](), "ipc.embedder.hidden is unexported"},
		{"a standard type with a secret", reflect.TypeFor[struct{ V time.Time }](), ".V.wall is unexported"},
		{"map", reflect.TypeFor[struct{ V map[string]bool }](), ".V can't be a map[string]bool"},
		{"interface", reflect.TypeFor[struct{ V any }](), ".V can't be a interface {}"},
		{"error", reflect.TypeFor[struct{ V error }](), ".V can't be a error"},
		{"pointer", reflect.TypeFor[struct{ V *int }](), ".V can't be a *int"},
		{"float", reflect.TypeFor[struct{ V float64 }](), ".V can't be a float64"},
		{"complex", reflect.TypeFor[struct{ V complex64 }](), ".V can't be a complex64"},
		{"chan", reflect.TypeFor[struct{ V chan int }](), ".V can't be a chan int"},
		{"func", reflect.TypeFor[struct{ V func() }](), ".V can't be a func()"},
		{"uintptr", reflect.TypeFor[struct{ V uintptr }](), ".V can't be a uintptr"},
		{"array", reflect.TypeFor[struct{ V [4]byte }](), ".V can't be a [4]uint8"},
		{"slice of pointers", reflect.TypeFor[struct {
			V []*int `privsep:"max=2"`
		}](), ".V[] can't be a *int"},
		{"recursion", reflect.TypeFor[recursive](), "ipc.recursive.Kids[] can't be a ipc.recursive"},
		{"recursion of two", reflect.TypeFor[mutual](), "ipc.mutual.Other[].Back can't be a ipc.mutual"},
		{"unknown tag word", reflect.TypeFor[struct {
			V string `privsep:"max=2,optional"`
		}](), ".V has the tag"},
		{"misspelt tag word", reflect.TypeFor[struct {
			V string `privsep:"maximum=2"`
		}](), ".V has the tag"},
		{"tag of no value", reflect.TypeFor[struct {
			V string `privsep:"max"`
		}](), ".V has the tag"},
		{"empty tag word", reflect.TypeFor[struct {
			V string `privsep:"max=2,"`
		}](), ".V has the tag"},
		{"space in a tag", reflect.TypeFor[struct {
			V []string `privsep:"max=2, each=2"`
		}](), ".V has the tag"},
		{"max of zero", reflect.TypeFor[struct {
			V string `privsep:"max=0"`
		}](), ".V has the tag"},
		{"negative max", reflect.TypeFor[struct {
			V string `privsep:"max=-1"`
		}](), ".V has the tag"},
		{"max of 2^64", reflect.TypeFor[struct {
			V string `privsep:"max=18446744073709551616"`
		}](), ".V has the tag"},
		{"max of 2^63", reflect.TypeFor[struct {
			V string `privsep:"max=9223372036854775808"`
		}](), ".V has the tag"},
		{"max twice", reflect.TypeFor[struct {
			V string `privsep:"max=2,max=3"`
		}](), ".V has the tag"},
		{"each without max", reflect.TypeFor[struct {
			V []string `privsep:"each=2"`
		}](), ".V has the tag"},
		{"each on a string", reflect.TypeFor[struct {
			V string `privsep:"max=2,each=2"`
		}](), ".V is a string, which takes no such bound"},
		{"each on numbers", reflect.TypeFor[struct {
			V []int `privsep:"max=2,each=2"`
		}](), ".V[] is a int, which takes no such bound"},
		{"max on a number", reflect.TypeFor[struct {
			V int `privsep:"max=2"`
		}](), ".V is a int, which takes no such bound"},
		{"max on a bool", reflect.TypeFor[struct {
			V bool `privsep:"max=2"`
		}](), ".V is a bool, which takes no such bound"},
		{"max on a struct", reflect.TypeFor[struct {
			V mark `privsep:"max=2"`
		}](), ".V is a ipc.mark, which takes no such bound"},
		{"larger than a packet", reflect.TypeFor[struct {
			V []string `privsep:"max=1000,each=1000"`
		}](), ".V can take 1003003 bytes"},
		{"larger than a packet together", reflect.TypeFor[struct {
			V, W string `privsep:"max=40000"`
		}](), " can take 80011 bytes"},
		{"elements larger than a packet", reflect.TypeFor[struct {
			V [][]byte `privsep:"max=65520,each=65520"`
		}](), ".V[] can take 65523 bytes"},
		{"larger than 2^31", reflect.TypeFor[struct {
			V [][]byte `privsep:"max=65520,each=65517"`
		}](), ".V can take 4292870403 bytes"},

		{"file without a kind", reflect.TypeFor[struct{ V *os.File }](), `.V needs a privsep:"kind=K" tag, K one of [listener stream`},
		{"file of unknown kind", reflect.TypeFor[struct {
			V *os.File `privsep:"kind=epoll"`
		}](), ".V has the tag"},
		{"file of kind zero", reflect.TypeFor[struct {
			V *os.File `privsep:"kind=kind(0)"`
		}](), ".V has the tag"},
		{"file of no kind", reflect.TypeFor[struct {
			V *os.File `privsep:"kind="`
		}](), ".V has the tag"},
		{"file of two kinds", reflect.TypeFor[struct {
			V *os.File `privsep:"kind=stream,kind=listener"`
		}](), ".V has the tag"},
		{"optional file", reflect.TypeFor[struct {
			V *os.File `privsep:"kind=stream,optional"`
		}](), ".V has the tag"},
		{"file with a bound", reflect.TypeFor[struct {
			V *os.File `privsep:"kind=stream,max=2"`
		}](), `.V needs a privsep:"kind=K" tag`},
		{"string with a kind", reflect.TypeFor[struct {
			V string `privsep:"max=2,kind=stream"`
		}](), ".V is no file and has no kind"},
		{"files in a slice", reflect.TypeFor[struct {
			V []*os.File `privsep:"max=2"`
		}](), ".V[] can't be a *os.File"},
		{"file inside", reflect.TypeFor[struct{ V inner }](), ".V.File can't be a *os.File"},
		{"file by value", reflect.TypeFor[struct{ V os.File }](), ".V.file is unexported"},
		{"17 files", manyFiles(17), ".F16 is one file too many"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p, err := PlanOf(tt.typ)
			e, ok := errors.AsType[*FieldError](err)
			if !ok || p != nil {
				t.Fatalf("got %v, %v, want a *FieldError", p, err)
			}
			if got := e.Error(); !strings.HasPrefix(got, "ipc: ") || !strings.Contains(got, tt.field) {
				t.Errorf("got %q, want it to say %q", got, tt.field)
			}
		})
	}
}

func manyFiles(n int) reflect.Type {
	var fields []reflect.StructField
	for i := range n {
		fields = append(fields, reflect.StructField{
			Name: fmt.Sprintf("F%d", i), Type: reflect.TypeFor[*os.File](), Tag: `privsep:"kind=regular"`,
		})
	}
	return reflect.StructOf(fields)
}

func TestPlanLimits(t *testing.T) {
	if p, err := PlanOf(manyFiles(16)); err != nil || len(p.Files()) != 16 || p.MaxSize() != 1 {
		t.Errorf("16 files: %v", err)
	}
	type largest struct {
		V []byte `privsep:"max=65514"`
	}
	p := planFor[largest](t)
	if got := p.MaxSize(); got != maxBody {
		t.Errorf("MaxSize: got %d, want %d", got, maxBody)
	}
	v := largest{make([]byte, 65514)}
	body, _, err := p.Encode(nil, &v)
	if err != nil || len(body) != maxBody {
		t.Errorf("the largest message: %d bytes, %v", len(body), err)
	}
	if got := checkCanonical(t, p, body, new(largest)); got != 1 {
		t.Errorf("the largest message is refused: %v", p.Scan(body))
	}
}

// The caller can't change a plan through what it returns.
func TestFilesIsACopy(t *testing.T) {
	p := planFor[twoFiles](t)
	clear(p.Files())
	if got := p.Files()[0]; got != KindPipeRead {
		t.Errorf("got %v", got)
	}
}

func TestPlanPrintsNames(t *testing.T) {
	_, err := PlanFor[struct{ User string }]()
	if err == nil {
		t.Fatal("an unbounded field was accepted")
	}
	type LoginRequest struct{ User string }
	_, err = PlanFor[LoginRequest]()
	if got, want := err.Error(), `ipc: ipc.LoginRequest.User needs a privsep:"max=N" tag`; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
