package main

import (
	"errors"
	"fmt"
	"io"
	"runtime"
)

// maxRatio is the most that a hit of Larder may take, in hits of "same". It leaves room for a
// busy machine; `make bench` shows how far below a hit is.
const maxRatio = 3

// maxAllocs returns the most allocations of a hit of Larder, by framework or kind of value.
// They do not depend on the machine: a lower number that has been reached belongs here.
func maxAllocs() map[string]float64 {
	return map[string]float64{
		"net/http": 6, "Gin": 5, "Echo": 6, "Fiber v2": 0,
		"a plain struct": 1, "a struct with a slice": 2,
	}
}

// The errors of a gate that does not pass.
var (
	errSlow   = errors.New("hits have become slower")
	errAllocs = errors.New("hits allocate more")
)

// gate measures hits of Larder. It returns an error if one allocates more than it did, or is
// far slower than a handler that writes the same.
func gate(cfg config, out io.Writer) error {
	var failures []error
	for _, f := range frameworks() {
		if f.larder != nil {
			failures = append(failures, gateFramework(cfg, f, out))
		}
	}
	return errors.Join(append(failures, gateValues(out, somePlain), gateValues(out, someListed))...)
}

func gateFramework(cfg config, f framework, out io.Writer) error {
	list, done, err := contenders(f, sizes[0], false)
	if err != nil {
		return errors.Join(err, done())
	}
	clients := make([]func() func(), len(list))
	for i, c := range list {
		clients[i] = func() func() { return c.app.client(pageTarget) }
	}
	runtime.GC()
	ratio := compare(cfg, clients, 1, 1)[0].ratio
	allocs := hitAllocs(list[0].app.client(pageTarget))
	fmt.Fprintf(out, "%s: a hit takes %.2f × same, %.0f allocations\n", f.name, ratio, allocs)
	if ratio > maxRatio {
		err = fmt.Errorf("%w: %s: %.2f × same, at most %d are allowed", errSlow, f.name, ratio, maxRatio)
	}
	return errors.Join(err, checkAllocs(f.name, allocs), done())
}

func gateValues[V any](out io.Writer, load func() V) error {
	name := "a plain struct"
	if _, lists := any(load()).(listed); lists {
		name = "a struct with a slice"
	}
	get, end, err := openMap(ttl, load)
	if err != nil {
		return err
	}
	_, err = get()
	allocs := hitAllocs(func() { _, _ = get() })
	fmt.Fprintf(out, "%s: a hit of Map.Get, %.0f allocations\n", name, allocs)
	return errors.Join(err, checkAllocs(name, allocs), end())
}

func checkAllocs(name string, allocs float64) error {
	if most := maxAllocs()[name]; allocs > most {
		return fmt.Errorf("%w: %s: %.0f, at most %.0f are allowed", errAllocs, name, allocs, most)
	}
	return nil
}
