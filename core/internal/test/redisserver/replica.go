package redisserver

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
)

// StartReplica starts a replica of a server, and waits until it has the server's data.
func StartReplica(ctx context.Context, of *Server, o Options) (*Server, error) {
	s, err := start(ctx, o, fmt.Sprintf("replicaof %s %d\n", loopback, of.port))
	if err != nil {
		return nil, err
	}
	if err := s.waitSynced(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("start replica of %s: %w", of.Addr(), err)
	}
	return s, nil
}

// waitSynced waits until a replica has its master's data and hears of what comes.
func (s *Server) waitSynced(ctx context.Context) error {
	return wait(ctx, "the master's data", func(ctx context.Context) error {
		return wantField(ctx, s, "replication", "master_link_status", "up")
	})
}

// WaitReplicated waits until all replicas of the server, of which there must be one, have what was written to it before
// the call. Redis's own WAIT does not serve here: it waits for the writes of its own connection only.
func (s *Server) WaitReplicated(ctx context.Context) error {
	var written int64 = -1
	return wait(ctx, "the replicas of "+s.Addr(), func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		m, err := info(ctx, s.Addr(), "replication")
		if err != nil {
			return err
		}
		if written < 0 {
			if written, err = strconv.ParseInt(m["master_repl_offset"], 10, 64); err != nil {
				return err
			}
		}
		if m["connected_slaves"] == "0" {
			return errors.New("there is none")
		}
		for i := 0; m["slave"+strconv.Itoa(i)] != ""; i++ {
			// ip=127.0.0.1,port=7001,state=online,offset=42,lag=0: an offset that is up to a second old.
			replica := fields(strings.NewReplacer("=", ":", ",", "\n").Replace(m["slave"+strconv.Itoa(i)]))
			its, err := info(ctx, net.JoinHostPort(replica["ip"], replica["port"]), "replication")
			if err != nil {
				return err
			}
			has, err := strconv.ParseInt(its["slave_repl_offset"], 10, 64)
			if err != nil {
				return err
			}
			if has < written {
				return fmt.Errorf("replica %s has %d of %d bytes", replica["port"], has, written)
			}
		}
		return nil
	})
}
