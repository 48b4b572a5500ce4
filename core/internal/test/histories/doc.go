// Package histories holds tests that put a cache in one process under load and judge every
// answer; history_test.go describes how. They must fail when a rule of package local is taken
// out of its source (mutants_test.go). Package simulate does the same for several instances
// over a shared tier.
package histories
