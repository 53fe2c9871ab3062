package memstore

import (
	"iter"
	"math/rand/v2"
)

// tree is an ordered map that never changes: put and drop answer a new map
// which shares all but one path of nodes with the old one. A transaction works
// on its own map, a rollback forgets it, and a reader keeps the one it began
// with, so that nobody waits and nothing is copied as a whole.
//
// It is a treap: a search tree by key and a heap by random priorities, which
// keep it balanced whatever the keys are. Values are pointers to what is never
// written to again.
type tree[V any] struct {
	root *node[V]
}

type node[V any] struct {
	key         string
	value       V
	priority    uint64
	left, right *node[V]
}

func (t tree[V]) get(key string) (V, bool) {
	for n := t.root; n != nil; {
		switch {
		case key < n.key:
			n = n.left
		case key > n.key:
			n = n.right
		default:
			return n.value, true
		}
	}
	var none V
	return none, false
}

func (t tree[V]) has(key string) bool {
	_, ok := t.get(key)
	return ok
}

func (t tree[V]) put(key string, value V) tree[V] {
	return tree[V]{t.root.put(key, value)}
}

func (t tree[V]) drop(key string) tree[V] {
	if !t.has(key) {
		return t
	}
	return tree[V]{t.root.drop(key)}
}

func (n *node[V]) put(key string, value V) *node[V] {
	if n == nil {
		return &node[V]{key: key, value: value, priority: rand.Uint64()}
	}
	c := *n
	switch {
	case key < n.key:
		c.left = n.left.put(key, value)
		if l := c.left; l.priority > c.priority {
			c.left, l.right = l.right, &c // l was made by put just now
			return l
		}
	case key > n.key:
		c.right = n.right.put(key, value)
		if r := c.right; r.priority > c.priority {
			c.right, r.left = r.left, &c
			return r
		}
	default:
		c.value = value
	}
	return &c
}

func (n *node[V]) drop(key string) *node[V] {
	if n.key == key {
		return merge(n.left, n.right)
	}
	c := *n
	if key < n.key {
		c.left = n.left.drop(key)
	} else {
		c.right = n.right.drop(key)
	}
	return &c
}

// merge joins two trees of which the first has the lesser keys.
func merge[V any](a, b *node[V]) *node[V] {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	case a.priority > b.priority:
		c := *a
		c.right = merge(a.right, b)
		return &c
	default:
		c := *b
		c.left = merge(a, b.left)
		return &c
	}
}

// ascend yields the entries whose key is not below from, least first.
func (t tree[V]) ascend(from string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.ascend(from, yield) }
}

func (n *node[V]) ascend(from string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if n.key < from {
		return n.right.ascend(from, yield)
	}
	return n.left.ascend(from, yield) && yield(n.key, n.value) && n.right.ascend(from, yield)
}

// descend yields the entries whose key is below before, greatest first; all of
// them when before is empty.
func (t tree[V]) descend(before string) iter.Seq2[string, V] {
	return func(yield func(string, V) bool) { t.root.descend(before, yield) }
}

func (n *node[V]) descend(before string, yield func(string, V) bool) bool {
	if n == nil {
		return true
	}
	if before != "" && n.key >= before {
		return n.left.descend(before, yield)
	}
	return n.right.descend(before, yield) && yield(n.key, n.value) && n.left.descend(before, yield)
}
