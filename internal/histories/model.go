package histories

// The model is written from the specification and shares nothing with the
// library, not even the names of statuses. It is a value: copying it copies all.

type status int

const (
	none status = iota
	pending
	approved
	denied
	revoked
	expired
	usedUp
)

// String is the status in an explanation.
func (s status) String() string {
	return [...]string{"none", "pending", "approved", "denied", "revoked", "expired", "used up"}[s]
}

// locked is the code of what a locked organization refuses.
const locked = "organization_locked"

// refusals are the codes with which a vend of a grant in that status is refused.
var refusals = [...]string{
	none: "no_grant", pending: "pending", denied: "denied", revoked: "revoked", expired: "expired", usedUp: "used_up",
}

type grant struct {
	status     status
	cycle      int64
	asked      Terms // zero where nobody asked
	granted    Terms // also what the first of two approvers granted
	approvals  [Actors]bool
	used       int64
	begin      int64 // in seconds of the history
	end        int64 // likewise, 0: never
	credential int   // of a tool that has one for each agent
}

type agent struct {
	suspended bool
	key       int // the one that is valid
	grants    [Tools]grant
}

// wish is the suggestion of the wanted tool.
type wish struct {
	asked      bool // by somebody
	dismissed  bool // for longer than a history lasts
	added      bool
	credential int // of the tool
	supporters [Agents]bool
}

// guide is the shared tool's instructions, and what was learned about it.
type guide struct {
	text  int    // generation
	state status // of the suggestion for this version: none, pending or denied
	fact  int    // its number, 0 as long as no answer told it
	open  uint64 // a bit for each number whose suggestion is pending, for this version or an older one
	seen  uint64 // likewise, that was told
}

type world struct {
	now        int64 // seconds since the beginning
	locked     bool
	credential int // of the shared tool
	guarded    int // of the one that needs two approvals
	wish       wish
	guide      guide
	agents     [Agents]agent
}

// apply does what is asked and says what must be answered. It is pure.
func (w world) apply(in Input) (world, Output) {
	a := &w.agents[in.Agent]
	g := &a.grants[in.Tool]
	switch in.Kind {
	case Vend:
		return w.vend(in)
	case Request:
		if code := a.refusal(in.Key); code != Done {
			return w, Output{Code: code}
		}
		if w.locked {
			return w, Output{Code: locked}
		}
		return w.request(in)
	case Approve, Assign:
		code := a.decide(in, w.now)
		return w, Output{Code: code, Cycle: g.cycle}
	case Deny:
		if g.status != pending {
			return w, Output{Code: "not_pending"}
		}
		g.status = denied
		return w, Output{Cycle: g.cycle}
	case Narrow:
		return w, Output{Code: g.narrow(in.Terms, w.now), Cycle: g.cycle}
	case Revoke:
		if g.status == none {
			return w, Output{Code: "unknown_request"}
		}
		g.status = revoked
		return w, Output{Cycle: g.cycle}
	case Suspend:
		n := a.suspend()
		return w, Output{Revoked: n}
	case Reactivate:
		if !a.suspended {
			return w, Output{Code: "agent_is_active"}
		}
		a.suspended = false
	case Rotate:
		a.key = in.Key
	case Replace:
		w.credential = in.Credential
	case Lock, Unlock:
		w.locked = in.Kind == Lock
	case Suggest:
		return w.suggest(in)
	case Dismiss:
		if !w.wish.asked || w.wish.dismissed || w.wish.added {
			return w, Output{Code: "suggestion_not_pending"}
		}
		w.wish.dismissed = true
	case Add:
		w.add(in.Credential)
	case Learn:
		return w.learn(in)
	case Reject, Accept:
		return w, Output{Code: w.guide.decide(in)}
	case Rewrite:
		w.guide.write(in.Text)
	case Advance:
		w.advance(in.Terms.Seconds)
	case Sweep:
	}
	return w, Output{}
}

