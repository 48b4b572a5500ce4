package redisstore

import (
	"context"
	"crypto/sha1" //nolint:gosec // Redis calls scripts by it
	"embed"
	"encoding/hex"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

//go:embed lua/*.lua
var sources embed.FS

// A script is a concatenation of files, one concept each. The last file is the main part.
//
//nolint:gochecknoglobals // constants, but that Go has none that are computed
var (
	acquireScript  = newScript("good", "unpack", "clock", "head", "lease", "intent", "capture", "acquire")
	lateScript     = newScript("good", "clock", "head", "intent", "capture", "since", "late")
	extendScript   = newScript("good", "lease", "extend")
	releaseScript  = newScript("good", "hint", "lease", "release")
	noteScript     = newScript("good", "lease", "note")
	learnScript    = newScript("good", "clock", "learn")
	fillScript     = newScript("good", "clock", "head", "hint", "lease", "fill")
	vacantScript   = newScript("good", "unpack", "clock", "head", "vacancies")
	togetherScript = newScript("good", "unpack", "clock", "head", "intent", "capture", "since", "together")
	changeScript   = newScript("good", "unpack", "clock", "head", "hint", "lease", "intent", "versions", "change")
	eraScript      = newScript("good", "clock", "head", "hint", "replication", "era")
	stateScript    = newScript("good", "head", "state")
	logScript      = newScript("good", "head", "since", "log")
	lagScript      = newScript("good", "head", "lag")
	timeScript     = newScript("time")
	layoutScript   = newScript("clock", "layout")
	probeScript    = newScript("unpack", "clock", "probe")
	enqueueScript  = newScript("good", "unpack", "clock", "head", "hint", "lease", "intent", "versions", "change()",
		"record", "queue", "letters", "put", "enqueue")
	replayScript = newScript("good", "unpack", "clock", "head", "hint", "lease", "intent", "versions", "change()",
		"record", "queue", "letters", "put", "replay")
	claimScript    = newScript("good", "unpack", "clock", "record", "queue", "claim")
	settleScript   = newScript("good", "unpack", "clock", "record", "queue", "letters", "settle")
	standingScript = newScript("good", "unpack", "clock", "record", "queue", "standing")
)

type script struct{ source, sha string }

func newScript(files ...string) *script {
	var b strings.Builder
	for _, f := range files {
		b.WriteString(source(f))
	}
	sum := sha1.Sum([]byte(b.String())) //nolint:gosec // as above
	return &script{source: b.String(), sha: hex.EncodeToString(sum[:])}
}

// source is the content of a file. With () after its name it is a function of KEYS and ARGV.
func source(name string) string {
	file, function := strings.CutSuffix(name, "()")
	text, err := sources.ReadFile("lua/" + file + ".lua")
	if err != nil {
		panic(err) // it is part of the program
	}
	if function {
		return "\nlocal function " + file + "(KEYS, ARGV)\n" + string(text) + "end\n\n"
	}
	return string(text)
}

// call is a script with its arguments.
type call struct {
	script *script
	keys   []string
	args   []any
}

func (c *call) command(ctx context.Context, name, body string) *redis.Cmd {
	args := make([]any, 0, 3+len(c.keys)+len(c.args))
	args = append(args, name, body, len(c.keys))
	for _, k := range c.keys {
		args = append(args, k)
	}
	return redis.NewCmd(ctx, append(args, c.args...)...)
}

// run executes scripts, each on the server of its first key, in one round trip per server, or in
// two if a server does not know one of them. It returns the replies.
func (s *session) run(ctx context.Context, calls ...call) ([]any, error) {
	return results(s.runAll(ctx, calls))
}

// runAll is run with an error for each script.
func (s *session) runAll(ctx context.Context, calls []call) []redis.Cmder {
	cmds := make([]redis.Cmder, len(calls))
	for i := range calls {
		cmds[i] = calls[i].command(ctx, "evalsha", calls[i].script.sha)
	}
	s.send(ctx, cmds)
	s.sendUnknown(ctx, cmds, func(i int) *call { return &calls[i] })
	return cmds
}

// send executes commands, together with those of other calls if they are part of a batch. Each has
// its error.
func (s *session) send(ctx context.Context, cmds []redis.Cmder) {
	b := tier.BatchOf(ctx)
	if b == nil {
		s.sendNow(ctx, cmds)
		return
	}
	err := b.Send(ctx, cmds, func(ctx context.Context, all []any) {
		var together []redis.Cmder
		for _, cmds := range all {
			together = append(together, cmds.([]redis.Cmder)...) //nolint:forcetypeassert // as above
		}
		s.sendNow(ctx, together)
	})
	if err != nil {
		for _, cmd := range cmds {
			cmd.SetErr(err)
		}
	}
}

func (s *session) sendNow(ctx context.Context, cmds []redis.Cmder) {
	if len(cmds) == 1 {
		if err := s.nodes.process(ctx, s.nodes.all, cmds[0]); err != nil && cmds[0].Err() == nil {
			cmds[0].SetErr(err)
		}
		return
	}
	s.nodes.pipeline(ctx, s.nodes.all, cmds)
}

// sendUnknown executes the scripts again that a server did not know. Such a script has had no
// effect.
func (s *session) sendUnknown(ctx context.Context, cmds []redis.Cmder, of func(int) *call) {
	var again []redis.Cmder
	var at []int
	for i, cmd := range cmds {
		if redis.HasErrorPrefix(cmd.Err(), "NOSCRIPT") {
			c := of(i)
			again = append(again, c.command(ctx, "eval", c.script.source))
			at = append(at, i)
		}
	}
	if len(again) == 0 {
		return
	}
	s.send(ctx, again)
	for j, i := range at {
		cmds[i] = again[j]
	}
}

// results returns the replies to commands that are all of type *redis.Cmd, and the
// first error.
func results(cmds []redis.Cmder) ([]any, error) {
	values := make([]any, len(cmds))
	var first error
	for i, cmd := range cmds {
		if err := cmd.Err(); err != nil {
			if first == nil {
				first = err
			}
			continue
		}
		if c, ok := cmd.(*redis.Cmd); ok {
			values[i] = c.Val()
		}
	}
	return values, first
}
