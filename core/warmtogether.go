package core

import (
	"context"
	"runtime/debug"

	"github.com/larderhq/larder/core/internal/coherence"
	"github.com/larderhq/larder/core/internal/local"
)

// leadTogether loads and stores the values of Warm without leases, as far as the shared tier can
// prove them valid (R30 of the protocol). It returns the parts for which each needs a lease.
func (b *batch) leadTogether(ctx context.Context, led []*part) (rest []*part) {
	for _, p := range led {
		b.guard(p, func() {
			if a, ok := b.s.lookAgain(p.turn, nil); ok {
				b.answer(p.index, a)
				p.done = true
			}
		})
	}
	led = open(led)
	turns := make([]*coherence.Turn, len(led))
	for i, p := range led {
		turns[i] = p.turn
	}
	group := b.s.c.engine.Survey(ctx, turns)
	if group == nil {
		return led
	}
	var vacant []*part
	for _, p := range led {
		if group.Has(p.turn) {
			vacant = append(vacant, p)
		} else {
			rest = append(rest, p)
		}
	}
	if len(vacant) == 0 {
		return rest
	}
	c := b.call(ctx, vacant)
	for _, f := range b.fillTogether(ctx, group, vacant, &c) {
		if f.filling.Left {
			rest = append(rest, f.part)
			continue
		}
		f.stored(f.filling.Entry, f.filling.Refusal, &f.result)
		b.end(f)
	}
	return rest
}

// filledPart is a part whose value a group stores.
type filledPart struct {
	settlement
	part    *part
	result  loaded
	filling coherence.Filling
}

// fillTogether stores the results of a call, and returns the parts whose values it has offered to
// the tier. The other parts are done.
func (b *batch) fillTogether(ctx context.Context, group *coherence.Batch, parts []*part, c *called) []*filledPart {
	offered, fillings := make([]*filledPart, 0, len(parts)), make([]*coherence.Filling, 0, len(parts))
	for i, p := range parts {
		b.guard(p, func() {
			f := &filledPart{part: p, result: loaded{answer: answer{err: c.err}, cut: c.cut}}
			if c.err == nil {
				f.result.answer = c.answers[i]
			}
			if c.panicked {
				p.turn.Finish(local.Outcome{Verdict: local.Failed})
				b.end(f)
				return
			}
			var ok bool
			if f.settlement, ok = b.s.settlement(ctx, p.turn, c.said, &f.result); !ok || f.noStore {
				if ok {
					b.s.leaveUnstored(ctx, p.turn, &f.settlement)
				}
				b.end(f)
				return
			}
			f.filling = coherence.Filling{Turn: p.turn, Fill: f.fill}
			offered, fillings = append(offered, f), append(fillings, &f.filling)
		})
	}
	group.Fill(ctx, fillings)
	return offered
}

// end finishes the turn of a part, unless that has ended, and answers its id.
func (b *batch) end(f *filledPart) {
	f.finish(f.part.turn)
	if f.result.stored {
		b.stored.Add(1)
	}
	b.answer(f.part.index, f.result.answer)
	f.part.done = true
}

// guard calls do for a part. A panic of the codec or clone function is the answer of its id.
func (b *batch) guard(p *part, do func()) {
	defer func() {
		if v := recover(); v != nil {
			b.s.c.engine.Count.Panics.Add(1)
			p.turn.Finish(local.Outcome{Verdict: local.Failed})
			b.answer(p.index, answer{err: &PanicError{Value: v, Stack: debug.Stack()}})
			p.done = true
		}
	}()
	do()
}
