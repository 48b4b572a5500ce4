package redisstore

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core/internal/tier"
)

// The text of a refusal depends on the server and its version, and an error in a script is wrapped
// in another one. The kind decides whether the refusal is permanent. Each refusal is logged once.

// The kinds without a code of their own.
const (
	unknownCommand = "unknown command"
	notInScripts   = "not in scripts"
	scriptRefused  = "script refused"
	otherError     = "ERR"
)

// passing are the codes of temporary refusals.
//
//nolint:gochecknoglobals // constants, but that Go has none that are computed
var (
	passing = regexp.MustCompile(`\b(READONLY|LOADING|CLUSTERDOWN|MASTERDOWN|MISCONF|NOREPLICAS|OOM|BUSY|UNKILLABLE|NOQUORUM)\b`)
	lasting = regexp.MustCompile(`\b(NOPERM|NOAUTH|WRONGPASS|WRONGTYPE|NOPROTO)\b`)
	// phrases are texts of Redis, Valkey, Dragonfly, miniredis, and the proxies of Alibaba and
	// Tencent.
	phrases = []struct{ text, kind string }{
		{"unknown command", unknownCommand},
		{"unknown subcommand", unknownCommand},
		{"unknown redis command", notInScripts},
		{"not allowed from script", notInScripts},
		{"not support for normal user", unknownCommand},
		{"is not supported", unknownCommand},
		{"cluster support disabled", "no cluster"},
		{"bad lua script", scriptRefused},
		{"undeclared key", scriptRefused},
		{"error compiling script", scriptRefused},
		{"nonexistent global", scriptRefused},
		{"unexisting global", scriptRefused},
		{"readonly table", scriptRefused},
		{"attempt to call", scriptRefused},
		{"no permissions", "NOPERM"},
		{"can't run this command", "NOPERM"},
		{"can't access at least one of the keys", "NOPERM"},
	}
)

// judge wraps an error that a server has replied, so that errors.As finds its kind.
// An error that is part of the protocol, such as MOVED, is returned as it is.
func judge(err error) error {
	var replied redis.Error
	var known *tier.RefusalError
	if err == nil || errors.Is(err, redis.Nil) || errors.As(err, &known) || !errors.As(err, &replied) {
		return err
	}
	text := replied.Error()
	for _, ours := range []string{"NOSCRIPT", "MOVED ", "ASK ", "TRYAGAIN", "CROSSSLOT", "EXECABORT"} {
		if strings.HasPrefix(text, ours) {
			return err
		}
	}
	kind, permanent := kindOfReply(text)
	return &tier.RefusalError{Kind: kind, Permanent: permanent, Err: err}
}

func kindOfReply(text string) (kind string, permanent bool) {
	if m := passing.FindString(head(text)); m != "" {
		return m, false
	}
	if m := lasting.FindString(head(text)); m != "" {
		return m, m != "WRONGTYPE"
	}
	lower := strings.ToLower(text)
	for _, p := range phrases {
		if strings.Contains(lower, p.text) {
			return p.kind, true
		}
	}
	return otherError, false
}

// head is the position of a code in the text: at the beginning, or after the location in a script.
func head(text string) string {
	const most = 160
	return text[:min(len(text), most)]
}

// refusals reports refused calls.
type refusals struct{ report atomic.Pointer[func(error)] }

// notify reports a refused command. A key of another type is not a refusal, since the tier replaces
// it.
func (r *refusals) notify(cmd redis.Cmder, err error) {
	report := r.report.Load()
	var refusal *tier.RefusalError
	if report == nil || err == nil || !errors.As(judge(err), &refusal) || refusal.Kind == "WRONGTYPE" {
		return
	}
	(*report)(fmt.Errorf("redisstore: %s: %w", cmd.Name(), refusal))
}

// OnRefusal implements tier.Reporter.
func (s *session) OnRefusal(report func(error)) { s.nodes.refusals.report.Store(&report) }

// Limits implements tier.Limited.
func (s *session) Limits() []string { return s.limits }

// refused marks permanent refusals.
func (s *session) refused(err error) error {
	err = judge(err)
	if tier.IsPermanent(err) && !errors.Is(err, tier.ErrUnusable) || redis.IsPermissionError(err) || redis.IsAuthError(err) {
		return fmt.Errorf("%w: %w", tier.ErrUnusable, err)
	}
	return err
}

// forTests is the advice for a fake server, such as miniredis.
const forTests = "tests need a redis-server, or no Remote at all"

// replicationOf returns the id of a server's data set from INFO replication. Without the id, a
// promotion or a restart, after which invalidated data may be back, would go unnoticed.
func replicationOf(info string) (id string, err error) {
	id = infoField(info, "master_replid")
	switch role := infoField(info, "role"); {
	case role == "":
		return "", fmt.Errorf("%w: INFO replication names no role, by which a replica is told from a master; %s",
			tier.ErrUnusable, forTests)
	case role != "master":
		return "", fmt.Errorf("it is a %q, no master", role)
	case id == "":
		return "", fmt.Errorf("%w: INFO replication names no master_replid, by which a failover or a restart is noticed; %s",
			tier.ErrUnusable, forTests)
	}
	return id, nil
}

// replication asks a server for the id of its data set.
func (s *session) replication(ctx context.Context, node *redis.Client) (string, error) {
	info, err := s.text(ctx, node, "info", "replication")
	if err != nil {
		return "", err
	}
	return replicationOf(info)
}
