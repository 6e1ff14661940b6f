/*
 * gear64: hash = (hash << 1) + table[byte], over secret 64-bit words.
 *
 * A byte's share is shifted out of the 64-bit hash after 64 steps, so the hash at a place depends
 * on the 64 bytes before it only.  The plain loop is bound by the latency of shift and add, not by
 * the width of the machine: two lanes, each scanning a block of its own, run at twice the speed in
 * plain C and beat every vector form that was tried.
 *
 * A threshold compare reads the top bits of the hash, the ones every byte of the window has
 * reached through carries.
 */
#include "gear.h"

#include <assert.h>

/* Long enough that the 64 bytes of warm-up cost 1%; short enough to waste little past a cut. */
#define LANE_BYTES ((size_t)4096)

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
 * Scan [first, first + LANE_BYTES) and the block after it side by side; ${hash} is updated to the
 * hash at the last place of the second block.  A hit in the first block ends it at once.  A hit
 * in the second counts only when the rest of the first holds none.
 */
static size_t
scan_two(const uint64_t *table, const uint8_t *data, size_t first, uint64_t *hash,
    uint64_t threshold)
{
	const uint8_t *near = data + first - 1, *far = near + LANE_BYTES;
	uint64_t near_hash = *hash;
	uint64_t far_hash = warm_up(table, data, first + LANE_BYTES - 1);
	size_t end = first + 2 * LANE_BYTES;

	for (size_t i = 0; i < LANE_BYTES; i++) {
		near_hash = (near_hash << 1) + table[near[i]];
		far_hash = (far_hash << 1) + table[far[i]];
		if (near_hash <= threshold)
			return (first + i);
		if (far_hash <= threshold) {
			size_t near_end = first + LANE_BYTES;
			size_t found = scan_on(table, data, first + i, near_end, near_hash, threshold);

			return (found < near_end ? found : near_end + i);
		}
	}
	*hash = far_hash;
	return (end);
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
	while (end - first > 2 * LANE_BYTES) {
		size_t found = scan_two(table, data, first + 1, &hash, threshold);

		if (found < first + 1 + 2 * LANE_BYTES)
			return (found);
		first += 2 * LANE_BYTES;
	}
	return (scan_on(table, data, first, end, hash, threshold));
}
