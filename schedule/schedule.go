// Package schedule decides, it does nothing: it divides a job into parts
// ([Split]) and places parts on providers ([Place]). Both are pure functions of
// their arguments, without I/O, clock or chance, so that a decision can be
// repeated and explained afterwards.
//
// A part is described by the files, or ranges of files, that it sees; none of
// their bytes are read here. A candidate is a provider with its offer and its
// bid. Placing weighs, in seconds, what a part costs on a candidate: the time
// to move the input bytes the candidate lacks, the time until the candidate has
// a slot free, and its price.
package schedule
