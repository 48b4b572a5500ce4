package redisserver

import "errors"

// ErrMissing says that there is no redis-server in the PATH, and how to get it.
var ErrMissing = errors.New("redis-server is not installed: run one of `apt-get install redis-server`, " +
	"`dnf install redis`, `apk add redis`, `brew install redis`")

// ErrNotRunning is returned by calls to a server that was killed, closed, or has ended.
var ErrNotRunning = errors.New("redis-server is not running")
