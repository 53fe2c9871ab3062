package memstore

import (
	"slices"

	"github.com/agentkey-dev/agentkey-go/audit"
)

const chunkSize = 64

// lines is a log. A copy of it keeps its length: the holder of the head adds
// lines in place behind the end of every copy that was committed, where no
// reader looks, and writes over those that an undone Update left there.
type lines struct {
	chunks []*[chunkSize]audit.Line
	size   int64
}

func (l *lines) push(line audit.Line) {
	if l.size%chunkSize == 0 {
		l.chunks = append(l.chunks[:l.size/chunkSize], new([chunkSize]audit.Line))
	}
	l.chunks[l.size/chunkSize][l.size%chunkSize] = line
	l.size++
}

func (l *lines) at(seq int64) *audit.Line {
	return &l.chunks[seq/chunkSize][seq%chunkSize]
}

// erase changes lines where readers look, and so works on copies of their
// chunks. It reports false, with nothing changed, when a line isn't there.
func (l *lines) erase(seqs []int64, change func(i int, line *audit.Line)) bool {
	for _, seq := range seqs {
		if seq < 0 || seq >= l.size {
			return false
		}
	}
	l.chunks = slices.Clone(l.chunks)
	own := make(map[int64]bool)
	for i, seq := range seqs {
		if c := seq / chunkSize; !own[c] {
			fresh := *l.chunks[c]
			l.chunks[c], own[c] = &fresh, true
		}
		change(i, l.at(seq))
	}
	return true
}
