package privseptest

import (
	"fmt"
	"os"
	"reflect"
	"strings"

	"github.com/go-privsep/sallyport/privsep"
	"github.com/go-privsep/sallyport/privsep/internal/fortest"
)

// Messages prints what each operation of a policy says and answers: a line a
// field, with its bound or kind. Keep it as a golden file beside the printed
// policy: that a request names a user, a uid or a path which the monitor knows by
// itself then shows in review (CVE-2015-6563).
func Messages(policy *privsep.Policy) string {
	var p fortest.Policy
	policy.ForTest(&p)
	var b strings.Builder
	for _, op := range p.Ops {
		for _, side := range []struct {
			word string
			typ  reflect.Type
		}{{"asks", op.RequestType}, {"answers", op.ReplyType}} {
			fmt.Fprintf(&b, "%s %s %v\n", op.Name, side.word, side.typ)
			printFields(&b, side.typ, "\t")
		}
	}
	return b.String()
}

func printFields(b *strings.Builder, t reflect.Type, indent string) {
	for i := range t.NumField() {
		f := t.Field(i)
		fmt.Fprintf(b, "%s%s %v", indent, f.Name, f.Type)
		if tag := f.Tag.Get("privsep"); tag != "" {
			fmt.Fprintf(b, " %s", tag)
		}
		b.WriteByte('\n')
		inner := f.Type
		for inner.Kind() == reflect.Slice {
			inner = inner.Elem()
		}
		if inner.Kind() == reflect.Struct && f.Type != reflect.TypeFor[*os.File]() {
			printFields(b, inner, indent+"\t")
		}
	}
}
