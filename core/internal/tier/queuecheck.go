package tier

import (
	"errors"
	"fmt"
)

const (
	// MaxChanges is the largest number of changes of an Enqueue.
	MaxChanges = 128
	// MaxClaim is the largest number of records of a Claim's reply and of a Settle.
	MaxClaim = 1000
)

// Validate returns an error for arguments that every tier refuses. partitions is the number
// of partitions of the layout.
func (e *Enqueue) Validate(partitions int) error {
	if err := validQueue(e.Partition, partitions, e.Queue); err != nil {
		return err
	}
	if len(e.Changes) > MaxChanges {
		return fmt.Errorf("%d changes: at most %d are allowed", len(e.Changes), MaxChanges)
	}
	seen := make(map[string]struct{}, len(e.Changes))
	for _, c := range e.Changes {
		switch _, twice := seen[c.Key]; {
		case c.Key == "":
			return errors.New("a change without a key")
		case len(c.Payload) == 0:
			return fmt.Errorf("a change of %q without a payload", c.Key)
		case twice:
			return fmt.Errorf("two changes of %q", c.Key)
		case Partition(Name(c.Key), partitions) != e.Partition:
			return fmt.Errorf("%q is not of partition %d", c.Key, e.Partition)
		case c.Tag != "" && Partition(c.Tag, partitions) != e.Partition:
			return fmt.Errorf("the tag %q is not of partition %d", c.Tag, e.Partition)
		}
		seen[c.Key] = struct{}{}
	}
	return nil
}

// Validate returns an error for arguments that every tier refuses. partitions is the number
// of partitions of the layout.
func (c *Claim) Validate(partitions int) error {
	if c.Worker == "" {
		return errors.New("a claim without a worker")
	}
	return validQueue(c.Partition, partitions, c.Queue)
}

// Validate returns an error for arguments that every tier refuses. partitions is the number
// of partitions of the layout.
func (s *Settle) Validate(partitions int) error {
	switch {
	case s.Worker == "":
		return errors.New("a settlement without a worker")
	case len(s.Records) > MaxClaim:
		return fmt.Errorf("%d records: at most %d are allowed", len(s.Records), MaxClaim)
	}
	return validQueue(s.Partition, partitions, s.Queue)
}

func validQueue(partition, partitions int, queue string) error {
	switch {
	case partition < 0 || partition >= partitions:
		return fmt.Errorf("partition %d of %d", partition, partitions)
	case queue == "":
		return errors.New("a queue without a name")
	}
	return nil
}
