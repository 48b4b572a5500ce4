// Fleet is a chain of shops in one command: several processes serve the same products, each
// through its own cache over one Redis or a Redis Cluster. They are under load, and a judge
// checks every answer, while you kill and revive processes and servers.
//
//	go run ./fleet                       # four shops, one Redis, until you type q
//	go run ./fleet -cluster              # over three masters and three replicas
//	go run ./fleet -duration 30s -plain  # half a minute, one line a second
//	go run ./fleet -plain -script '3s kill shop 2; 5s kill redis 1; 7s revive redis 1; 9s revive shop 2'
//
// It starts everything itself, on loopback: redis-server from the PATH, a database
// of products with versions in this process, and the shops, which are this program
// again: the first served with net/http, the second with Echo, then Gin and Fiber.
// All of it ends with this process, however that ends.
//
// # The table
//
// The table is updated every half second. It has the requests to each shop, the answers from
// its memory and from Redis, the queries of the database, and the messages that its cache
// has received. "propagation" is the time from the end of a write at one shop to the end of
// the first answer with the new version at another one, the query included.
//
// Every answer carries the version that the shop has read, and every write its new
// one. An answer is stale if it is older than a write that had ended at the same
// shop, or that Redis had confirmed core.Options.MaxStaleness before the answer
// began. Writes that a failover of the cluster loses are excused while that lasts (see
// judge.go), and counted apart. The exit code is 1 if an answer was stale, or if a request
// failed at a shop that was not being killed.
//
// # Commands
//
// A line and Enter; the short form in brackets. Script takes the same, each with the
// time from the beginning of the load:
//
//	kill shop 2      (k2)   SIGKILL: its requests break off
//	end shop 2       (e2)   SIGTERM: it answers the requests under way, then ends
//	revive shop 2    (r2)
//	kill redis 1     (K1)   its data are lost
//	stop redis 1     (S1)   SIGSTOP: connections stay, and it answers nothing
//	continue redis 1 (C1)
//	revive redis 1   (R1)
//	cut              (c)    closes the subscriptions through which shops receive messages
//	quit             (q)
//	help             (h)
//
// # Where to read
//
// shop.go has the code of an app: it makes the cache, names the routes, and ends
// gracefully. adapters.go has the routes in four frameworks. The other files are the test:
// database.go, fleet.go (processes), redis.go, load.go, judge.go, table.go, keys.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/redis/go-redis/v9/logging"
)

// config holds the values of the command line.
type config struct {
	shops     int
	cluster   bool
	duration  time.Duration // 0: until quit
	rate      int
	staleness time.Duration
	script    []step
	screen    bool // a table that is updated, not lines
	apart     bool // the shops do not share their caches: the judge must notice
}

func main() {
	logging.Disable() // go-redis logs on its own what the cache logs as well
	if say := os.Getenv(shopEnv); say != "" {
		if err := shopMain(say); err != nil {
			fmt.Fprintln(os.Stderr, "fleet: shop:", err)
			os.Exit(1)
		}
		return
	}
	cfg, err := parse(os.Args[1:], isTerminal(os.Stdin) && isTerminal(os.Stdout), isTerminal(os.Stdout))
	if errors.Is(err, flag.ErrHelp) {
		return
	}
	if err == nil {
		ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
		err = run(ctx, cfg, os.Stdin, os.Stdout)
		stop()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "fleet:", err)
		os.Exit(1)
	}
}

// defaultDuration is the duration of a run without a terminal.
const defaultDuration = time.Minute

// parse reads the command line. A user may type commands if interactive is true.
func parse(args []string, interactive, terminal bool) (config, error) {
	var c config
	flags := flag.NewFlagSet("fleet", flag.ContinueOnError)
	flags.IntVar(&c.shops, "shops", 4, "shops, 1 to 32: by turns of net/http, Echo, Gin and Fiber")
	flags.BoolVar(&c.cluster, "cluster", false, "three Redis masters and three replicas instead of one Redis")
	flags.DurationVar(&c.duration, "duration", -1, "how long; 0: until quit (default 1m, on a terminal until quit)")
	flags.IntVar(&c.rate, "rate", 400, "requests per second to all shops together, 1 to 100000")
	flags.DurationVar(&c.staleness, "staleness", time.Second, "core.Options.MaxStaleness of the shops, 100ms to 1m")
	plain := flags.Bool("plain", false, "lines instead of a table that is drawn anew")
	script := flags.String("script", "", "commands with their times: '5s kill shop 2; 8s revive shop 2'")
	if err := flags.Parse(args); err != nil {
		return c, err
	}
	nodes := 1
	if c.cluster {
		nodes = clusterMasters * 2
	}
	switch {
	case flags.NArg() > 0:
		return c, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.shops < 1 || c.shops > 32:
		return c, fmt.Errorf("-shops is %d; allowed: 1 to 32", c.shops)
	case c.rate < 1 || c.rate > 100_000:
		return c, fmt.Errorf("-rate is %d; allowed: 1 to 100000", c.rate)
	case c.staleness < 100*time.Millisecond || c.staleness > time.Minute:
		return c, fmt.Errorf("-staleness is %v; allowed: 100ms to 1m", c.staleness)
	}
	switch {
	case c.duration >= 0:
	case interactive:
		c.duration = 0
	default:
		c.duration = defaultDuration
	}
	c.screen = terminal && !*plain
	var err error
	if c.script, err = parseScript(*script); err != nil {
		return c, fmt.Errorf("-script: %w", err)
	}
	for _, s := range c.script {
		if err := s.command.check(c.shops, nodes); err != nil {
			return c, fmt.Errorf("-script: %w", err)
		}
	}
	return c, nil
}