// refusal is why the agent's call is refused before anything else is looked at.
func (a agent) refusal(key int) string {
	switch {
	case key != Trusted && key != a.key:
		return "key_revoked"
	case a.suspended:
		return "agent_suspended"
	}
	return Done
}

func (w world) vend(in Input) (world, Output) {
	a := &w.agents[in.Agent]
	g := &a.grants[in.Tool]
	if code := a.refusal(in.Key); code != Done {
		return w, Output{Code: code}
	}
	if w.locked {
		return w, Output{Code: locked}
	}
	if g.status != approved {
		return w, Output{Code: refusals[g.status]}
	}
	out := Output{Credential: [...]int{shared: w.credential, perAgent: g.credential, guarded: w.guarded, wanted: w.wish.credential}[in.Tool], Left: -1}
	if in.Tool == shared {
		out.Text = w.guide.text
	}
	if g.granted.Max > 0 {
		g.used++
		out.Left = g.granted.Max - g.used
		if out.Left == 0 {
			g.status = usedUp
		}
	}
	return w, out
}

func (w world) suggest(in Input) (world, Output) {
	code := w.agents[in.Agent].refusal(in.Key)
	switch {
	case code != Done:
	case w.locked:
		code = locked
	case w.wish.added:
		code = "existing_tool"
	case w.wish.dismissed:
		code = "suggestion_dismissed"
	}
	if code != Done {
		return w, Output{Code: code}
	}
	joined := w.wish.asked
	w.wish.asked, w.wish.supporters[in.Agent] = true, true
	return w, Output{Joined: joined}
}

// add adds the wanted tool: who suggested it and may act has requested it then.
func (w *world) add(credential int) {
	pendingThen := w.wish.asked && !w.wish.dismissed
	w.wish.added, w.wish.credential = true, credential
	for i := range w.agents {
		if a := &w.agents[i]; pendingThen && w.wish.supporters[i] && !a.suspended {
			a.grants[wanted] = grant{status: pending, cycle: 1}
		}
	}
}

func (w world) learn(in Input) (world, Output) {
	a := w.agents[in.Agent]
	code := a.refusal(in.Key)
	switch g := a.grants[shared]; {
	case code != Done:
	case w.locked:
		code = locked
	case g.status != approved:
		code = refusals[g.status]
	case w.guide.state == denied:
		code = "instructions_dismissed"
	}
	if code != Done {
		return w, Output{Code: code}
	}
	out := Output{Joined: w.guide.state == pending, Fact: w.guide.fact}
	w.guide.state = pending
	return w, out
}

// tell takes the number of the pending suggestion from an answer, if it is one
// that was not told of another one.
func (g *guide) tell(number int) bool {
	bit := uint64(1) << number
	if g.fact != 0 || number == 0 || g.seen&bit != 0 {
		return false
	}
	g.fact, g.open, g.seen = number, g.open|bit, g.seen|bit
	return true
}

func (g *guide) decide(in Input) string {
	bit := uint64(1) << in.Fact
	switch {
	case g.open&bit == 0:
		return "suggestion_not_pending"
	case in.Kind == Reject:
		if in.Fact == g.fact {
			g.state = denied
		}
	case in.Fact != g.fact:
		return "instructions_changed"
	default:
		g.write(in.Text)
	}
	g.open &^= bit
	return Done
}

// write makes a new version, for which nothing was learned yet.
func (g *guide) write(text int) { g.text, g.state, g.fact = text, none, 0 }

func (w world) request(in Input) (world, Output) {
	g := &w.agents[in.Agent].grants[in.Tool]
	switch g.status {
	case pending:
		return w, Output{Code: "already_pending"}
	case approved:
		return w, Output{Code: "already_approved"}
	case none, denied, revoked, expired, usedUp:
	}
	*g = grant{status: pending, cycle: g.cycle + 1, asked: in.Terms}
	return w, Output{Cycle: g.cycle}
}

