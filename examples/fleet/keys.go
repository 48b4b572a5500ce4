package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// command is one command of the user or of a script.
type command struct {
	verb   verb
	what   string // "shop", "redis", or nothing
	number int    // of it, from 1
}

type verb string

const (
	killVerb     verb = "kill"
	endVerb      verb = "end"
	stopVerb     verb = "stop"
	continueVerb verb = "continue"
	reviveVerb   verb = "revive"
	cutVerb      verb = "cut"
	quitVerb     verb = "quit"
	helpVerb     verb = "help"
)

const (
	shopWord  = "shop"
	redisWord = "redis"
)

// forms are all commands, and their short forms.
var forms = []struct {
	short string
	command
}{
	{"k", command{verb: killVerb, what: shopWord}},
	{"e", command{verb: endVerb, what: shopWord}},
	{"r", command{verb: reviveVerb, what: shopWord}},
	{"K", command{verb: killVerb, what: redisWord}},
	{"S", command{verb: stopVerb, what: redisWord}},
	{"C", command{verb: continueVerb, what: redisWord}},
	{"R", command{verb: reviveVerb, what: redisWord}},
	{"c", command{verb: cutVerb}},
	{"q", command{verb: quitVerb}},
	{"h", command{verb: helpVerb}},
}

const help = "k2: kill shop 2 | e2: end it gently | r2: revive it | K1, S1, C1, R1: kill, stop, continue, revive redis 1 | " +
	"c: cut subscriptions | q: quit"

func (c command) String() string {
	if c.what == "" {
		return string(c.verb)
	}
	return fmt.Sprintf("%s %s %d", c.verb, c.what, c.number)
}

// parseCommand reads "kill shop 2", "k2" or "k 2".
func parseCommand(line string) (command, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return command{}, errors.New("an empty command")
	}
	for _, f := range forms {
		var number string
		switch {
		case words[0] == f.short || words[0] == string(f.verb) && f.what == "":
			number = strings.Join(words[1:], " ")
		case f.what != "" && len(words) == 1 && strings.HasPrefix(words[0], f.short):
			number = words[0][len(f.short):]
			if number[0] < '0' || number[0] > '9' {
				continue // a word that begins so
			}
		case len(words) > 1 && words[0] == string(f.verb) && words[1] == f.what:
			number = strings.Join(words[2:], " ")
		default:
			continue
		}
		if f.what == "" {
			if number != "" {
				return command{}, fmt.Errorf("%q: %s stands alone", line, f.verb)
			}
			return f.command, nil
		}
		n, err := strconv.ParseUint(number, 10, 16)
		if err != nil || n == 0 {
			return command{}, fmt.Errorf("%q: %s %s needs a number from 1", line, f.verb, f.what)
		}
		c := f.command
		c.number = int(n)
		return c, nil
	}
	return command{}, fmt.Errorf("%q is no command; allowed: %s", line, help)
}

// check reports a shop or a server that there is not.
func (c command) check(shops, nodes int) error {
	most := map[string]int{shopWord: shops, redisWord: nodes}[c.what]
	if c.number > most {
		return fmt.Errorf("%s: there is no %s %d; allowed: 1 to %d", c, c.what, c.number, most)
	}
	return nil
}

// step is a command of a script.
type step struct {
	at      time.Duration // since the load began
	command command
}

const (
	maxSteps = 1000
	maxAt    = 24 * time.Hour
)

// parseScript reads "5s kill shop 2; 8s revive shop 2". Times do not go back.
func parseScript(script string) ([]step, error) {
	var steps []step
	for part := range strings.SplitSeq(script, ";") {
		part = strings.TrimSpace(part)
		if part == "" {
			continue
		}
		word, rest, _ := strings.Cut(part, " ")
		at, err := time.ParseDuration(word)
		switch {
		case err != nil:
			return nil, fmt.Errorf("%q: want a time and a command, such as 5s kill shop 2: %w", part, err)
		case at < 0 || at > maxAt:
			return nil, fmt.Errorf("%q: the time is %v; allowed: 0s to %v", part, at, maxAt)
		case len(steps) > 0 && at < steps[len(steps)-1].at:
			return nil, fmt.Errorf("%q is before the step in front of it", part)
		case len(steps) == maxSteps:
			return nil, fmt.Errorf("more than %d steps", maxSteps)
		}
		c, err := parseCommand(rest)
		if err != nil {
			return nil, err
		}
		steps = append(steps, step{at, c})
	}
	return steps, nil
}

// playScript gives the commands of a script when it is time for them.
func playScript(ctx context.Context, steps []step, begun time.Time, to chan<- command) {
	for _, s := range steps {
		timer := time.NewTimer(time.Until(begun.Add(s.at)))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return
		}
		select {
		case to <- s.command:
		case <-ctx.Done():
			return
		}
	}
}

// readCommands sends the commands that a user types, and calls prompt after each line.
func readCommands(ctx context.Context, in io.Reader, to chan<- command, e *events, prompt func()) {
	lines := bufio.NewScanner(in)
	for lines.Scan() {
		prompt()
		if strings.TrimSpace(lines.Text()) == "" {
			continue
		}
		c, err := parseCommand(lines.Text())
		if err != nil {
			e.add("%v", err)
			continue
		}
		select {
		case to <- c:
		case <-ctx.Done():
			return
		}
	}
}

// obey runs the commands one after the other.
func (w *world) obey(ctx context.Context, commands <-chan command, quit func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-commands:
			if c.verb == quitVerb {
				quit()
				return
			}
			w.events.add("> %s", c)
			begun := time.Now()
			said, err := w.do(ctx, c)
			switch {
			case ctx.Err() != nil:
			case err != nil:
				w.events.add("%s: %v", c, err)
			case said != "":
				w.events.add("%s", said)
			default:
				w.events.add("%s: done, %v", c, time.Since(begun).Round(time.Millisecond))
			}
		}
	}
}

// do runs one command.
func (w *world) do(ctx context.Context, c command) (said string, err error) {
	if err := c.check(len(w.fleet.places), len(w.redis.nodes)); err != nil {
		return "", err
	}
	switch c.what {
	case shopWord:
		at := w.fleet.places[c.number-1]
		switch c.verb {
		case killVerb:
			return "", w.fleet.end(at, syscall.SIGKILL)
		case endVerb:
			return "", w.fleet.end(at, syscall.SIGTERM)
		case reviveVerb:
			return "", w.fleet.revive(ctx, at)
		}
	case redisWord:
		n := w.redis.nodes[c.number-1]
		switch c.verb {
		case killVerb:
			return "", w.redis.kill(n)
		case stopVerb:
			return "", w.redis.freeze(n)
		case continueVerb:
			return "", w.redis.thaw(n)
		case reviveVerb:
			return "", w.redis.revive(ctx, n)
		}
	}
	switch c.verb {
	case cutVerb:
		n, err := w.redis.cut(ctx)
		return fmt.Sprintf("%d subscriptions cut", n), err
	case helpVerb:
		return help, nil
	}
	return "", fmt.Errorf("%s: not possible", c)
}
