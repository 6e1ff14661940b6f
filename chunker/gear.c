/*
 * gear64: hash = (hash << 1) + table[byte], over secret 64-bit words.
 *
 * A byte's share is shifted out of the 64-bit hash after 64 steps, so the hash at a place depends
 * on the 64 bytes before it only.  The plain loop is bound by the latency of shift and add, not by
 * the width of the machine: four lanes, each scanning a block of its own, fill it in plain C (two
 * loads, an add, a compare with its branch: four operations a byte) and beat every vector form
 * that was tried.
 *
 * A lane's block begins where the caches hold nothing and the hardware sees no stream yet, so every
 * block is asked for while the one before it is scanned: without that, blocks of this length cost
 * half as much again.
 *
 * A threshold compare reads the top bits of the hash, the ones every byte of the window has
 * reached through carries.
 */
#include "gear.h"

#include <assert.h>

/*
 * Blocks long enough that the 64 bytes of warm-up cost little, short enough to waste little past
 * a cut; and short ones for what is left before the end.
 */
#define LONG_BYTES ((size_t)1024)
#define SHORT_BYTES ((size_t)512)

#define LINE_BYTES ((size_t)64)	/* of the caches; divides both */

#define RARE(condition) __builtin_expect((condition), 0)

enum { LANES = 4 };

/* The hash of the 64 bytes before data[end]. */
static uint64_t
warm_up(const uint64_t *table, const uint8_t *data, size_t end)
{
	uint64_t hash = 0;

	for (size_t i = end - CDC_WINDOW; i < end; i++)
		hash = (hash << 1) + table[data[i]];	/* wraps by design */
	return (hash);
}

/* Scan one lane; ${hash} is the hash at ${first}, which has been judged already. */
static size_t
scan_on(const uint64_t *table, const uint8_t *data, size_t first, size_t end, uint64_t hash,
    uint64_t threshold)
{
	for (size_t e = first + 1; e < end; e++) {
		hash = (hash << 1) + table[data[e - 1]];
		if (hash <= threshold)
			return (e);
	}
	return (end);
}

/*
 * The lanes stand at place ${i} of their blocks, with ${hashes} there, and one has hit: return the
 * first hit of all, looking through the rest of every block before that one's.
 */
static size_t
nearest_hit(const uint64_t *table, const uint8_t *data, size_t first, size_t lane_bytes, size_t i,
    const uint64_t hashes[LANES], uint64_t threshold)
{
	for (size_t lane = 0;; lane++) {
		size_t here = first + lane * lane_bytes + i, end = here - i + lane_bytes, found;

		if (hashes[lane] <= threshold)
			return (here);
		found = scan_on(table, data, here, end, hashes[lane], threshold);
		if (found < end)
			return (found);
	}
}

/* Ask for the first lines of every lane's block, the 64 bytes of warm-up before it included. */
static void
fetch_starts(const uint8_t *in, size_t lane_bytes)
{
	for (size_t lane = 1; lane < LANES; lane++)
		for (size_t line = 0; line < 4; line++)
			__builtin_prefetch(in + lane * lane_bytes - LINE_BYTES + line * LINE_BYTES);
}

/*
 * Scan LANES blocks of ${lane_bytes} side by side, the first at ${first}; ${hash}, the hash just
 * before it, is updated to that at the last place.  A hit in a later block counts only when the
 * rest of those before it holds none.
 */
static inline __attribute__((always_inline)) size_t
scan_lanes(const uint64_t *table, const uint8_t *data, size_t first, const size_t lane_bytes,
    uint64_t *hash, uint64_t threshold)
{
	const uint8_t *in = data + first - 1;
	uint64_t h0, h1, h2, h3;
	size_t i;

	fetch_starts(in, lane_bytes);
	h0 = *hash;
	h1 = warm_up(table, data, first + lane_bytes - 1);
	h2 = warm_up(table, data, first + 2 * lane_bytes - 1);
	h3 = warm_up(table, data, first + 3 * lane_bytes - 1);
	/*
	 * Each hash is tested before the next is made: tests side by side are folded into minima by
	 * compilers, which cost more.  A prefetch beyond the data reads nothing and cannot fault.
	 */
	for (i = 0; i < lane_bytes;) {
		for (size_t lane = 0; lane < LANES; lane++)
			__builtin_prefetch(in + i + (LANES + lane) * lane_bytes);
#pragma GCC unroll 4
		for (size_t line_end = i + LINE_BYTES; i < line_end; i++) {
			h0 = (h0 << 1) + table[in[i]];
			if (RARE(h0 <= threshold))
				return (first + i);
			h1 = (h1 << 1) + table[in[i + lane_bytes]];
			if (RARE(h1 <= threshold))
				goto hit;
			h2 = (h2 << 1) + table[in[i + 2 * lane_bytes]];
			if (RARE(h2 <= threshold))
				goto hit;
			h3 = (h3 << 1) + table[in[i + 3 * lane_bytes]];
			if (RARE(h3 <= threshold))
				goto hit;
		}
	}
	*hash = h3;
	return (first + LANES * lane_bytes);
hit:
	return (nearest_hit(table, data, first, lane_bytes, i, (uint64_t[LANES]){ h0, h1, h2, h3 },
	    threshold));
}

size_t
gear_scan(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	const uint64_t *table = cdc->table;
	uint64_t hash;

	assert(first >= CDC_WINDOW && first < end);
	hash = warm_up(table, data, first);
	if (hash <= threshold)
		return (first);
	/* From here ${first} is judged, and hash is its hash. */
	while (end - first > LANES * SHORT_BYTES) {
		size_t lane_bytes = end - first > LANES * LONG_BYTES ? LONG_BYTES : SHORT_BYTES;
		size_t found = lane_bytes == LONG_BYTES ?
		    scan_lanes(table, data, first + 1, LONG_BYTES, &hash, threshold) :
		    scan_lanes(table, data, first + 1, SHORT_BYTES, &hash, threshold);

		if (found < first + 1 + LANES * lane_bytes)
			return (found);
		first += LANES * lane_bytes;
	}
	return (scan_on(table, data, first, end, hash, threshold));
}
