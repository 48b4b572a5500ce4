package main

import (
	"math"
	"math/rand/v2"
	"slices"
)

// zipf draws numbers by Zipf's law, also with exponents below 1, which rand.Zipf does not allow.
type zipf struct{ sums []float64 }

func newZipf(n int, exponent float64) *zipf {
	z := &zipf{make([]float64, n)}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -exponent)
		z.sums[i] = sum
	}
	return z
}

// from returns a source of numbers of 0 to n-1, the same for the same seed.
func (z *zipf) from(seed uint64) func() int {
	r := rand.New(rand.NewPCG(seed, seed))
	return func() int {
		i, _ := slices.BinarySearch(z.sums, r.Float64()*z.sums[len(z.sums)-1])
		return min(i, len(z.sums)-1)
	}
}
