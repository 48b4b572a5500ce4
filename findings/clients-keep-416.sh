#!/usr/bin/env bash
# Two HTTP client caches of npm answer a request for the whole resource from a stored
# 416. The server answers a range that lies behind the end with 416, max-age and the
# resource's validator, as it would answer 200; both caches keep it, and answer the
# next plain GET with it for as long as it is fresh, without asking the server.
#
# undici 7.16.0 (interceptors.cache) and got 14.6.6 (cacheable-request). Seen: 416 from
# the cache in both. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts undici@7.16.0 got@14.6.6 >/dev/null
cat > main.mjs <<'JS'
import http from 'node:http';
import { Agent, interceptors, request } from 'undici';
import got from 'got';

let asked = 0;
const server = http.createServer((req, res) => {
  asked++;
  res.setHeader('Cache-Control', 'max-age=60');
  res.setHeader('ETag', '"v1"');
  if (req.headers.range) {
    res.writeHead(416, { 'Content-Range': 'bytes */10' });
    return res.end();
  }
  res.end('0123456789');
});
await new Promise((done) => server.listen(0, '127.0.0.1', done));
const url = `http://127.0.0.1:${server.address().port}/`;
const range = { range: 'bytes=100-199' };

const dispatcher = new Agent().compose(interceptors.cache());
await (await request(url + 'u', { dispatcher, headers: range })).body.dump();
const second = await request(url + 'u', { dispatcher });
await second.body.dump();
console.log(`undici: ${second.statusCode}, the server was asked ${asked} times`);

asked = 0;
const cache = new Map();
const options = { cache, throwHttpErrors: false, retry: { limit: 0 } };
await got(url + 'g', { ...options, headers: range });
const third = await got(url + 'g', options);
console.log(`got: ${third.statusCode}, the server was asked ${asked} times`);
server.close();
await dispatcher.close();
process.exit(0);
JS
node main.mjs | tee out
diff out - <<'WANT'
undici: 416, the server was asked 1 times
got: 416, the server was asked 1 times
WANT
