package histories

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// History is what was asked and answered, from the state in which every agent is
// active without any grant and holds its first key.
type History struct {
	// Keys are the generations of the agents' first keys.
	Keys [Agents]int
	// Credential is the generation of the shared tool's first credential.
	Credential int
	// Guarded is that of the tool that needs two approvals.
	Guarded int
	// Operations carry an Input and an Output each.
	Operations []porcupine.Operation
}

// The errors of Check.
var (
	// ErrNoOrder: no serial order explains the history. The text shows where every
	// attempt ended.
	ErrNoOrder = errors.New("histories: no serial order explains this history")
	// ErrUndecided: the time was too short to find an order or to exclude all.
	ErrUndecided = errors.New("histories: not decided in time")
)

// forever is when an operation returns whose outcome is unknown.
const forever = math.MaxInt64

// Check looks for a serial order that explains the history. Finding none within
// the time is an error as well: what can't be decided is not proven.
func (h History) Check(within time.Duration) error {
	model := porcupine.Model{
		Init: func() any { return h.first() },
		Step: func(state, input, output any) (bool, any) {
			return state.(world).step(input.(Input), output.(Output))
		},
	}
	switch porcupine.CheckOperationsTimeout(model, h.Operations, within) {
	case porcupine.Ok:
		return nil
	case porcupine.Unknown:
		return fmt.Errorf("%w: %d operations, %s", ErrUndecided, len(h.Operations), within)
	case porcupine.Illegal:
	}
	_, info := porcupine.CheckOperationsVerbose(model, h.Operations, within)
	return fmt.Errorf("%w\n%s", ErrNoOrder, h.explain(info))
}

func (h History) first() world {
	w := world{credential: h.Credential, guarded: h.Guarded}
	for i := range w.agents {
		w.agents[i].key = h.Keys[i]
	}
	return w
}

// How much of a history an explanation shows.
const (
	shownBefore = 15
	shownAfter  = 10
)

// explain shows the end of the longest order that was found, and what could not
// follow it.
func (h History) explain(info porcupine.LinearizationInfo) string {
	var longest []porcupine.Operation
	for _, order := range slices.Concat(info.PartialLinearizationsOperations()...) {
		if len(order) > len(longest) {
			longest = order
		}
	}
	w, explained := h.first(), make(map[int64]bool)
	for _, op := range longest {
		_, w = w.step(op.Input.(Input), op.Output.(Output))
		explained[op.Call] = true
	}
	var left []porcupine.Operation
	for _, op := range h.Operations {
		if !explained[op.Call] {
			left = append(left, op)
		}
	}
	slices.SortFunc(left, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	var b strings.Builder
	fmt.Fprintf(&b, "%d of %d operations have an order, the last of them:\n", len(longest), len(h.Operations))
	write(&b, longest[max(0, len(longest)-shownBefore):])
	fmt.Fprintf(&b, "after them: %+v\nnone of these can follow:\n", w)
	write(&b, left[:min(len(left), shownAfter)])
	return b.String()
}

func write(b *strings.Builder, ops []porcupine.Operation) {
	for _, op := range ops {
		end := "…"
		if op.Return != forever {
			end = fmt.Sprint(op.Return)
		}
		fmt.Fprintf(b, "  [%d, %s] client %d: %s: %s\n", op.Call, end, op.ClientId, op.Input, op.Output)
	}
}
