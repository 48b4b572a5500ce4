package redisstore

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/auth"
	"github.com/redis/go-redis/v9/push"
	"github.com/stretchr/testify/require"

	"github.com/larderhq/larder/core/internal/tier"
)

// The verdict on an option begins with one of these words.
const (
	taken = "taken" // our clients have the user's
	left  = "left"  // they have go-redis's default
	set   = "set"   // they have a value of our own
)

// judged is the verdict on each option of a client of one server, in all releases of
// go-redis from the one required to the newest.
var judged = map[string]string{
	"Network":                      "taken: where the server is",
	"Addr":                         "taken: where the server is",
	"NodeAddress":                  "left: for maintenance notifications, which are off",
	"ClientName":                   "taken: the operator sees it in CLIENT LIST",
	"Dialer":                       "taken: how the server is reached; Sentinel is asked by it",
	"OnConnect":                    "taken: it may authenticate",
	"Protocol":                     "taken: a proxy may not know RESP3",
	"Username":                     "taken: credentials",
	"Password":                     "taken: credentials",
	"CredentialsProvider":          "taken: credentials",
	"CredentialsProviderContext":   "taken: credentials",
	"StreamingCredentialsProvider": "taken: credentials",
	"DB":                           "taken: where the keys are",
	"TLSConfig":                    "taken: how the server is reached",

	"MaxRetries":            "set: an execution that nobody knows of must not be repeated",
	"MinRetryBackoff":       "left: nothing is repeated",
	"MaxRetryBackoff":       "left: nothing is repeated",
	"DialTimeout":           "set: a request waits for it",
	"DialerRetries":         "set: a request waits for it",
	"DialerRetryTimeout":    "set: a request waits for it",
	"DialerRetryBackoff":    "left: there is one attempt",
	"ReadTimeout":           "set: a request waits for it",
	"WriteTimeout":          "set: a request waits for it",
	"ContextTimeoutEnabled": "set: a request waits for it",
	"PoolTimeout":           "set: a request waits for it",
	"MinIdleConns":          "left: connections are made when they are needed",

	"ReadBufferSize":          "taken: memory",
	"WriteBufferSize":         "taken: memory",
	"PipelineReadBufferSize":  "taken: memory",
	"PipelineWriteBufferSize": "taken: memory",
	"PoolFIFO":                "taken: the server's connections",
	"PoolSize":                "taken: the server's connections",
	"PipelinePoolSize":        "taken: the server's connections",
	"MaxConcurrentDials":      "taken: the server's connections",
	"MaxIdleConns":            "taken: the server's connections",
	"MaxActiveConns":          "taken: the server's connections",
	"ConnMaxIdleTime":         "taken: the server's connections",
	"ConnMaxLifetime":         "taken: the server's connections",
	"ConnMaxLifetimeJitter":   "taken: the server's connections",
	"FailingTimeoutSeconds":   "taken: how long a node of a cluster is left alone",

	"AutoPipelineOptions":       "left: nothing goes through an autopipeliner",
	"Limiter":                   "left: it counts the user's calls",
	"DisableIndentity":          "left: the other spelling is set",
	"DisableIdentity":           "set: CLIENT SETINFO is refused to users of ACL",
	"IdentitySuffix":            "left: there is no CLIENT SETINFO",
	"UnstableResp3":             "left: for RediSearch",
	"PushNotificationProcessor": "left: it belongs to the user's client",
	"MaintNotificationsConfig":  "set: a connection that is handed over may repeat a command",

	"ClientSideCacheConfig":                  "left: a generation must be the server's",
	"ClientSideCache":                        "left: a generation must be the server's",
	"ClientSideCacheStrategy":                "left: a generation must be the server's",
	"ClientSideCacheRefreshOnInvalidate":     "left: a generation must be the server's",
	"ClientSideCacheCoalesceMisses":          "left: a generation must be the server's",
	"ClientSideCacheInvalidationBatchWindow": "left: a generation must be the server's",
}

