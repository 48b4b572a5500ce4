package main

import (
	"strings"
	"testing"
	"time"
)

// clock is a judge's clock that stands still.
type clock struct{ now time.Duration }

func newTestJudge() (*judge, *clock) {
	c := new(clock)
	j := newJudge(2, time.Second)
	j.now = func() time.Duration { return c.now }
	return j, c
}

// The product that these tests read and write.
const one = 1

// wrote writes version through a shop, and has it confirmed at once.
func wrote(j *judge, own memory, version int64) {
	w := j.write(one)
	j.written(w, own, version)
	j.confirmed(w, version)
}

// stale reads a product now, and reports whether the answer version is stale.
func stale(t *testing.T, j *judge, own memory, version int64) bool {
	t.Helper()
	before := j.tally().stale
	said := j.answered(j.read(own, one), version)
	if counted := j.tally().stale > before; counted != (said != "") {
		t.Errorf("stale is counted: %t, said: %q", counted, said)
	}
	return said != ""
}

func TestAnOldAnswerOfAnotherShopIsStaleAfterMaxStaleness(t *testing.T) {
	j, c := newTestJudge()
	here, there := make(memory, 2), make(memory, 2)
	c.now = time.Second
	wrote(j, here, 2)
	if !stale(t, j, here, 1) {
		t.Error("the shop that wrote answers the old version")
	}
	if stale(t, j, here, 2) || stale(t, j, there, 1) {
		t.Error("the new version here, or the old one elsewhere, is as promised")
	}
	c.now = 2*time.Second - 1
	if stale(t, j, there, 1) {
		t.Error("the old version is stale before it is due")
	}
	if longest := j.tally().longest; longest != time.Second-1 {
		t.Errorf("the longest is %v", longest)
	}
	early := j.read(there, one)
	c.now = 2 * time.Second
	if !stale(t, j, there, 1) {
		t.Error("the old version is not stale when it is due")
	}
	if stale(t, j, there, 2) || stale(t, j, there, 3) {
		t.Error("the new version is stale")
	}
	if said := j.answered(early, 1); said != "" {
		t.Errorf("an answer that began before is stale: %s", said)
	}
	if said := j.answered(j.read(there, 0), 0); said != "" {
		t.Errorf("another product is stale: %s", said)
	}
	if said := j.answered(j.read(there, one), 1); !strings.Contains(said, "version 2 was confirmed at 1s and due at 2s") {
		t.Errorf("it says %q", said)
	}
}

func TestTheNewestConfirmedWriteCounts(t *testing.T) {
	j, c := newTestJudge()
	own, there := make(memory, 2), make(memory, 2)
	second, third := j.write(one), j.write(one)
	j.written(third, own, 3)
	j.written(second, own, 2)
	j.confirmed(third, 3)
	c.now = time.Millisecond
	j.confirmed(second, 2)
	c.now = 2 * time.Second
	if !stale(t, j, there, 2) || !stale(t, j, own, 2) || stale(t, j, there, 3) {
		t.Error("an older write that is confirmed later takes the newer one's place")
	}
}

func TestAnUnconfirmedWriteBindsOnlyItsShop(t *testing.T) {
	j, c := newTestJudge()
	here, there := make(memory, 2), make(memory, 2)
	j.written(j.write(one), here, 2)
	j.unconfirmed()
	c.now = time.Hour
	if stale(t, j, there, 1) || !stale(t, j, here, 1) {
		t.Error("the shop that wrote promises, and no other does")
	}
	if n := j.tally().unpromised; n != 1 {
		t.Errorf("%d writes without a promise", n)
	}
}

func TestAWriteLostInAFailoverIsExcusedWhileItLasts(t *testing.T) {
	j, c := newTestJudge()
	here, there := make(memory, 2), make(memory, 2)
	wrote(j, here, 2)
	c.now = 5 * time.Second
	answers := j.losing(false)
	if stale(t, j, there, 1) {
		t.Error("while the master is gone")
	}
	c.now = 6 * time.Second
	answers()
	c.now = 7 * time.Second
	if stale(t, j, there, 1) || stale(t, j, here, 1) {
		t.Error("until MaxStaleness after the new one answers")
	}
	if n := j.tally().excused; n != 3 {
		t.Errorf("%d are excused", n)
	}
	c.now++
	if !stale(t, j, there, 1) {
		t.Error("after that it is stale")
	}
}

func TestAWriteConfirmedByTheNewMasterIsNotExcused(t *testing.T) {
	j, c := newTestJudge()
	here, there := make(memory, 2), make(memory, 2)
	answers := j.losing(false)
	answers()
	answers() // once
	c.now = 1
	wrote(j, here, 2)
	if !stale(t, j, here, 1) {
		t.Error("what the new master has confirmed is not lost")
	}
	if stale(t, j, there, 1) {
		t.Error("elsewhere it is not due")
	}
}

func TestAConfirmationOfAReplacedMasterBindsNobody(t *testing.T) {
	j, c := newTestJudge()
	here, there := make(memory, 2), make(memory, 2)
	before := j.write(one)
	first, second := j.losing(true), j.losing(true)
	during := j.write(one)
	first()
	between := j.write(one)
	second()
	for i, w := range []writing{before, during, between} {
		j.written(w, here, int64(i+2))
		j.confirmed(w, int64(i+2))
	}
	c.now = time.Hour
	if stale(t, j, here, 1) || stale(t, j, there, 1) {
		t.Error("a write that overlaps with two masters is a promise")
	}
	wrote(j, here, 9)
	c.now += time.Hour
	if !stale(t, j, there, 8) {
		t.Error("a write after that is no promise")
	}
}

func TestTheJudgeKeepsTheLatestFaults(t *testing.T) {
	j, _ := newTestJudge()
	for range 3 * maxLimits {
		j.losing(false)()
	}
	if len(j.limits) != maxLimits {
		t.Errorf("%d limits", len(j.limits))
	}
}

func TestQuantilesAreOfTheLatestSamples(t *testing.T) {
	var s samples
	if q := s.quantiles(.5); q[0] != 0 {
		t.Errorf("of none: %v", q)
	}
	for i := range 2 * maxSamples {
		s.add(time.Duration(i))
	}
	q := s.quantiles(0, .5, 1)
	if q[0] != maxSamples || q[1] != maxSamples*3/2 || q[2] != 2*maxSamples-1 {
		t.Errorf("%v", q)
	}
}
