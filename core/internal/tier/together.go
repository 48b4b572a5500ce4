package tier

import "context"

// Together fills many entries without leases (R30). The methods are calls to several
// partitions: each partition executes its part atomically.
type Together interface {
	// Vacancies reports which keys have neither an entry, a lease nor a queued change. It takes no lease and
	// changes nothing. The result is in the order of the keys.
	Vacancies(ctx context.Context, keys []TaggedKey) ([]Vacancy, error)
	// FillTogether stores those entries of a batch that nothing has touched since the positions of
	// the batch: the era of the partition is that of its place; the log continues from its
	// position, and no item since concerns the key or the tag; no replica may lag; there is no
	// entry, lease, intent or queued change of the key, no intent on the tag; and the tag has the
	// generation of the vacancy, or none. The generation is created where it is missing, in the
	// same step. stored is in the order of the items. With an error it holds for the partitions
	// that have answered, and is false for the items of the others.
	FillTogether(ctx context.Context, b BatchFill) (stored []bool, err error)
}

// TaggedKey is a key, which is its own Name, and a tag of the same partition.
type TaggedKey struct{ Key, Tag string }

// Vacancy is the state of a key before the load of a batch.
type Vacancy struct {
	Vacant bool  // there is no entry, no lease and no queued change
	Now    int64 // the clock of the key's server, in milliseconds
	// ID is the id of an entry that fills the vacancy. It is unique to this call.
	ID string
	// Generation is the tag's generation, or, where there is none, a token that is unique to this
	// call, with which FillTogether creates one. A second execution of FillTogether does not
	// revive it after an invalidation, since the log has an item then (R3).
	Generation string
}

// BatchFill is the content of a batch. Its items are those of vacant keys.
type BatchFill struct {
	Places []Place // by partition
	Items  []BatchItem
}

// Place is a position in the log of a partition, and the era at that position.
type Place struct {
	Position
	Era string
}

// BatchItem is an entry of a batch. Its ID, and the generation of its tag, are those of its vacancy.
type BatchItem struct {
	TaggedKey
	Entry Entry
	// Generation is that of the vacancy.
	Generation string
}