// judgedOfClusters are the options that only clients of a cluster have, and those
// that differ there.
var judgedOfClusters = map[string]string{
	"Addrs":                      "taken: where the servers are",
	"NewClient":                  "taken: it may dial otherwise; see nodeClients",
	"MaxRedirects":               "set: a request waits for it",
	"ReadOnly":                   "left: refused before",
	"RouteByLatency":             "left: refused before",
	"RouteByLatencyTolerance":    "left: without RouteByLatency it has no effect",
	"RouteRandomly":              "left: refused before",
	"ClusterSlots":               "left: refused before",
	"MinRetryBackoff":            "set: between a MOVED and the next try",
	"MaxRetryBackoff":            "set: between a MOVED and the next try",
	"DisableRoutingPolicies":     "left: each command has keys, or goes to a node's own client",
	"ShardPicker":                "left: each command has keys, or goes to a node's own client",
	"ClusterStateReloadInterval": "taken: how often the servers are asked",
}

// judgedOfSentinel are the options that a client has that asks Sentinel, beside those
// of one server. They are in its dialer, which is taken, and cannot be seen.
var judgedOfSentinel = map[string]string{
	"MasterName":              "taken: in the dialer",
	"SentinelAddrs":           "taken: in the dialer",
	"SentinelUsername":        "taken: in the dialer",
	"SentinelPassword":        "taken: in the dialer",
	"RouteByLatency":          "left: NewFailoverClient refuses it",
	"RouteByLatencyTolerance": "left: NewFailoverClient refuses RouteByLatency",
	"RouteRandomly":           "left: NewFailoverClient refuses it",
	"ReplicaOnly":             "taken: in the dialer; a server that is no master is refused",
	"UseDisconnectedReplicas": "taken: in the dialer; a server that is no master is refused",
}

func TestEachOptionOfGoRedisIsJudged(t *testing.T) {
	for _, of := range []struct {
		options any
		first   map[string]string
	}{
		{redis.Options{}, nil}, {redis.ClusterOptions{}, judgedOfClusters}, {redis.FailoverOptions{}, judgedOfSentinel},
	} {
		for _, field := range exported(of.options) {
			verdict := verdictOn(field.Name, of.first)
			require.NotEmpty(t, verdict, "go-redis has an option %T.%s that nobody has judged: may our clients have it?",
				of.options, field.Name)
			word, why, _ := strings.Cut(verdict, ": ")
			require.Contains(t, []string{taken, left, set}, word)
			require.NotEmpty(t, why)
		}
	}
}

func TestOurClientsHaveTheOptionsThatWereJudgedSo(t *testing.T) {
	check := func(field reflect.StructField, verdict string, of func(reflect.Value) reflect.Value, user reflect.Value) {
		value, ok := someValue(field)
		if !ok {
			require.True(t, strings.HasPrefix(verdict, left), "%s is taken: the test needs a value for it", field.Name)
			return
		}
		user.FieldByIndex(field.Index).Set(value)
		got := of(user).FieldByIndex(field.Index)
		switch {
		case strings.HasPrefix(verdict, taken):
			require.Equal(t, identity(value), identity(got), field.Name)
		case strings.HasPrefix(verdict, left):
			require.True(t, got.IsZero(), field.Name)
		default:
			require.False(t, got.IsZero(), field.Name)
			if got.Kind() != reflect.Bool {
				require.NotEqual(t, identity(value), identity(got), field.Name)
			}
		}
	}
	for _, field := range exported(redis.Options{}) {
		check(field, verdictOn(field.Name, nil), func(v reflect.Value) reflect.Value {
			return reflect.ValueOf(optionsOf(v.Addr().Interface().(*redis.Options))).Elem()
		}, reflect.New(reflect.TypeFor[redis.Options]()).Elem())
	}
	for _, field := range exported(redis.ClusterOptions{}) {
		check(field, verdictOn(field.Name, judgedOfClusters), func(v reflect.Value) reflect.Value {
			return reflect.ValueOf(clusterOptionsOf(v.Addr().Interface().(*redis.ClusterOptions))).Elem()
		}, reflect.New(reflect.TypeFor[redis.ClusterOptions]()).Elem())
	}
}

func verdictOn(name string, first map[string]string) string {
	if v := first[name]; v != "" {
		return v
	}
	return judged[name]
}

func exported(options any) (fields []reflect.StructField) {
	for _, f := range reflect.VisibleFields(reflect.TypeOf(options)) {
		if f.IsExported() {
			fields = append(fields, f)
		}
	}
	return fields
}

