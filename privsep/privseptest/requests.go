package privseptest

import (
	"fmt"
	"os"
	"reflect"
	"testing"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// A sample is a request of good form: what an honest worker may send.
type sample struct {
	op   *fortest.Op
	body []byte
}

// samples finds a request for each operation: the caller's, or the first value
// that its Check accepts.
func samples(t testing.TB, policy *fortest.Policy, o *objects, given []any) map[*fortest.Op]sample {
	t.Helper()
	byType := make(map[reflect.Type]reflect.Value)
	for _, g := range given {
		v := reflect.ValueOf(g)
		if v.Kind() == reflect.Pointer {
			v = v.Elem()
		}
		byType[v.Type()] = v
	}
	all := make(map[*fortest.Op]sample)
	for _, op := range policy.Ops {
		body, err := sampleOf(op, o, byType[op.RequestType])
		if err != nil {
			t.Fatalf("privseptest: operation %s: %v: give one as a further argument: privseptest.Walk(t, policy, %v{...})",
				op.Name, err, op.RequestType)
		}
		all[op] = sample{op, body}
	}
	return all
}

func sampleOf(op *fortest.Op, o *objects, given reflect.Value) (body []byte, err error) {
	files, err := o.of(op.Request.Files()...)
	if err != nil {
		return nil, err
	}
	defer closeAll(files)
	try := func(v reflect.Value) bool {
		setFiles(v, files)
		message := v.Addr().Interface()
		if check, ok := message.(privsep.Checker); ok && !holds(check) {
			return false
		}
		body, _, err = op.Request.Encode(nil, message)
		return err == nil
	}
	v := reflect.New(op.RequestType).Elem()
	if given.IsValid() {
		v.Set(given)
		if !try(v) {
			return nil, fmt.Errorf("its Check refuses the %v that was given", op.RequestType)
		}
		return body, nil
	}
	for range 1 << 14 {
		if try(v) {
			return body, nil
		}
		if !advance(v) {
			break
		}
	}
	return nil, fmt.Errorf("no %v was found that its Check accepts", op.RequestType)
}

// holds calls Check, whose panic is no acceptance.
func holds(c privsep.Checker) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	return c.Check() == nil
}

// words are what fields of text are tried with, in this order.
var words = []string{"a", "/", "/a", "a.example", "127.0.0.1", "a@a.example", "127.0.0.1:65535", "2026-01-01", "0123456789abcdef"}

// numbers are what integers are tried with, if they fit.
var numbers = []int64{1, 2, 3, 22, 1024, 65535, 1 << 30}

// advance changes v to its next candidate, as an odometer does: its last field
// first. It starts from zero and reports false when it is there again.
func advance(v reflect.Value) bool {
	switch k := v.Kind(); {
	case k == reflect.Bool:
		v.SetBool(!v.Bool())
		return v.Bool()
	case k == reflect.String:
		return spin(len(words), func(i int) bool { return v.String() == words[i] },
			func(i int) bool { v.SetString(words[i]); return true }, v)
	case v.CanInt():
		return spin(len(numbers), func(i int) bool { return v.Int() == numbers[i] },
			func(i int) bool { v.SetInt(numbers[i]); return v.Int() == numbers[i] }, v)
	case v.CanUint():
		return spin(len(numbers), func(i int) bool { return v.Uint() == uint64(numbers[i]) },
			func(i int) bool { v.SetUint(uint64(numbers[i])); return v.Uint() == uint64(numbers[i]) }, v)
	case k == reflect.Slice && v.Type().Elem().Kind() == reflect.Uint8:
		sizes := []int{1, 16, 32, 64}
		return spin(len(sizes), func(i int) bool { return v.Len() == sizes[i] },
			func(i int) bool { v.SetBytes(make([]byte, sizes[i])); return true }, v)
	case k == reflect.Slice:
		if v.Len() == 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			return true
		}
		if advance(v.Index(0)) {
			return true
		}
	case k == reflect.Struct:
		for i := v.NumField() - 1; i >= 0; i-- {
			if advance(v.Field(i)) {
				return true
			}
		}
		return false
	}
	v.SetZero()
	return false
}

// spin moves v from the candidate that it is, or from zero, to the next that
// fits, or to zero behind the last.
func spin(n int, is, set func(i int) bool, v reflect.Value) bool {
	from := 0
	for i := range n {
		if is(i) {
			from = i + 1
		}
	}
	for i := from; i < n; i++ {
		if set(i) {
			return true
		}
	}
	v.SetZero()
	return false
}

// setFiles stores the files of a message in their fields.
func setFiles(message reflect.Value, files []*os.File) {
	for i := range message.NumField() {
		if message.Field(i).Type() == reflect.TypeFor[*os.File]() {
			message.Field(i).Set(reflect.ValueOf(files[0]))
			files = files[1:]
		}
	}
}
