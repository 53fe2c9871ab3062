package memstore

import (
	"maps"
	"slices"
	"testing"

	"github.com/matryer/is"
	"pgregory.net/rapid"
)

// Every version of a tree that was ever made goes on holding what it held.
func TestTreeIsAnImmutableOrderedMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		is := is.NewRelaxed(t)
		keys := rapid.StringMatching(`[a-c]{1,2}`)
		trees, models := []tree[int]{{}}, []map[string]int{{}}
		for i := range rapid.IntRange(1, 40).Draw(rt, "steps") {
			from := rapid.IntRange(0, len(trees)-1).Draw(rt, "version")
			next, model := trees[from], maps.Clone(models[from])
			k := keys.Draw(rt, "key")
			if rapid.Bool().Draw(rt, "put") {
				next, model[k] = next.put(k, i), i
			} else {
				next = next.drop(k)
				delete(model, k)
			}
			trees, models = append(trees, next), append(models, model)
		}
		bound := keys.Draw(rt, "bound")
		for i, tree := range trees {
			all := slices.Sorted(maps.Keys(models[i]))
			at, _ := slices.BinarySearch(all, bound)
			up, down := all[at:], slices.Clone(all[:at])
			slices.Reverse(down)
			var ascended, descended []string
			for k, v := range tree.ascend(bound) {
				is.Equal(v, models[i][k])
				ascended = append(ascended, k)
			}
			for k := range tree.descend(bound) {
				descended = append(descended, k)
			}
			is.True(slices.Equal(ascended, up))
			is.True(slices.Equal(descended, down))
			_, ok := tree.get(bound)
			is.Equal(ok, len(up) > 0 && up[0] == bound)
		}
	})
}
