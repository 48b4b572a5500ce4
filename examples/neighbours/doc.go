// The command neighbours puts the middlewares that people really use in front of a
// cached handler and behind it, in the four frameworks. It asks each site the same
// questions with Larder and without, compares status, fields and content, and prints
// a table. A difference is either one that Larder means to make (see meant) or is
// listed in the row with its reason. The test fails where a difference is not
// listed, and where a listed one is gone.
//
//	go -C examples/neighbours run .            # the table
//	go -C examples/neighbours run . -only scs  # rows whose name contains scs, with each difference
package main
