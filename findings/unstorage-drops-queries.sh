#!/usr/bin/env bash
# unstorage cuts each key at its first "?", so that a cache over it whose keys are URLs
# has one entry for all queries of a path, and the last stored page answers each of them.
# The guide says that "/" and ":" in keys are the same; it says nothing of "?", and a
# reader expects that /items?page=1 and /items?page=2 are two keys. It hurts caches of
# searches and of the pages of a list, without an error; removeItem of one removes all.
#
# unstorage 1.17.6, drivers memory and lru-cache. Seen: page 1 is answered with page 2, and
# getKeys has one key without the query. The script fails if that changes.
set -euo pipefail
dir=$(mktemp -d); trap 'rm -rf "$dir"' EXIT; cd "$dir"
npm init -y >/dev/null
npm install --no-audit --no-fund --ignore-scripts unstorage@1.17.6 lru-cache@11.2.4 >/dev/null
cat > main.mjs <<'JS'
import { createStorage } from 'unstorage';
import lru from 'unstorage/drivers/lru-cache';

for (const [name, driver] of [['memory', undefined], ['lru-cache', lru({ max: 100 })]]) {
  const storage = createStorage({ driver });
  await storage.setItem('/items?page=1', 'first page');
  await storage.setItem('/items?page=2', 'second page');
  console.log(`${name}: page 1 is the ${await storage.getItem('/items?page=1')}`);
  await storage.removeItem('/items?page=3');
  console.log(`${name}: with page 3 removed, page 2 is ${await storage.getItem('/items?page=2')}`);
}
JS
node main.mjs | tee out
diff out - <<'WANT'
memory: page 1 is the second page
memory: with page 3 removed, page 2 is null
lru-cache: page 1 is the second page
lru-cache: with page 3 removed, page 2 is null
WANT
