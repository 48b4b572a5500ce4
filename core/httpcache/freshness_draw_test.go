package httpcache

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"time"
)

// dice decides what is drawn: by chance, or by the bytes of a fuzzer.
type dice struct {
	rng   *rand.Rand
	rolls []byte
}

// n returns a number below k, which is at most 256.
func (d *dice) n(k int) int {
	if d.rng != nil {
		return d.rng.IntN(k)
	}
	if len(d.rolls) == 0 {
		return 0
	}
	b := d.rolls[0]
	d.rolls = d.rolls[1:]
	return int(b) % k
}

// one is true once in k times.
func (d *dice) one(k int) bool { return d.n(k) == k-1 }

func pick[T any](d *dice, list ...T) T { return list[d.n(len(list))] }

func (d *dice) seconds() int64 {
	return pick[int64](d, 0, 1, 5, 10, 30, 59, 60, 61, 3600, 86400, 40_000_000, 1<<31-1, 1<<31, 1<<40)
}

// origin draws a response, but for its times.
func (d *dice) origin() (o drawn, class string) {
	class = pick(d, judgedNames...)
	o = drawn{
		status: pick(d, 200, 200, 200, 200, 200, 404, 410, 206, 301, 302, 201, 204, 405, 500, 503, 304, 412, 416, 299, 403, 418, 599),
		etag:   pick(d, "", "", `"a"`, `W/"a"`, "a"), vary: pick(d, "", "", "", "Accept", "*"),
		pragma: d.one(8), setCookie: d.one(6), trailer: d.one(30), identity: d.one(5),
		authorization: d.one(5), cookie: d.one(5), saidTTL: -1,
	}
	o.part = o.status == 206 && !d.one(6) || d.one(40)
	if d.one(8) {
		o.saidTTL = pick(d, 0, time.Second, time.Minute)
	}
	if !d.one(3) {
		o.cc = d.directives()
	}
	if d.one(4) {
		o.cdn = d.directives()
		o.cdnBroken = d.one(4)
	}
	if d.one(3) {
		o.ageThere, o.age, o.ageBroken = true, d.seconds(), d.one(6)
	}
	o.delay = pick(d, 0, 0, time.Second, 1500*time.Millisecond, 30*time.Second)
	return o, class
}

// times draws its dates.
func (d *dice) times(o *drawn) {
	ancient := pick(d, time.Time{}, time.Date(1601, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC))
	draw := func(offsets ...time.Duration) (m moment) {
		switch d.n(6) {
		case 0:
			return moment{there: true} // malformed
		case 1, 2:
			return m
		}
		m = moment{there: true, valid: true, at: o.now.Add(pick(d, offsets...)).UTC().Truncate(time.Second)}
		return m
	}
	const s, h = time.Second, time.Hour
	o.date = draw(0, 0, -s, -10*s, -h, -400*24*h, -100*365*24*h, 5*s, h)
	o.expires = draw(0, s, 10*s, 60*s, h, 1000*24*h, -s, -h)
	o.lastModified = draw(0, -s, -100*s, -10*h, -300*24*h, h)
	for _, m := range []*moment{&o.expires, &o.lastModified} {
		if m.valid && d.one(12) {
			m.at = ancient
		}
	}
}

// directives draws a field of a response.
func (d *dice) directives() []directive {
	list := []directive{}
	for range d.n(5) + 1 {
		v := directive{name: pick(d, "max-age", "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "no-cache", "no-cache",
			"private", "private", "public", "no-store", "must-understand", "must-revalidate", "proxy-revalidate", "immutable", "foo")}
		switch v.name {
		case "max-age", "s-maxage", "stale-while-revalidate", "stale-if-error":
			d.number(&v)
		case "no-cache", "private":
			if d.one(2) {
				v.form = qualified
				v.fields = pick(d, []string{"Set-Cookie"}, []string{"X-A", "Set-Cookie"}, []string{"X-B"})
			} else if d.one(6) {
				v.form = wrong
			}
		default:
			// must-revalidate permits something as well, but forbids more.
			if d.one(8) && v.name != "must-revalidate" {
				v.form = wrong
			}
		}
		list = append(list, v)
	}
	return list
}

func (d *dice) number(v *directive) {
	v.form, v.number = numbered, d.seconds()
	switch d.n(12) {
	case 0:
		v.form = wrong
	case 1:
		v.form = quoted
	case 2:
		v.form = bare
	}
}