// someValue returns a value that no default is.
func someValue(field reflect.StructField) (reflect.Value, bool) {
	switch known := map[reflect.Type]any{
		reflect.TypeFor[bool]():                              true,
		reflect.TypeFor[string]():                            "some",
		reflect.TypeFor[int]():                               4711,
		reflect.TypeFor[time.Duration]():                     4711 * time.Hour,
		reflect.TypeFor[[]string]():                          []string{"some"},
		reflect.TypeFor[*tls.Config]():                       &tls.Config{},
		reflect.TypeFor[redis.Limiter]():                     limiter{},
		reflect.TypeFor[auth.StreamingCredentialsProvider](): provider{},
		reflect.TypeFor[push.NotificationProcessor]():        push.NewVoidProcessor(),
	}[field.Type].(type) {
	case nil:
	default:
		return reflect.ValueOf(known), true
	}
	switch field.Type.Kind() {
	case reflect.Func:
		return reflect.MakeFunc(field.Type, func([]reflect.Value) []reflect.Value { panic("not called") }), true
	case reflect.Pointer:
		return reflect.New(field.Type.Elem()), true
	default:
		return reflect.Value{}, false
	}
}

// identity is what can be compared of a value; functions cannot.
func identity(v reflect.Value) any {
	if v.Kind() == reflect.Func {
		return v.IsNil()
	}
	return v.Interface()
}

type limiter struct{}

func (limiter) Allow() error       { return nil }
func (limiter) ReportResult(error) {}

type provider struct{}

func (provider) Subscribe(auth.CredentialsListener) (auth.Credentials, auth.UnsubscribeFunc, error) {
	return nil, nil, net.ErrClosed
}

// clientSideCaching switches it on, where this go-redis has it: 9.22 and later.
func clientSideCaching(o *redis.Options) {
	if field := reflect.ValueOf(o).Elem().FieldByName("ClientSideCacheConfig"); field.IsValid() {
		field.Set(reflect.New(field.Type().Elem()))
	}
}

func TestAGenerationIsReadFromTheServerWhateverTheUsersClientCaches(t *testing.T) {
	server, _ := single(t)
	cached := redis.Options{Addr: server.Addr()}
	clientSideCaching(&cached)
	client := redis.NewClient(&cached)
	defer client.Close()
	one, two := open(t, client, layout("v1")), open(t, client, layout("v1"))
	for range 50 {
		fill(t, one, "k", "x", "t:x")
		for range 2 { // the second from a copy, if there is one
			before, err := two.Generations(within(t, time.Second), []string{"t:x"})
			require.NoError(t, err)
			require.NotEmpty(t, before[0])
		}

		invalidate(t, one, tier.Tag, "t:x")

		after, err := two.Generations(within(t, time.Second), []string{"t:x"})
		require.NoError(t, err)
		require.Equal(t, []string{""}, after)
		invalidate(t, one, tier.Key, "k")
	}
}

func TestWhatAUsersNewClientAddsToANodesOptionsIsJudgedToo(t *testing.T) {
	var dialed atomic.Int32
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialed.Add(1)
		return (&net.Dialer{}).DialContext(ctx, network, addr)
	}
	server, _ := single(t)
	conns := newConnections(dial)
	made := nodeClients(func(o *redis.Options) *redis.Client {
		clientSideCaching(o)
		o.Limiter, o.ReadTimeout, o.MaxRetries, o.ClientName = limiter{}, time.Hour, 9, "mine"
		o.Dialer = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return dial(ctx, network, server.Addr())
		}
		return redis.NewClient(o)
	}, dial, conns)(&redis.Options{Addr: "127.0.0.1:1"})
	defer made.Close()

	o := made.Options()
	require.NoError(t, made.Ping(t.Context()).Err())
	require.Equal(t, int32(1), dialed.Load())
	require.Len(t, conns.open, 1, "a connection of a dialer of theirs is one of those that can be closed")
	require.Equal(t, "mine", o.ClientName)
	require.Nil(t, o.Limiter)
	require.Zero(t, o.MaxRetries)
	require.Equal(t, ioTimeout, o.ReadTimeout)
	if field := reflect.ValueOf(o).Elem().FieldByName("ClientSideCacheConfig"); field.IsValid() {
		require.True(t, field.IsNil())
	}
}
