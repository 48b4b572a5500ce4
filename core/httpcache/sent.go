package httpcache

import (
	"slices"
	"sync"
	"time"

	"github.com/larderhq/larder/core/internal/local"
)

// A session library in outer middleware writes its cookie while the header is sent: the
// response is then one client's own, and the cache cannot know that before. Behind such
// middleware the header is therefore sent first; then the response is stored and given to
// the waiting requests. Its Cache-Status has the expected outcome of the storing.

// outgoing is the answer to the client whose request began the load.
type outgoing struct {
	reply *Answer // nil: the held answer is released, with fields added
	add   []Field
}

func (o *outgoing) send(ex Exchange, status Field) {
	if o.reply != nil {
		ex.Reply(o.answer(status))
		return
	}
	ex.Release(append(o.add, status))
}

func (o *outgoing) sendHeader(s HeaderSender, status Field) SentHeader {
	if o.reply != nil {
		return s.ReplyHeader(o.answer(status))
	}
	return s.ReleaseHeader(append(o.add, status))
}

func (o *outgoing) answer(status Field) Answer {
	a := *o.reply
	a.Extra = append(a.Extra[:len(a.Extra):len(a.Extra)], status)
	return a
}

// storeAndAnswer stores a response and answers the client. said says how, but for what
// became of the storing.
func (l *loading) storeAndAnswer(r *response, lateTags []string, said forwarded, out outgoing) {
	ex := l.a.ex
	l.assignKey(r, lateTags)
	status := func(refusal local.Refusal) Field {
		said.stored, said.detail = refusal == local.Stored, string(refusal)
		return said.field()
	}
	front, _ := outerOf(ex)
	s, sends := ex.(HeaderSender)
	d, defers := ex.(SentNotifier)
	switch {
	case front == OuterNone || !sends && !defers:
		out.send(ex, status(l.fillAndFinish(r, lateTags)))
	case sends:
		sent := out.sendHeader(s, status(l.turn.WouldRefuse(l.fill(r, lateTags))))
		own := l.setsCookie(sent)
		l.fillUnlessPrivate(own, r, lateTags)
		ex.Release(nil)
		if !own && l.setsCookie(sent) { // it came with the content
			l.turn.ForgetEntry(l.detached.ctx, r.key, l.filled)
			if l.rt.indexOf(l.a.key) == nil { // what the resource varies on is not forgotten for it
				l.rt.engine.Note(l.a.key, uncacheable{}, 0, rememberUncacheable, codec{})
			}
		}
	default:
		out.send(ex, status(l.turn.WouldRefuse(l.fill(r, lateTags))))
		l.fillWhenSent(d, r, lateTags)
	}
}

// setsCookie reports whether an answer has turned out to be its client's own.
func (l *loading) setsCookie(sent SentHeader) bool {
	return !l.rt.class.HTTP.AllowSetCookie && !l.d.withoutCookie && len(sent.Values("Set-Cookie")) > 0
}

// fillUnlessPrivate stores a response unless it is its client's own.
func (l *loading) fillUnlessPrivate(own bool, r *response, lateTags []string) {
	if !own {
		l.fillAndFinish(r, lateTags)
		return
	}
	l.d.store, l.d.reason, l.d.verdict = false, setCookie, local.Unshareable
	l.rt.notStored(l.a, l.turn, l.d)
}

// maxSending bounds how long a client that reads slowly delays waiting requests, where the
// header of its answer is known only when it has been sent.
const maxSending = time.Second

// fillWhenSent is fillUnlessPrivate when the answer has been sent, which is after Serve has
// returned. Requests that come meanwhile wait for that.
func (l *loading) fillWhenSent(d SentNotifier, r *response, lateTags []string) {
	rt, key := l.rt, l.a.key
	over := make(chan struct{})
	rt.sending.Store(key, over)
	l.a.deferred = true
	var once sync.Once
	end := func(sent SentHeader) {
		once.Do(func() {
			if sent != nil {
				l.fillUnlessPrivate(l.setsCookie(sent), r, lateTags)
			}
			l.turn.Finish(local.Outcome{Verdict: local.Failed})
			l.detached.end()
			rt.sending.CompareAndDelete(key, over)
			close(over)
		})
	}
	timer := time.AfterFunc(maxSending, func() { end(nil) })
	d.NotifySent(func(sent SentHeader) {
		timer.Stop()
		end(sent)
	})
}

// waitSending waits until the answer of a load for the same resource has been sent,
// if it is not known before whether it may be stored. It returns whether it waited.
func (rt *routeSnapshot) waitSending(a *cacheRequest) bool {
	over, ok := rt.sending.Load(a.key)
	if !ok {
		return false
	}
	select {
	case <-over.(chan struct{}):
	case <-a.ex.Context().Done():
		return false
	}
	return true
}

// mayStayWithoutCookie reports whether a response that sets a cookie may stay without
// it: it says that the cookie is private (RFC 9111 section 5.2.2.7), or that it is to be
// validated (section 5.2.2.4) and how long the rest is fresh, or that this is public.
// Session libraries say no-cache="Set-Cookie" of every page: that alone permits nothing.
func (rt *routeSnapshot) mayStayWithoutCookie(h Header, dir *directives) bool {
	cc := &dir.cc
	switch {
	case rt.identity == nil && slices.Contains(cc.PrivateFields, "Set-Cookie"):
		return true
	case slices.Contains(cc.NoCacheFields, "Set-Cookie"):
		return cc.Public || cc.SMaxAge.Present || cc.MaxAge.Present || !dir.targeted && len(h.Values("Expires")) > 0
	}
	return false
}
