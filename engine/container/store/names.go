package store

import (
	"math/rand/v2"
	"strconv"
)

// RandomName makes up a name as Docker does: an adjective and the surname of somebody
// who did something good for knowledge. After a few tries taken it gets a digit.
func RandomName(try int) string {
	adjectives := [...]string{
		"agile", "amber", "ample", "astute", "balmy", "bold", "brave", "bright", "brisk", "calm",
		"candid", "careful", "cheerful", "clever", "cosy", "crisp", "curious", "dapper", "daring",
		"deft", "eager", "earnest", "fair", "faithful", "fearless", "fluent", "fond", "frank",
		"gentle", "glad", "golden", "graceful", "grand", "handy", "hardy", "hearty", "honest",
		"humble", "jolly", "keen", "kind", "lively", "loyal", "lucid", "lucky", "mellow", "merry",
		"mild", "modest", "neat", "nimble", "noble", "patient", "placid", "plucky", "polite",
		"proud", "quick", "quiet", "ready", "robust", "rosy", "serene", "sharp", "silent",
		"sincere", "smart", "snug", "sober", "spry", "stately", "steady", "stellar", "stout",
		"sturdy", "subtle", "sunny", "swift", "tender", "thrifty", "tidy", "tranquil", "trusty",
		"upbeat", "valiant", "vivid", "warm", "wise", "witty", "worthy", "zealous",
	}
	surnames := [...]string{
		"abel", "agnesi", "ampere", "archimedes", "avogadro", "babbage", "banach", "bernoulli",
		"bohr", "boltzmann", "boole", "born", "boyle", "cantor", "carson", "cauchy", "cavendish",
		"chandra", "church", "copernicus", "crick", "curie", "dalton", "darwin", "dijkstra",
		"dirac", "einstein", "erdos", "euclid", "euler", "faraday", "fermat", "fermi", "feynman",
		"fibonacci", "fourier", "franklin", "galileo", "galois", "gauss", "germain", "godel",
		"goodall", "hamilton", "hawking", "heisenberg", "hertz", "hilbert", "hodgkin", "hopper",
		"hubble", "huygens", "hypatia", "johnson", "joule", "kepler", "khayyam", "kovalevskaya",
		"lagrange", "laplace", "leavitt", "leibniz", "linnaeus", "lovelace", "maxwell",
		"mcclintock", "meitner", "mendel", "mendeleev", "mirzakhani", "neumann", "newton",
		"noether", "pascal", "pasteur", "pauli", "planck", "poincare", "ptolemy", "pythagoras",
		"ramanujan", "riemann", "ritchie", "rubin", "russell", "sagan", "schrodinger", "shannon",
		"somerville", "tesla", "thales", "thompson", "torvalds", "turing", "volta", "wiles",
		"wozniak", "wright", "wu", "yalow", "yonath",
	}
	name := adjectives[rand.IntN(len(adjectives))] + "_" + surnames[rand.IntN(len(surnames))]
	if try > 4 {
		name += strconv.Itoa(rand.IntN(1 << min(try, 30)))
	}
	return name
}
