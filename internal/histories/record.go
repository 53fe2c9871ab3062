package histories

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/anishathalye/porcupine"
)

// Plan says which history is recorded.
type Plan struct {
	Seed       uint64
	Clients    int // that call at the same time
	Operations int // in all
	// Weights say how often each kind is called, in proportion to their sum.
	Weights map[Kind]int
	// Trusted lets some calls come from callers that the host authenticated.
	Trusted bool
	// Ends lets grants end after a time as well as after a count of vends. It
	// needs targets that can move the clock.
	Ends bool
}

// Weights is a mix in which every answer occurs and a good part of the vends succeeds.
func Weights() map[Kind]int {
	return map[Kind]int{
		Vend: 100, Request: 30, Approve: 36, Deny: 3, Assign: 16, Narrow: 6, Revoke: 9,
		Suspend: 2, Reactivate: 16, Rotate: 5, Replace: 10, Lock: 2, Unlock: 30, Suggest: 4, Dismiss: 1, Add: 1,
		Learn: 16, Reject: 2, Accept: 3, Rewrite: 2, Advance: 4, Sweep: 2,
	}
}

// Record lets the plan's clients call the targets, each call a target of its own
// choice, and answers what happened. The targets are ways into one organization.
func Record(ctx context.Context, p Plan, targets ...Target) (History, error) {
	r := &recorder{plan: p, targets: targets}
	h, err := r.prepare(ctx)
	if err != nil {
		return History{}, fmt.Errorf("histories: prepare: %w", err)
	}
	recorded := make([][]porcupine.Operation, p.Clients)
	var wg sync.WaitGroup
	for i := range p.Clients {
		n := p.Operations / p.Clients
		if i < p.Operations%p.Clients {
			n++
		}
		wg.Go(func() { recorded[i] = r.client(ctx, i, n) })
	}
	wg.Wait()
	for _, ops := range recorded {
		h.Operations = append(h.Operations, ops...)
	}
	return h, nil
}

type recorder struct {
	plan    Plan
	targets []Target
	clock   atomic.Int64 // orders calls and returns
	made    atomic.Int64 // generations of keys and credentials
	agents  [Agents]string
	tools   [Tools]string

	mu     sync.Mutex
	keys   [Agents][]key // in the order in which they became known
	grants [Agents][Tools]string
	wish   string
	facts  []string // instruction suggestions, by number less one
	adding bool     // somebody adds the wanted tool, or has
}

type key struct {
	generation int
	text       string
}

// prefix begins every credential of a history; its generation follows.
const prefix = "lin_api_test_"

func credential(generation int) string { return prefix + strconv.Itoa(generation) }

// generation is that of a credential, or -1 for what was never given to anybody.
func generation(credential string) int {
	number, ok := strings.CutPrefix(credential, prefix)
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return -1
	}
	return n
}

// written begins all instructions of a history; their generation follows.
const written = "Instructions, edition "

func instructions(generation int) string { return written + strconv.Itoa(generation) }

// edition is the generation of instructions, 0 if there are none, or -1 for what
// nobody ever wrote.
func edition(text string) int {
	if text == "" {
		return 0
	}
	number, ok := strings.CutPrefix(text, written)
	n, err := strconv.Atoi(number)
	if !ok || err != nil {
		return -1
	}
	return n
}

func (r *recorder) next() int { return int(r.made.Add(1)) }

func (r *recorder) prepare(ctx context.Context) (h History, err error) {
	h.Credential, h.Guarded = r.next(), r.next()
	name := fmt.Sprintf("history %d", r.plan.Seed)
	if r.tools[shared], err = r.targets[0].AddTool(ctx, name+" shared", credential(h.Credential), 1); err != nil {
		return h, err
	}
	if r.tools[perAgent], err = r.targets[0].AddTool(ctx, name+" per agent", "", 1); err != nil {
		return h, err
	}
	if r.tools[guarded], err = r.targets[0].AddTool(ctx, name+" guarded", credential(h.Guarded), Actors); err != nil {
		return h, err
	}
	for i := range r.agents {
		k := key{generation: r.next()}
		if r.agents[i], k.text, err = r.targets[0].RegisterAgent(ctx, fmt.Sprintf("%s agent %d", name, i)); err != nil {
			return h, err
		}
		h.Keys[i], r.keys[i] = k.generation, []key{k}
	}
	return h, nil
}

func (r *recorder) client(ctx context.Context, id, n int) []porcupine.Operation {
	random := rand.New(rand.NewPCG(r.plan.Seed, uint64(id)))
	ops := make([]porcupine.Operation, 0, n)
	for range n {
		c := r.choose(random)
		target := r.targets[random.IntN(len(r.targets))]
		called := r.clock.Add(1)
		a := target.Do(ctx, c)
		returned := r.clock.Add(1)
		if a.Code == Unknown {
			returned = forever
		}
		if a.Code == Done && c.Kind == Vend {
			a.Credential, a.Text = generation(a.Secret), edition(a.Guide)
		}
		a.Fact = r.learn(c, a)
		ops = append(ops, porcupine.Operation{ClientId: id, Input: c.Input, Call: called, Output: a.Output, Return: returned})
	}
	return ops
}

