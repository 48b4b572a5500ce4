package core

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"time"
)

// classSet is the classes as they are from one SetClasses to the next.
type classSet struct {
	by       Classes // nobody writes to it
	revision uint64  // how many there were before
}

// SetClasses changes the classes while the cache is in use. They are those of New as
// Options.Classes has them, changed or not, and any number of new ones. Every field of a
// Class may change, within these limits:
//
//   - A class that is there stays: handlers and maps hold it. The default class is
//     the zero Class unless given.
//   - Its HTTP stays as it is: stored responses are found and answered by it.
//   - LoadTimeout is at most the longest of New. With a Remote, ReplicaLag is at most the
//     longest of New as well: other instances have been told of it.
//   - TTL stays above 0 where a map is of the class.
//
// Everything is checked before anything changes: with an error, a *ConfigError,
// nothing has. Whatever begins after SetClasses has returned goes by the new classes;
// what is under way, with all that it loads, stores and refreshes, goes by those that it
// began with.
//
// What is stored keeps the lifetime and windows that it was stored with, until it is
// invalidated, replaced or refreshed: after a TTL has been shortened, Invalidate ends
// sooner what was stored before. A map's StaleIfError alone holds for what is stored, too,
// but makes nothing last longer. Other instances have classes of their own.
func (c *Cache) SetClasses(classes Classes) error {
	next, err := classes.resolve()
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	was := c.classes.Load()
	for _, name := range slices.Sorted(maps.Keys(was.by)) {
		class, ok := next[name]
		if !ok {
			return &ConfigError{fmt.Sprintf("Classes[%q]", name), nil, "a class: one that is there cannot be taken out"}
		}
		if err := unchanged(name, was.by[name].HTTP, class.HTTP); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(next)) {
		if err := c.within(name, next[name]); err != nil {
			return err
		}
	}
	for _, prefix := range slices.Sorted(maps.Keys(c.maps)) {
		if name := c.maps[prefix].class; next[name].TTL == 0 {
			return &ConfigError{classField(name, "TTL"), "0s", fmt.Sprintf("1ms or more: the map %q is of this class", prefix)}
		}
	}
	c.classes.Store(&classSet{by: next, revision: was.revision + 1})
	return nil
}

// unchanged demands that a class's policy is what it was.
func unchanged(name string, was, is HTTPPolicy) error {
	a, b := reflect.ValueOf(was), reflect.ValueOf(is)
	for i := range a.NumField() {
		if old, now := a.Field(i).Interface(), b.Field(i).Interface(); !reflect.DeepEqual(old, now) {
			field := classField(name, "HTTP."+a.Type().Field(i).Name)
			return &ConfigError{field, now, fmt.Sprintf("%#v, as it is: a class's HTTP cannot be changed", old)}
		}
	}
	return nil
}

// within demands that a class keeps to what the engine and the shared tier were made
// for: intents that have lapsed are remembered for the longest load, and every
// invalidation leaves a mark for the longest lag.
func (c *Cache) within(name string, class Class) error {
	limit := func(field string, d, most time.Duration) error {
		return &ConfigError{classField(name, field), d.String(), fmt.Sprintf("up to %v, the longest of any class that the cache was made with", most)}
	}
	switch {
	case class.LoadTimeout > c.longestLoad:
		return limit("LoadTimeout", class.LoadTimeout, c.longestLoad)
	case c.opts.Remote != nil && class.ReplicaLag > c.replicaLag:
		return limit("ReplicaLag", class.ReplicaLag, c.replicaLag)
	}
	return nil
}

// classRevision returns how many calls of SetClasses have succeeded.
func (c *Cache) classRevision() uint64 { return c.classes.Load().revision }
