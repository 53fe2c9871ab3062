package load

import "slices"

// Spread is the median of some rounds, and the lowest and the highest of them.
type Spread struct {
	Median float64 `json:"median"`
	Low    float64 `json:"low"`
	High   float64 `json:"high"`
}

// Of is the Spread of values, of which there is at least one.
func Of(values []float64) Spread {
	v := slices.Sorted(slices.Values(values))
	middle := v[len(v)/2]
	if len(v)%2 == 0 {
		middle = (v[len(v)/2-1] + middle) / 2
	}
	return Spread{Median: middle, Low: v[0], High: v[len(v)-1]}
}
