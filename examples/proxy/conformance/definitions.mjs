// Prints the suite's tests, run in the suite's folder: what its client leaves out for
// anything but a browser is left out. So are the tests of Surrogate-Control, which the
// client runs as well: that is no part of HTTP caching.
import parts from './tests/index.mjs'

console.log(JSON.stringify(parts.map(({ id, name, tests }) => ({
  id,
  name,
  tests: tests
    .filter(t => t.browser_only !== true)
    .map(t => ({ id: t.id, name: t.name, kind: t.kind ?? 'required', depends_on: t.depends_on ?? [] }))
}))))