// world is everything that runs.
type world struct {
	cfg    config
	redis  *redisServers
	db     *database
	fleet  *fleet
	judge  *judge
	load   *load
	events *events
	begun  time.Time
}

// run starts everything, and ends it when the time is up, at the command quit, or when ctx
// ends. The error lists the broken promises. Reading of in ends with in: run does not wait
// for that, since a terminal may send nothing.
func run(ctx context.Context, cfg config, in io.Reader, out io.Writer) (err error) {
	ctx, quit := context.WithCancel(ctx)
	defer quit()
	w := &world{cfg: cfg, events: newEvents()}
	if !cfg.screen {
		w.events.out = out
	}
	defer func() { err = errors.Join(err, w.close(ctx)) }()
	if err := w.start(ctx); err != nil {
		return err
	}

	// The other goroutines end before the load.
	var beside sync.WaitGroup
	defer beside.Wait()
	defer quit()
	w.load.start(ctx)
	beside.Go(func() { w.watch(ctx) })
	commands, display := make(chan command), newDisplay(w, out)
	if in != nil {
		go readCommands(ctx, in, commands, w.events, display.prompt)
	}
	beside.Go(func() { playScript(ctx, cfg.script, w.begun, commands) })
	beside.Go(func() { w.obey(ctx, commands, quit) })
	beside.Go(func() { display.run(ctx) })

	var over <-chan time.Time
	if cfg.duration > 0 {
		timer := time.NewTimer(cfg.duration)
		defer timer.Stop()
		over = timer.C
	}
	select {
	case <-over:
	case <-ctx.Done():
	}
	quit()
	beside.Wait()
	w.load.wait()
	w.fleet.poll(context.WithoutCancel(ctx))
	w.redis.poll(context.WithoutCancel(ctx))
	display.last()
	return w.verdict()
}

// start starts Redis, the database and the shops.
func (w *world) start(ctx context.Context) (err error) {
	w.begun = time.Now()
	w.judge = newJudge(products, w.cfg.staleness)
	if w.redis, err = startRedis(ctx, w.cfg.cluster, w.judge, w.events); err != nil {
		return err
	}
	if w.db, err = startDatabase(products, w.cfg.shops); err != nil {
		return err
	}
	w.fleet = newFleet(w.cfg.shops, w.judge, w.events, shopOptions{
		Redis: w.redis.addrs(), Cluster: w.cfg.cluster,
		Database: w.db.url(), Namespace: "fleet", MaxStaleness: w.cfg.staleness,
	})
	if w.cfg.apart {
		for _, p := range w.fleet.places {
			p.options.Namespace += fmt.Sprint("-", p.number)
		}
	}
	if err := w.fleet.start(ctx); err != nil {
		return err
	}
	w.load = newLoad(w.fleet, w.judge, w.cfg.rate)
	w.begun = time.Now()
	w.events.begin(w.begun)
	return nil
}

// close ends everything that start has started, also after a failed start.
func (w *world) close(ctx context.Context) (err error) {
	ctx = context.WithoutCancel(ctx) // it may have ended, which is the request to close
	if w.load != nil {
		w.load.wait()
		w.load.client.CloseIdleConnections()
	}
	if w.fleet != nil {
		err = errors.Join(err, w.fleet.close(ctx))
	}
	if w.db != nil {
		err = errors.Join(err, w.db.close())
	}
	if w.redis != nil {
		err = errors.Join(err, w.redis.close())
	}
	return err
}

// pollEvery is the interval at which the states of shops and Redis are read.
const pollEvery = 500 * time.Millisecond

func (w *world) watch(ctx context.Context) {
	tick := time.NewTicker(pollEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		var both sync.WaitGroup
		both.Go(func() { w.fleet.poll(ctx) })
		both.Go(func() { w.redis.poll(ctx) })
		both.Wait()
	}
}

// errBroken is a promise that was not kept.
var errBroken = errors.New("not as promised")

func (w *world) verdict() error {
	t := w.judge.tally()
	failed, died := w.fleet.failures()
	if t.stale == 0 && failed == 0 && died == 0 {
		return nil
	}
	err := fmt.Errorf("%w: %d stale answers, %d failed requests, %d shops that ended by themselves", errBroken, t.stale, failed, died)
	for _, e := range w.events.evidence() {
		err = fmt.Errorf("%w\n  %s", err, e)
	}
	return err
}
