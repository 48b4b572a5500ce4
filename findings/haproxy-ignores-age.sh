#!/usr/bin/env bash
# HAProxy's cache ignores the Age field of the response that it stores when it decides
# for how long it is fresh, though it counts Age on in its answers: a response of
# `max-age=5` that arrives with `Age: 4` is answered for five more seconds, and the
# answers say `Age: 6` and more. RFC 9111, section 4.2.3, makes it stale after one.
#
# HAProxy 2.6.12-1+deb12u4 of Debian 12. Seen: three seconds later it is a hit with
# Age: 7. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); chmod 755 "$dir"; cd "$dir"
pids=(); trap 'kill "${pids[@]}" 2>/dev/null || true; rm -rf "$dir"' EXIT
apt-get download haproxy=2.6.12-1+deb12u4 liblua5.3-0 >/dev/null 2>&1
for f in *.deb; do dpkg -x "$f" root; done
cat > main.go <<'GO'
package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"sync/atomic"
)

func main() {
	var asked atomic.Int64
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	os.WriteFile("port", []byte(fmt.Sprint(l.Addr().(*net.TCPAddr).Port)), 0o600)
	http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=5")
		w.Header().Set("Age", "4")
		fmt.Fprint(w, "answer ", asked.Add(1))
	}))
}
GO
go build -o origin main.go
./origin & pids+=($!)
until [ -s port ]; do sleep 0.1; done
front=$((20000 + RANDOM % 20000))
cat > haproxy.cfg <<CFG
defaults
	mode http
	timeout connect 5s
	timeout client 5s
	timeout server 5s
cache all
	total-max-size 4
frontend f
	bind 127.0.0.1:$front
	default_backend b
backend b
	http-request cache-use all
	http-response cache-store all
	server o 127.0.0.1:$(cat port)
CFG
LD_LIBRARY_PATH=$(echo root/usr/lib/*-linux-gnu) root/usr/sbin/haproxy -db -f haproxy.cfg & pids+=($!)
until curl -s -o /dev/null "http://127.0.0.1:$front/ready"; do sleep 0.1; done
curl -s -o /dev/null "http://127.0.0.1:$front/"
first=$(curl -s "http://127.0.0.1:$front/")
sleep 3
curl -s -D fields "http://127.0.0.1:$front/" > later
age=$(tr -d '\r' < fields | awk 'tolower($1) == "age:" { print $2 }')
echo "stored with Age: 4 of max-age=5; three seconds later: Age: $age, the same answer: $([ "$first" = "$(cat later)" ] && echo yes || echo no)"
[ "$age" = 7 ] && [ "$first" = "$(cat later)" ]