// decide approves a request, or assigns a tool.
func (a *agent) decide(in Input, now int64) string {
	g := &a.grants[in.Tool]
	switch {
	case in.Kind == Approve && g.status == none:
		return "unknown_request"
	case a.suspended:
		return "agent_is_suspended"
	case in.Kind == Assign && g.status == approved:
		return Done // stays as it is
	case in.Kind == Assign && in.Tool == guarded:
		return "approvals_required"
	case in.Kind == Approve && g.status != pending:
		return "not_pending"
	case in.Kind == Approve && g.approvals[in.Actor]:
		return "already_decided"
	case g.status != pending:
		*g = grant{cycle: g.cycle + 1}
	}
	bound := g.asked
	if g.approvals != ([Actors]bool{}) {
		bound = g.granted
	}
	terms, narrower := within(in.Terms, bound)
	if !narrower {
		return Invalid
	}
	g.granted, g.approvals[in.Actor] = terms, true
	if in.Tool == guarded && g.approvals != [Actors]bool{true, true} {
		return Done // the other one has to approve too
	}
	g.status, g.begin = approved, now
	if terms.Seconds > 0 {
		g.end = now + terms.Seconds
	}
	if in.Tool == perAgent {
		g.credential = in.Credential
	}
	return Done
}

// narrow takes some of what was granted away, but never all of it.
func (g *grant) narrow(to Terms, now int64) string {
	if g.status != approved {
		return "not_approved"
	}
	terms, narrower := within(to, g.granted)
	end := int64(0)
	if terms.Seconds > 0 {
		end = g.begin + terms.Seconds
	}
	switch {
	case !narrower:
		return Invalid
	case terms == g.granted:
		return Done
	case end != 0 && now >= end, terms.Max > 0 && g.used >= terms.Max:
		return Invalid
	}
	g.granted, g.end = terms, end
	return Done
}

// within takes what the terms leave open from what was asked.
func within(t, asked Terms) (Terms, bool) {
	if t.Max == 0 {
		t.Max = asked.Max
	}
	if t.Seconds == 0 {
		t.Seconds = asked.Seconds
	}
	return t, (asked.Max == 0 || t.Max <= asked.Max) && (asked.Seconds == 0 || t.Seconds <= asked.Seconds)
}

// suspend says how many grants it revoked.
func (a *agent) suspend() (n int64) {
	if a.suspended {
		return 0
	}
	a.suspended = true
	for i := range a.grants {
		if g := &a.grants[i]; g.status == pending || g.status == approved {
			g.status = revoked
			n++
		}
	}
	return n
}

func (w *world) advance(seconds int64) {
	w.now += seconds
	for i := range w.agents {
		for j := range w.agents[i].grants {
			if g := &w.agents[i].grants[j]; g.status == approved && g.end != 0 && w.now >= g.end {
				g.status = expired
			}
		}
	}
}

// step says whether the world may answer so, and how it is afterwards.
//
// An unknown outcome explains nothing and may be anything: it is given no end in
// the history, so that its effect may come at any later time, or after everything
// that was seen, which is as good as never.
func (w world) step(in Input, got Output) (bool, world) {
	switch {
	case got.Code == Unavailable, got.Code == Changed && in.Kind == Assign && in.Tool == perAgent:
		return true, w
	}
	next, want := w.apply(in)
	if in.Kind == Learn && want.Code == Done && got.Code == Done && want.Fact == 0 {
		if !next.guide.tell(got.Fact) {
			return false, w
		}
		want.Fact = got.Fact
	}
	return got.Code == Unknown || agrees(want, got), next
}

func agrees(want, got Output) bool {
	if want.Code != Done || got.Code != Done {
		return want.Code == got.Code
	}
	return want.Credential == got.Credential && told(want.Left, got.Left) && told(want.Cycle, got.Cycle) && told(want.Revoked, got.Revoked) &&
		want.Joined == got.Joined && want.Fact == got.Fact && want.Text == got.Text
}

func told(want, got int64) bool { return got == Untold || got == want }
