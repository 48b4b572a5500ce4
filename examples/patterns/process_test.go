package patterns

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/larderhq/larder/core"
)

// A test that kills a server runs this program again, in a role.
const (
	roleVariable  = "LARDER_PATTERNS_ROLE"
	redisVariable = "LARDER_PATTERNS_REDIS"

	roleLock   = "lock"   // loads under a lock without TTL, and never comes to an end
	roleLarder = "larder" // the same with Larder
	roleQueue  = "queue"  // acknowledges writes that do not reach the database

	roleWriteBehind = "writebehind" // the same with Larder
)

// ready is printed by a child that can be killed.
const ready = "ready"

// acknowledged is how many writes the children confirm before they are killed.
const acknowledged = 10

// stuck is a database that does not come to an end.
type stuck struct{ Database }

func (stuck) Product(context.Context, int64) (Product, error) {
	fmt.Println(ready)
	select {}
}

func (stuck) Save(context.Context, int64, Product) error { select {} }

// child is the other process. It ends by being killed.
func child(role, address string) error {
	client := redis.NewClient(&redis.Options{Addr: address})
	ctx := context.Background()
	switch role {
	case roleLock:
		_, err := (&LockShop{AsideShop{db: stuck{}, rdb: client}, 0}).Product(ctx, id)
		return err
	case roleLarder:
		s, err := NewShop(stuck{}, patient(client))
		if err != nil {
			return err
		}
		_, err = s.Product(ctx, id)
		return err
	case roleQueue:
		s := NewQueueShop(AsideShop{db: stuck{}, rdb: client})
		go s.Work(ctx)
		return acknowledge(ctx, s)
	case roleWriteBehind:
		s, err := newWriteBehind(client, stuck{})
		if err != nil {
			return err
		}
		return acknowledge(ctx, s)
	}
	return &core.ConfigError{Field: roleVariable, Value: role, Allowed: "a role"}
}

// acknowledge confirms writes, and waits to be killed.
func acknowledge(ctx context.Context, s shop) error {
	for i := range int64(acknowledged) {
		if err := s.Save(ctx, Product{ID: i + 1, Cents: newer}); err != nil {
			return err
		}
	}
	fmt.Println(ready)
	select {}
}

// kill starts a process in a role, waits until it says that it is ready, and kills
// it as kill -9 does.
func (w *world) kill(role string) {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	process := exec.CommandContext(w.t.Context(), self)
	process.Env = append(os.Environ(), roleVariable+"="+role, redisVariable+"="+w.addr)
	out, err := process.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	if err := process.Start(); err != nil {
		w.t.Fatal(err)
	}
	line := make(chan string, 1)
	go func() {
		text, _ := bufio.NewReader(out).ReadString('\n')
		line <- strings.TrimSpace(text)
	}()
	said := ""
	func() {
		defer func() {
			_ = process.Process.Kill()
			_ = process.Wait()
		}()
		said = receive(w.t, "the other process", line)
	}()
	if said != ready {
		w.t.Fatalf("the other process says %q", said)
	}
}
