package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestShortFormsOfCommandsParseTheSame(t *testing.T) {
	for _, f := range forms {
		number := ""
		want := f.command
		if f.what != "" {
			number, want.number = "7", 7
		}
		for _, line := range []string{f.short + number, f.short + " " + number, want.String(), "  " + want.String() + "  "} {
			if got, err := parseCommand(line); err != nil || got != want {
				t.Errorf("%q is %v, %v; want %v", line, got, err, want)
			}
		}
	}
	for _, line := range []string{
		"", " ", "k", "k0", "k-1", "kx", "k70000", "k2 3", "kill", "kill 2", "kill shop", "kill shop x", "kill shop 1 2", "kill house 1",
		"stop shop 1", "end redis 1", "cut 1", "cut it", "q1", "quit now", "K", "nonsense", "continue", "shop 1",
	} {
		if got, err := parseCommand(line); err == nil {
			t.Errorf("%q is %v", line, got)
		}
	}
	if _, err := parseCommand("reboot"); err == nil || !strings.Contains(err.Error(), "no command") {
		t.Errorf("a word that begins like a short form: %v", err)
	}
}

func TestStepsOfAScriptKeepTheirTimes(t *testing.T) {
	steps, err := parseScript("5s kill shop 2; 8s r2;\n8s stop redis 1 ;; 1m quit;")
	want := []step{
		{5 * time.Second, command{killVerb, shopWord, 2}},
		{8 * time.Second, command{reviveVerb, shopWord, 2}},
		{8 * time.Second, command{stopVerb, redisWord, 1}},
		{time.Minute, command{verb: quitVerb}},
	}
	if err != nil || !slices.Equal(steps, want) {
		t.Errorf("%v, %v", steps, err)
	}
	if steps, err := parseScript(""); err != nil || steps != nil {
		t.Errorf("no script: %v, %v", steps, err)
	}
	for script, said := range map[string]string{
		"5 kill shop 2":                     "want a time",
		"kill shop 2":                       "want a time",
		"5s":                                "empty command",
		"5s kill":                           "no command",
		"-5s quit":                          "allowed: 0s",
		"25h quit":                          "allowed: 0s",
		"5s cut; 4s cut":                    "before the step",
		strings.Repeat("1s c;", maxSteps+1): "more than",
	} {
		if _, err := parseScript(script); err == nil || !strings.Contains(err.Error(), said) {
			t.Errorf("%.20q: %v; want %q", script, err, said)
		}
	}
}

func FuzzParseScript(f *testing.F) {
	for _, s := range []string{"5s kill shop 2; 8s revive shop 2", "1ms K1;2ms R1", "1h2m c;", "0 q", ";;", "1s k", "9999999h q", "1s continue redis 65535"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, script string) {
		steps, err := parseScript(script)
		if err != nil {
			if steps != nil {
				t.Fatalf("steps beside the error %v", err)
			}
			return
		}
		// Written out it is the same script.
		var b strings.Builder
		for i, s := range steps {
			if s.at < 0 || s.at > maxAt || i > 0 && s.at < steps[i-1].at || (s.command.number > 0) != (s.command.what != "") {
				t.Fatalf("%v", steps)
			}
			fmt.Fprintf(&b, "%v %s; ", s.at, s.command)
		}
		again, err := parseScript(b.String())
		if err != nil || !slices.Equal(again, steps) {
			t.Fatalf("%q becomes %q: %v, %v", script, b.String(), again, err)
		}
	})
}

func TestAnUnknownCommandIsReportedAndReadingContinues(t *testing.T) {
	events, commands := newEvents(), make(chan command)
	prompts, read := 0, make(chan struct{})
	go func() {
		defer close(read)
		readCommands(t.Context(), strings.NewReader("what\n\nk2\nq\n"), commands, events, func() { prompts++ })
	}()
	if got := []string{(<-commands).String(), (<-commands).String()}; !slices.Equal(got, []string{"kill shop 2", "quit"}) {
		t.Errorf("commands: %q", got)
	}
	<-read
	if said := strings.Join(events.lately(), "\n"); !strings.Contains(said, `"what" is no command`) || prompts != 4 {
		t.Errorf("%d prompts, events:\n%s", prompts, said)
	}
}

func TestAScriptThatEndsLeavesNoStep(t *testing.T) {
	commands := make(chan command)
	ctx, cancel := context.WithCancel(t.Context())
	steps := []step{{0, command{verb: cutVerb}}, {time.Hour, command{verb: quitVerb}}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		playScript(ctx, steps, time.Now(), commands)
	}()
	if c := <-commands; c.verb != cutVerb {
		t.Errorf("the first command is %v", c)
	}
	cancel()
	<-done
}

func TestLinesWrittenInPiecesArePrintedOnce(t *testing.T) {
	var said []string
	l := &lines{say: func(s string) { said = append(said, s) }}
	long := strings.Repeat("x", 3*maxLine)
	for _, p := range []string{"a", "b\nc\n", "\n", long[:maxLine-1], long, "\nd\ne"} {
		if n, err := l.Write([]byte(p)); n != len(p) || err != nil {
			t.Errorf("%d of %d, %v", n, len(p), err)
		}
		if len(l.rest) > maxLine {
			t.Errorf("%d bytes of a line are kept", len(l.rest))
		}
	}
	if want := []string{"ab", "c", "", long[:maxLine], "d"}; !slices.Equal(said, want) {
		t.Errorf("%q", said)
	}
}
