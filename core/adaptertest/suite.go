package adaptertest

import (
	"slices"
	"testing"
	"testing/synctest"
)

// Run runs every case against an adapter.
func Run(t *testing.T, f Framework) {
	warmUp(t, &f)
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			for _, reason := range c.unless {
				if reason.of(f) {
					t.Skip(f.Name + ": " + reason.flag)
				}
			}
			if !c.bubble {
				c.run(newSite(t, f, overLoopback))
				return
			}
			synctest.Test(t, func(t *testing.T) { c.run(newSite(t, f, inMemory)) })
		})
	}
}

// testCase is one behaviour.
type testCase struct {
	name   string
	run    func(s *site)
	bubble bool   // runs in a testing/synctest bubble, with virtual time
	unless []flag // the flags that skip it
}

func cases() []testCase {
	return slices.Concat(
		whoseCases(),
		perUserCases(),
		cacheStatusCases(),
		identityCases(),
		varyCases(),
		sometimesVaryCases(),
		instanceVaryCases(),
		exactCases(),
		streamCases(),
		stampedeCases(),
		boundsCases(),
		fieldBoundCases(),
		distantCases(),
		asSentCases(),
		credentialCases(),
		outerVaryCases(),
		hitCases(),
		freshCases(),
		lifetimeCases(),
		directiveCases(),
		validateCases(),
		revalidateCases(),
		headValidateCases(),
		rangeCases(),
		partCases(),
		downstreamCases(),
		preconditionCases(),
		encodingCases(),
		compressedCases(),
		groupCases(),
		invalidateCases(),
		writeCases(),
		scopeCases(),
		switchCases(),
		underWayCases(),
		attackCases(),
		missedCases(),
		wholeCases(),
		errorCases(),
		questionCases(),
		postedReadCases(),
	)
}

// over is a case over loopback sockets. within is a case in a bubble over pipes, where the
// clock moves only when all goroutines wait for it.
func over(name string, run func(s *site), unless ...flag) testCase {
	return testCase{name: name, run: run, unless: unless}
}

func within(name string, run func(s *site), unless ...flag) testCase {
	return testCase{name: name, run: run, bubble: true, unless: unless}
}

// flag is one of a Framework.
type flag struct {
	flag string
	of   func(f Framework) bool
}

//nolint:gochecknoglobals // constants
var (
	noErrors         = flag{"handlers return no errors", func(f Framework) bool { return f.Error == nil }}
	noOwnError       = flag{"errors of the app's own are not answered", func(f Framework) bool { return f.OwnError == nil }}
	noResponseWriter = flag{"NoResponseWriter", func(f Framework) bool { return f.NoResponseWriter }}
	noClientCancel   = flag{"NoClientCancel", func(f Framework) bool { return f.NoClientCancel }}
	noEarlyHints     = flag{"NoEarlyHints", func(f Framework) bool { return f.NoEarlyHints }}
	noDateOverride   = flag{"NoDateOverride", func(f Framework) bool { return f.NoDateOverride }}
	noEscapedSlash   = flag{"NoEscapedSlash", func(f Framework) bool { return f.NoEscapedSlash }}
	noHeadOnGet      = flag{"NoHeadOnGet", func(f Framework) bool { return f.NoHeadOnGet }}
	noImplicitAnswer = flag{"NoImplicitAnswer", func(f Framework) bool { return f.NoImplicitAnswer }}
	implicitAnswer   = flag{"not NoImplicitAnswer", func(f Framework) bool { return !f.NoImplicitAnswer }}
	paramsOutside    = flag{"ParamsOutside", func(f Framework) bool { return f.ParamsOutside }}
	noWarmer         = flag{"its Server is no Warmer", func(f Framework) bool { return !f.warms }}
	noHandlerRunner  = flag{"its Ctx is no HandlerRunner", func(f Framework) bool { return !f.runsHandlers }}
	noUploader       = flag{"its Ctx is no Uploader", func(f Framework) bool { return !f.uploads }}
)

// warmUp serves one request, so that a framework starts its process-wide goroutines
// (fasthttp's clock) outside a bubble. It finds out which optional methods there are.
func warmUp(t *testing.T, f *Framework) {
	s := newSite(t, *f, overLoopback)
	s.handle("GET /", func(c Ctx) error {
		_, f.runsHandlers = c.(HandlerRunner)
		_, f.uploads = c.(Uploader)
		return c.Text(200, "warm")
	})
	if a := s.get("/"); a.err != nil || a.status != 200 || a.body != "warm" {
		t.Fatalf("%s does not answer a plain request: %v %d %q", f.Name, a.err, a.status, a.body)
	}
	_, f.warms = s.srv.(Warmer)
}
