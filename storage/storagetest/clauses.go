package storagetest

// clauses are the rules in the words of storage.Store's comment, and then the
// roles.
func clauses() []clause {
	list := []clause{
		{"basic", "insert", insertSentence, checkInsert, nil},
		{"basic", "update", insertSentence, checkUpdate, nil},
		{"basic", "roundtrip", "what is put is read back equal: every byte, every int64 (also its extremes), every string of valid UTF-8; empty and nil byte slices and lists are equal.", checkRoundtrip, nil},
		{"basic", "text", "a string that is not valid UTF-8 or holds NUL is ErrInvalid.", checkText, nil},
		{"basic", "reference", "a record that refers to a row that is not there is ErrInvalid.", checkReference, nil},
		{"basic", "tenant", "no method reads or changes a row of another organization than the one given to Update or View. A record whose Organization differs is ErrInvalid. The methods of Store outside Update and View are the closed list that can't know the organization yet: they only route, and what they found is read again under the head.", checkTenant, nil},
		{"basic", "owned", "a backend keeps no slice it was given and hands out none it keeps.", checkOwned, nil},
		{"basic", "order", "lists are ordered by id, descending, bytewise; After is exclusive.", checkOrder, nil},
		{"basic", "limits", "a limit outside 1 to MaxPage is ErrInvalid.", checkLimits, nil},
		{"basic", "closed", "after the backend was closed, every method answers ErrClosed.", checkClosed, nil},
		{"atomicity", "atomic", "either everything that fn did through the Tx of an Update is there afterwards, or nothing; an error or a panic of fn undoes all of it.", checkAtomic, nil},
		{"atomicity", "durable", "an Update that returned nil survives the end of the process and of the machine.", checkDurable, needReopen},
		{"atomicity", "rerun", "fn may run more than once; only its last run counts.", checkRerun, nil},
		{"atomicity", "conflict-is-result", "a Put that finds an id or a unique value taken, or another revision than Revision-1, and a Delete that finds another revision, answers false, changes nothing, and leaves the transaction usable.", checkConflict, nil},
		{"atomicity", "poison", "any error of a Tx method dooms the transaction: every later method answers ErrPoisoned, and Update returns an error and keeps nothing, also when fn returns nil.", checkPoison, nil},
		{"atomicity", "unknown", "when the commit is not answered, Update finds out under the head whether its lines stand at their numbers, and answers nil or an error accordingly. Only when it can't find out within ResolveTime, and by OutcomeTime after its context's deadline, or appended nothing, does it answer ErrUnknown.", checkUnknown, needLostCommits},
		{"atomicity", "nested", "Update or View called with the context of a running fn answers ErrNested.", checkNested, nil},
		{"atomicity", "done", "a Tx used after its fn returned answers ErrClosed.", checkDone, nil},
		{"atomicity", "cancelled", "a context that ends while fn runs, or before, undoes the Update.", checkCancelled, nil},
		{"contention", "serial", serialSentence, checkSerial, nil},
		{"contention", "alone", aloneSentence, checkAlone, nil},
		{"contention", "head-first", headSentence, checkHeadFirst, nil},
		{"contention", "revocation", revocationSentence, checkRevocation, nil},
		{"contention", "lease", leaseSentence, checkLeaseRace, nil},
		{"contention", "digest", digestSentence, checkDigestRace, nil},
		{"contention", "view", "a View reads one consistent state, at least as new as every Update that returned before it began, and for at most ViewTime; it never waits for an Update and never makes one wait.", checkView, nil},
		{"contention", "context", "ErrBusy, ErrUnavailable and a context's own error are never reported for each other.", checkContext, nil},
		{"processes", "serial", serialSentence, checkSerial, needSecond},
		{"processes", "alone", aloneSentence, checkAlone, needSecond},
		{"processes", "head-first", headSentence, checkHeadFirst, needSecond},
		{"processes", "revocation", revocationSentence, checkRevocation, needSecond},
		{"processes", "lease", leaseSentence, checkLeaseRace, needSecond},
		{"processes", "digest", digestSentence, checkDigestRace, needSecond},
	}
	return append(list, roles()...)
}

const (
	insertSentence = "a Put with Revision 1 inserts; with Revision n > 1 it replaces the row of revision n-1, all columns but the identity (see each record); where the identity differs it answers false or ErrInvalid and changes nothing. Revision below 1 is ErrInvalid."
	serialSentence = "Updates of one organization run one after another; each sees everything that those before it committed. Updates of different organizations may overlap or not."
	aloneSentence  = "an Update that fails, fails alone. Whatever Updates of different organizations share, each that answered nil is there afterwards, and nothing of one that answered an error."
	headSentence   = "an Update takes the organization's log head in a statement of its own, before fn runs; every read of fn sees what was committed before the head was taken, never an older state."

	// What follows from several clauses together.
	revocationSentence = "serial and head-first together: no vend stands in the log above the revocation that forbids it."
	leaseSentence      = "no delivery is leased twice at a time."
	digestSentence     = "digests are unique in the store: of two organizations that put the same one, one gets false."
)

func needReopen(c claims) string {
	if c.reopen == nil {
		return "the option Durable is not given"
	}
	return ""
}

func needSecond(c claims) string {
	if c.openSecond == nil {
		return "the option Processes is not given"
	}
	return ""
}

func needLostCommits(c claims) string {
	if c.loseCommit == nil {
		return "the option LostCommits is not given"
	}
	return ""
}
