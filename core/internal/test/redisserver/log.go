package redisserver

import (
	"io"
	"os"
)

// tailBytes is how much of a log is kept.
const tailBytes = 8 << 10

// tail reads to the end and returns the last of it.
func tail(r io.Reader) string {
	var last []byte
	chunk := make([]byte, tailBytes)
	for {
		n, err := r.Read(chunk)
		last = append(last, chunk[:n]...)
		last = last[max(0, len(last)-tailBytes):]
		if err != nil {
			return string(last)
		}
	}
}

// tailOf returns the end of a file's content after an offset, and nothing if there is no such file.
func tailOf(file string, after int64) string {
	f, err := os.Open(file)
	if err != nil {
		return ""
	}
	defer f.Close()
	if _, err := f.Seek(max(after, size(file)-tailBytes), io.SeekStart); err != nil {
		return ""
	}
	return tail(f)
}

// size of a file; 0 if there is none.
func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}
