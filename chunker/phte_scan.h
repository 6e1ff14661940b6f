/*
 * The loop that makes a scan of a kernel's hits(): roll the hash, a group of places at a time.
 *
 * What rolls is not D but N, the same sum over the last 128 bytes cut off at x^128:
 *
 *     N(e) = x * N(e - 1) + T[data[e - 1]]   mod x^128
 *
 * which needs one look into the table for each byte, and no byte leaves it by hand.  The low word
 * of N is that of D, since x^64 and above do not reach it.  The high word holds 64 bytes too many,
 * and what they add there is exactly the low word of 64 places before:
 *
 *     high D(e) = high N(e) ^ low N(e - 64)
 *
 * Both sides are linear, so N may start from nothing 64 bytes before the first place: what is
 * missing on the left is missing on the right.  So no byte before the window is ever read.
 *
 * The groups stand in a ring that reaches 64 places back.  The next group is rolled before this
 * one is encrypted: the two are independent, so integer and AES units work side by side, and the
 * words have reached the cache by the time they are loaded as vectors.  (16 places a group is the
 * best measured; 32 and more no longer fit the CPU's reorder window and run a third slower, unless
 * they are rolled between the rounds, as phte_vaes.c does.)
 */
#ifndef HOLDFAST_PHTE_SCAN_H
#define HOLDFAST_PHTE_SCAN_H

#include <assert.h>

#include "phte.h"

#define PHTE_INLINE static inline __attribute__((always_inline))

struct phte_roll {
	uint64_t low, high;
};

/* Shift the pair up by one bit. */
PHTE_INLINE void
phte_double(uint64_t *low, uint64_t *high)
{
#if defined(__x86_64__)
	/* Two instructions where compilers make four, or one slow shld. */
	__asm__("addq %0, %0\n\tadcq %1, %1" : "+r"(*low), "+r"(*high) : : "cc");
#else
	*high = *high << 1 | *low >> 63;
	*low <<= 1;
#endif
}

/* Roll in ${count} bytes; write the hash after each. */
PHTE_INLINE void
phte_roll_fill(struct phte_roll *roll, const uint64_t *table, const uint8_t *data, size_t count,
    uint64_t *out)
{
	uint64_t low = roll->low, high = roll->high;

	for (size_t i = 0; i < count; i++) {
		phte_double(&low, &high);
		low ^= table[data[i]];
		out[2 * i] = low;
		out[2 * i + 1] = high;
	}
	roll->low = low;
	roll->high = high;
}

PHTE_INLINE size_t
phte_scan_with(phte_hits_fn *hits, const size_t group, const struct cdc *cdc,
    const uint8_t *data, size_t first, size_t end, uint64_t threshold)
{
	enum { RING = 4 * CDC_WINDOW };
	/* Groups that fit the ring, a power of two; the 64 places back, this group and the next. */
	const size_t slots = RING / group, back = CDC_WINDOW / group;
	uint64_t ring[2 * RING];
	struct phte_roll roll = { 0, 0 };
	size_t found = end, slot = back;

	assert(first >= CDC_WINDOW && first < end);
	/* The places from first - 64 on: nothing rolled in, then a byte more for each. */
	ring[0] = ring[1] = 0;
	phte_roll_fill(&roll, cdc->table, data + first - CDC_WINDOW, CDC_WINDOW - 1, ring + 2);
	for (size_t i = 2 * CDC_WINDOW; i < 2 * (CDC_WINDOW + group); i++)
		ring[i] = 0;	/* so that a first group that is cut short reads no garbage */
	phte_roll_fill(&roll, cdc->table, data + first - 1, end - first < group ? end - first : group,
	    ring + 2 * group * slot);
	for (size_t e = first; e < end; e += group, slot = (slot + 1) % slots) {
		const uint64_t *now = ring + 2 * group * slot;
		const uint64_t *before = ring + 2 * group * ((slot - back) % slots);
		uint64_t *next = ring + 2 * group * ((slot + 1) % slots);
		size_t left = end - e;
		uint64_t found_here;

		if (left >= 2 * group) {	/* a constant count, which the compiler unrolls */
			phte_roll_fill(&roll, cdc->table, data + e + group - 1, group, next);
		} else if (left > group) {
			for (size_t i = 0; i < 2 * group; i++)
				next[i] = 0;
			phte_roll_fill(&roll, cdc->table, data + e + group - 1, left - group, next);
		}
		found_here = hits(cdc, now, before, threshold);
		if (left < group)
			found_here &= ((uint64_t)1 << left) - 1;
		if (found_here != 0) {
			found = e + (size_t)__builtin_ctzll(found_here);
			break;
		}
	}
	cdc_wipe(ring, sizeof(ring));
	cdc_wipe(&roll, sizeof(roll));
	return (found);
}

#endif