// write spells a field: in any case, with any whitespace, on any number of lines,
// among directives that mean nothing. A targeted one has one spelling.
func (d *dice) write(list []directive, targeted bool) (lines []string) {
	line, members := "", 0
	for _, v := range list {
		name := v.name
		if !targeted && d.one(4) {
			name = strings.ToUpper(name)
		}
		member := name
		numeral := slices.Contains([]string{"max-age", "s-maxage", "stale-while-revalidate", "stale-if-error", "min-fresh", "max-stale"}, v.name)
		switch {
		case v.form == numbered:
			member = fmt.Sprintf("%s=%d", name, v.number)
		case v.form == quoted:
			member = fmt.Sprintf(`%s="%d"`, name, v.number)
		case v.form == qualified:
			member = name + `="` + strings.Join(v.fields, ", ") + `"`
		case v.form == wrong && numeral && targeted:
			member = name + pick(d, "=a", `=""`, "=-1", "=1.5", "=(1)")
		case v.form == wrong && numeral:
			member = name + pick(d, "=1x", `=""`, `="1, 2"`, "=1.5")
		case v.form == wrong:
			member = name + pick(d, `=""`, `=" b c"`)
		}
		switch {
		case members == 0:
		case d.one(5):
			lines, line = append(lines, line), ""
		default:
			line += pick(d, ",", ", ", " ,\t")
		}
		line += member
		members++
		if !targeted && d.one(6) {
			line += pick(d, ", x-no-store", `, foo="a, no-store"`, ",,", `,bar="\", private"`)
		}
	}
	return append(lines, line)
}

// render makes a header of a response.
func (d *dice) render(o *drawn) (h storedHeader) {
	add := func(name string, values ...string) { h = append(h, Field{Name: name, Values: values}) }
	date := func(name string, m moment, second bool) {
		switch {
		case !m.there:
		case !m.valid:
			add(name, pick(d, "0", "-1", "", "yesterday", "Sat, 1 Jan 2000 00:00:00 GMT", "Sat, 01 Jan 2000 00:00:00 CET"))
		case second && d.one(5): // section 4.2.1: the first one counts
			add(name, m.at.Format(http.TimeFormat), m.at.Add(time.Hour).Format(http.TimeFormat))
		default:
			add(name, m.at.Format(http.TimeFormat))
		}
	}
	date("Date", o.date, false)
	date("Expires", o.expires, true)
	date("Last-Modified", o.lastModified, false)
	if o.cc != nil {
		add("Cache-Control", d.write(o.cc, false)...)
	}
	if o.cdn != nil {
		lines := d.write(o.cdn, true)
		if o.cdnBroken {
			lines = append(lines, pick(d, "&", "Max-Age=5", ""))
		}
		add("Cdn-Cache-Control", lines...)
	}
	if o.pragma {
		add("Pragma", pick(d, "no-cache", "a, No-Cache"))
	}
	if o.ageThere && o.ageBroken {
		add("Age", pick(d, [][]string{{"x"}, {"-1"}, {"1", "1"}, {"1, 2"}, {""}, {"1.5"}}...)...)
	} else if o.ageThere {
		add("Age", fmt.Sprint(o.age)+pick(d, "", "", ",7"))
		o.age = min(o.age, 1<<31)
	}
	for _, f := range []struct {
		there       bool
		name, value string
	}{
		{o.etag != "", "Etag", o.etag}, {o.vary != "", "Vary", o.vary}, {o.part, "Content-Range", "bytes 0-3/10"},
		{o.setCookie, "Set-Cookie", "a=b"}, {o.trailer, "Trailer", "X-T"}, {true, "X-A", "1"},
	} {
		if f.there {
			add(f.name, f.value)
		}
	}
	slices.SortFunc(h, func(a, b Field) int { return strings.Compare(a.Name, b.Name) })
	return h
}

// asked draws a request.
func (d *dice) asked(q *asked) *request {
	header := http.Header{}
	if q.pragma = d.one(6); q.pragma {
		header["Pragma"] = []string{"no-cache"}
	}
	if d.one(4) {
		return &request{header: header}
	}
	q.cc = []directive{}
	for range d.n(3) + 1 {
		v := directive{name: pick(d, "max-age", "max-stale", "max-stale", "min-fresh", "no-cache", "only-if-cached", "foo")}
		switch v.name {
		case "max-age", "max-stale", "min-fresh":
			d.number(&v)
			v.number = pick(d, v.number, 0, 1, 10, 60, 90)
		}
		q.cc = append(q.cc, v)
	}
	header["Cache-Control"] = d.write(q.cc, false)
	return &request{header: header}
}

// later draws when it is asked: best about where something ends.
func (d *dice) later(v *verdict, q *asked) time.Duration {
	around := []time.Duration{0, v.fresh, v.fresh + v.stale, v.fresh + v.fallback, v.fresh + time.Minute}
	for _, name := range []string{"max-age", "max-stale", "min-fresh"} {
		if n, ok := q.honoured().seconds(name); ok {
			s := time.Duration(n) * time.Second
			around = append(around, s-v.age, v.fresh+s, v.fresh-s, s-v.age+v.fresh)
		}
	}
	t := pick(d, around...) + pick(d, 0, 0, -1, 1, time.Second, -time.Second, time.Minute)
	return max(0, min(t, 10*365*24*time.Hour))
}