// choose makes up a call.
func (r *recorder) choose(random *rand.Rand) Call {
	c := Call{Input: Input{Kind: r.kind(random), Agent: random.IntN(Agents), Tool: random.IntN(Tools+1) % Tools}}
	c.AgentID, c.Wanted = r.agents[c.Agent], fmt.Sprintf("Wanted %d", r.plan.Seed)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.tools[c.Tool] == "" {
		c.Tool = shared // it has not been added yet
	}
	switch c.Kind {
	case Vend:
		r.present(random, &c)
	case Request:
		r.present(random, &c)
		c.Terms = r.terms(random)
	case Approve, Deny, Narrow:
		if c.GrantID = r.grants[c.Agent][c.Tool]; c.GrantID == "" {
			c.Kind = Assign // nothing is known that could be decided on
		}
		c.Terms = r.terms(random)
	case Assign:
		c.Terms = r.terms(random)
	case Rotate:
		c.Key = r.next()
	case Replace:
		c.Tool, c.Credential = shared, r.next()
	case Advance:
		c.Terms.Seconds = 1 + random.Int64N(4)
	case Suggest:
		r.present(random, &c)
	case Dismiss:
		if c.Wish = r.wish; c.Wish == "" {
			c.Kind = Unlock // nothing is known that could be dismissed
		}
	case Add:
		if r.adding {
			c.Kind = Unlock
			break
		}
		r.adding, c.Tool, c.Credential = true, wanted, r.next()
	case Learn, Reject, Accept, Rewrite:
		r.learned(random, &c)
	case Revoke, Suspend, Reactivate, Lock, Unlock, Sweep:
	}
	if c.Kind == Assign && c.Tool == guarded && random.IntN(4) > 0 {
		c.Tool = shared // the answer would always be the same
	}
	switch c.Kind {
	case Deny:
		c.Actor, c.Terms = random.IntN(Actors), Terms{}
	case Approve, Assign:
		c.Actor = random.IntN(Actors)
	}
	if c.Tool == perAgent && (c.Kind == Approve || c.Kind == Assign) {
		c.Credential = r.next()
	}
	if c.Credential != 0 {
		c.Secret = credential(c.Credential)
	}
	c.ToolID = r.tools[c.Tool]
	return c
}

// mostFacts bounds how many instruction suggestions a history has.
const mostFacts = 40

// learned makes up what is done about what agents learn.
func (r *recorder) learned(random *rand.Rand, c *Call) {
	c.Tool = shared
	if c.Kind == Learn {
		r.present(random, c)
		return
	}
	if len(r.facts) == 0 || len(r.facts) > mostFacts {
		c.Kind = Unlock // nothing is known that could be decided on, or enough
		return
	}
	if c.Kind != Rewrite {
		c.Fact = len(r.facts)
		if random.IntN(4) == 0 {
			c.Fact = 1 + random.IntN(len(r.facts))
		}
		c.FactID = r.facts[c.Fact-1]
	}
	if c.Kind != Reject {
		c.Text = r.next()
		c.Instructions = instructions(c.Text)
	}
}

func (r *recorder) kind(random *rand.Rand) Kind {
	sum := 0
	for _, k := range Kinds() {
		sum += r.plan.Weights[k]
	}
	n := random.IntN(sum)
	for _, k := range Kinds() {
		if n -= r.plan.Weights[k]; n < 0 {
			return k
		}
	}
	return Vend
}

// present chooses a key: mostly the newest that is known. Which of two rotations
// came last is not known, so one of those before it may be the valid one.
func (r *recorder) present(random *rand.Rand, c *Call) {
	if r.plan.Trusted && random.IntN(5) == 0 {
		return // a trusted caller
	}
	known := r.keys[c.Agent]
	i := len(known) - 1
	if random.IntN(6) == 0 {
		i = max(0, i-1-random.IntN(3))
	}
	c.Key, c.KeyText = known[i].generation, known[i].text
}

// terms are of each kind about half the time. Approvers choose as freely as
// agents do, so that some of their terms are wider than what was asked.
func (r *recorder) terms(random *rand.Rand) (t Terms) {
	if random.IntN(2) == 0 {
		t.Max = 1 + random.Int64N(6)
	}
	if r.plan.Ends && random.IntN(2) == 0 {
		t.Seconds = 1 + random.Int64N(10)
	}
	return t
}

// learn keeps the ids and keys that later calls need, and answers the number of
// the instruction suggestion that was answered, or 0.
func (r *recorder) learn(c Call, a Answer) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if a.GrantID != "" {
		r.grants[c.Agent][c.Tool] = a.GrantID
	}
	if a.Wish != "" {
		r.wish = a.Wish
	}
	if c.Kind == Add {
		r.tools[wanted] = a.ToolID
		r.adding = a.ToolID != "" || a.Code == Unknown
	}
	if a.KeyText != "" {
		r.keys[c.Agent] = append(r.keys[c.Agent], key{c.Key, a.KeyText})
	}
	if a.FactID == "" {
		return 0
	}
	if !slices.Contains(r.facts, a.FactID) {
		r.facts = append(r.facts, a.FactID)
	}
	return 1 + slices.Index(r.facts, a.FactID)
}

// Tally counts the operations of a history by what was asked and answered.
func (h History) Tally() map[Kind]map[string]int {
	counts := make(map[Kind]map[string]int)
	for _, op := range h.Operations {
		kind, code := op.Input.(Input).Kind, op.Output.(Output).Code
		if counts[kind] == nil {
			counts[kind] = make(map[string]int)
		}
		counts[kind][code]++
	}
	return counts
}
