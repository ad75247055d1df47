package balancer

// HashKey hashes a key to 64 bits, the same in every process and on every
// machine, so that agents agree: FNV-1a (Fowler, Noll, Vo), whose high bits
// depend little on the last bytes, finished by scramble.
func HashKey(key string) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(key) {
		h = (h ^ uint64(key[i])) * 1099511628211
	}
	return scramble(h)
}

// scramble makes the next random number of one (SplitMix64, Steele et al.,
// 2014).
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}
