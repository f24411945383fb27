package privsep

import (
	"fmt"
	"reflect"
	"sync"

	"github.com/go-privsep/sallyport/ipc"
)

// A planCache compiles each message type of a connection once.
type planCache struct{ plans sync.Map } // reflect.Type to *ipc.Plan

func (c *planCache) get(t reflect.Type) (*ipc.Plan, error) {
	if p, ok := c.plans.Load(t); ok {
		return p.(*ipc.Plan), nil
	}
	p, err := ipc.PlanOf(t)
	if err == nil {
		c.plans.Store(t, p)
	}
	return p, err
}

// planOf compiles the plan of what message points to.
func planOf(message any) (*ipc.Plan, error) {
	t := reflect.TypeOf(message)
	if t.Kind() != reflect.Pointer {
		return nil, fmt.Errorf("privsep: a message is a pointer to a struct, not %v", t)
	}
	return ipc.PlanOf(t.Elem())
}
