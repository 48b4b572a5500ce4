package redisstore

import (
	"context"
	"fmt"
	"net"
	"reflect"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/larderhq/larder/core/internal/tier"
)

// The options of the tier's clients are an allow-list: each field that is copied from the user's
// options is named here. A field that a later go-redis adds is not copied until it has been judged,
// and TestEachOptionOfGoRedisIsJudged fails until then. An option by which go-redis answers by
// itself, such as client-side caching, must never be copied: a generation that was not read from
// the server proves nothing (rule R28).

// newerOptions are options of later releases than the required one. They are copied where they
// exist, since they bound the connections of a server, as PoolSize does.
//
//nolint:gochecknoglobals // a constant, but that Go has none of slices
var newerOptions = []string{
	"PipelinePoolSize", "PipelineReadBufferSize", "PipelineWriteBufferSize",
	"MaxConcurrentDials", "ClusterStateReloadInterval",
}

type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// optionsOf returns the options of the tier's client for one server.
func optionsOf(user *redis.Options) *redis.Options {
	o := &redis.Options{
		Network:    user.Network,
		Addr:       user.Addr,
		ClientName: user.ClientName,
		Dialer:     user.Dialer,
		OnConnect:  user.OnConnect,
		Protocol:   user.Protocol,
		DB:         user.DB,
		TLSConfig:  user.TLSConfig,

		Username:                     user.Username,
		Password:                     user.Password,
		CredentialsProvider:          user.CredentialsProvider,
		CredentialsProviderContext:   user.CredentialsProviderContext,
		StreamingCredentialsProvider: user.StreamingCredentialsProvider,

		ReadBufferSize:        user.ReadBufferSize,
		WriteBufferSize:       user.WriteBufferSize,
		PoolFIFO:              user.PoolFIFO,
		PoolSize:              user.PoolSize,
		MaxConcurrentDials:    user.MaxConcurrentDials,
		MaxIdleConns:          user.MaxIdleConns,
		MaxActiveConns:        user.MaxActiveConns,
		ConnMaxIdleTime:       user.ConnMaxIdleTime,
		ConnMaxLifetime:       user.ConnMaxLifetime,
		ConnMaxLifetimeJitter: user.ConnMaxLifetimeJitter,
		FailingTimeoutSeconds: user.FailingTimeoutSeconds,

		// Deadlines apply, and no command is repeated.
		ContextTimeoutEnabled: true,
		MaxRetries:            -1,
		DialTimeout:           dialTimeout,
		DialerRetries:         1,
		DialerRetryTimeout:    time.Millisecond,
		ReadTimeout:           ioTimeout,
		WriteTimeout:          ioTimeout,
		PoolTimeout:           ioTimeout,

		// CLIENT SETINFO would be one more command for each connection. Users with the rules of ACL
		// may not run it, and Redis before 7.2 does not know it.
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	takeNewer(o, user)
	return o
}

// clusterOptionsOf returns the options of the tier's client for a cluster.
func clusterOptionsOf(user *redis.ClusterOptions) *redis.ClusterOptions {
	o := &redis.ClusterOptions{
		Addrs:      user.Addrs,
		ClientName: user.ClientName,
		NewClient:  user.NewClient,
		Dialer:     user.Dialer,
		OnConnect:  user.OnConnect,
		Protocol:   user.Protocol,
		TLSConfig:  user.TLSConfig,

		Username:                     user.Username,
		Password:                     user.Password,
		CredentialsProvider:          user.CredentialsProvider,
		CredentialsProviderContext:   user.CredentialsProviderContext,
		StreamingCredentialsProvider: user.StreamingCredentialsProvider,

		ReadBufferSize:        user.ReadBufferSize,
		WriteBufferSize:       user.WriteBufferSize,
		PoolFIFO:              user.PoolFIFO,
		PoolSize:              user.PoolSize,
		MaxIdleConns:          user.MaxIdleConns,
		MaxActiveConns:        user.MaxActiveConns,
		ConnMaxIdleTime:       user.ConnMaxIdleTime,
		ConnMaxLifetime:       user.ConnMaxLifetime,
		ConnMaxLifetimeJitter: user.ConnMaxLifetimeJitter,
		FailingTimeoutSeconds: user.FailingTimeoutSeconds,

		MaxRedirects:             redirects,
		ContextTimeoutEnabled:    true,
		MaxRetries:               -1,
		MinRetryBackoff:          time.Millisecond,
		MaxRetryBackoff:          8 * time.Millisecond,
		DialTimeout:              dialTimeout,
		DialerRetries:            1,
		DialerRetryTimeout:       time.Millisecond,
		ReadTimeout:              ioTimeout,
		WriteTimeout:             ioTimeout,
		PoolTimeout:              ioTimeout,
		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	}
	takeNewer(o, user)
	return o
}

// takeNewer copies the newerOptions that this go-redis has.
func takeNewer(ours, users any) {
	to, from := reflect.ValueOf(ours).Elem(), reflect.ValueOf(users).Elem()
	for _, name := range newerOptions {
		if field := to.FieldByName(name); field.IsValid() {
			field.Set(from.FieldByName(name))
		}
	}
}

// refuse returns the reason for which options cannot work, nil if there is none.
func refuse(o *redis.ClusterOptions) error {
	switch {
	case o.ReadOnly || o.RouteByLatency || o.RouteRandomly:
		return fmt.Errorf("%w: ReadOnly, RouteByLatency and RouteRandomly read from replicas, "+
			"which may not know yet what was invalidated", tier.ErrUnusable)
	case o.ClusterSlots != nil:
		return fmt.Errorf("%w: ClusterSlots is not supported; for Sentinel there is redis.NewFailoverClient",
			tier.ErrUnusable)
	}
	return nil
}

// nodeClients creates the clients of a cluster's nodes. Changes that the user's NewClient makes to
// the options of a node are kept as far as the allow-list goes. The client that NewClient returns
// is not used.
func nodeClients(user func(*redis.Options) *redis.Client, dial dialFunc, conns *connections) func(*redis.Options) *redis.Client {
	return func(o *redis.Options) *redis.Client {
		theirs := *o
		theirs.Dialer = dial
		c := user(&theirs)
		ours := optionsOf(c.Options())
		_ = c.Close()
		ours.Dialer = conns.through(ours.Dialer)
		return redis.NewClient(ours)
	}
}
