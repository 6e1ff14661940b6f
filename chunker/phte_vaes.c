/*
 * phte64 for x86-64 with VAES and AVX-512: four blocks to a register, eight registers in flight.
 *
 * What AES costs is the limit: ten rounds of four places an instruction, 2.5 cycles a byte where the
 * CPU starts one such instruction a cycle.  So the hash of the places to come is rolled between the
 * rounds, four bytes after each of the first eight, in units that AES leaves idle, and two groups
 * ahead, so that its words have reached the cache by the time they are loaded as vectors.  (Rolled
 * before the rounds, as phte_scan.h does it, groups of 32 do not fit the reorder window.)
 *
 * Hits are rare (one place in 16,384 at an average of 64 KiB), so a group is tested with one
 * compare of its minimum, and which block it was is found out only then.
 */
#include "phte_scan.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define VAES __attribute__((target("avx512f,vaes")))

enum { REGISTERS = 4, GROUP = 4 * REGISTERS, WIDE = 2 * GROUP };	/* places; WIDE in the main loop */

int
phte_possible_vaes512(void)
{
	unsigned eax, ebx, ecx, edx;

	/* avx512f is asked of the compiler's run time, which also asks whether the system saves
	   the registers; vaes is a name that older compilers do not know. */
	return (__builtin_cpu_supports("avx512f") && __get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) &&
	    (ecx >> 9 & 1));
}

VAES static inline uint64_t
hits_in_group(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	__m512i x[REGISTERS], key, low01, low23;
	uint64_t encrypted[8], hits = 0;

	key = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)cdc->round_keys[0]));
	for (int i = 0; i < REGISTERS; i++) {
		/* The low words of 64 places before, moved up to the high words. */
		__m512i leaving = _mm512_unpacklo_epi64(_mm512_setzero_si512(),
		    _mm512_loadu_si512(before + 8 * i));

		x[i] = _mm512_xor_si512(_mm512_loadu_si512(now + 8 * i), key);
		x[i] = _mm512_xor_si512(x[i], leaving);
	}
	for (int round = 1; round < CDC_AES_ROUNDS; round++) {
		key = _mm512_broadcast_i32x4(
		    _mm_loadu_si128((const __m128i *)cdc->round_keys[round]));
		for (int i = 0; i < REGISTERS; i++)
			x[i] = _mm512_aesenc_epi128(x[i], key);
	}
	key = _mm512_broadcast_i32x4(
	    _mm_loadu_si128((const __m128i *)cdc->round_keys[CDC_AES_ROUNDS]));
	for (int i = 0; i < REGISTERS; i++)
		x[i] = _mm512_aesenclast_epi128(x[i], key);
	low01 = _mm512_unpacklo_epi64(x[0], x[1]);
	low23 = _mm512_unpacklo_epi64(x[2], x[3]);
	if (_mm512_cmple_epu64_mask(_mm512_min_epu64(low01, low23),
	    _mm512_set1_epi64((long long)threshold)) == 0)
		return (0);
	for (int i = 0; i < REGISTERS; i++) {
		_mm512_storeu_si512(encrypted, x[i]);
		for (int j = 0; j < 4; j++)
			hits |= (uint64_t)(encrypted[2 * j] <= threshold) << (4 * i + j);
	}
	return (hits);
}

VAES uint64_t
phte_hits_vaes512(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	return (hits_in_group(cdc, now, before, threshold));
}

/* Round keys of all lanes, kept in registers through a scan. */
struct wide_keys {
	__m512i round[CDC_AES_ROUNDS + 1];
};

/*
 * As hits_in_group() over twice as many places, and between the rounds roll in the WIDE bytes at
 * ${data}, writing their hashes to ${next}.
 */
VAES PHTE_INLINE uint64_t
hits_and_roll(const struct wide_keys *keys, const uint64_t *now, const uint64_t *before,
    uint64_t threshold, struct phte_roll *roll, const uint64_t *table, const uint8_t *data,
    uint64_t *next)
{
	__m512i x[WIDE / 4], least;
	uint64_t hits = 0;

#pragma GCC unroll 8
	for (int i = 0; i < WIDE / 4; i++) {
		__m512i leaving = _mm512_unpacklo_epi64(_mm512_setzero_si512(),
		    _mm512_loadu_si512(before + 8 * i));

		x[i] = _mm512_xor_si512(_mm512_loadu_si512(now + 8 * i), keys->round[0]);
		x[i] = _mm512_xor_si512(x[i], leaving);
	}
#pragma GCC unroll 10
	for (int round = 1; round < CDC_AES_ROUNDS; round++) {
#pragma GCC unroll 8
		for (int i = 0; i < WIDE / 4; i++)
			x[i] = _mm512_aesenc_epi128(x[i], keys->round[round]);
		if (round <= WIDE / 4)
			phte_roll_fill(roll, table, data + 4 * (round - 1), 4, next + 8 * (round - 1));
	}
#pragma GCC unroll 8
	for (int i = 0; i < WIDE / 4; i++)
		x[i] = _mm512_aesenclast_epi128(x[i], keys->round[CDC_AES_ROUNDS]);
	least = _mm512_min_epu64(
	    _mm512_min_epu64(_mm512_unpacklo_epi64(x[0], x[1]), _mm512_unpacklo_epi64(x[2], x[3])),
	    _mm512_min_epu64(_mm512_unpacklo_epi64(x[4], x[5]), _mm512_unpacklo_epi64(x[6], x[7])));
	if (_mm512_cmple_epu64_mask(least, _mm512_set1_epi64((long long)threshold)) == 0)
		return (0);
	for (int i = 0; i < WIDE / 4; i++) {
		uint64_t encrypted[8];

		_mm512_storeu_si512(encrypted, x[i]);
		for (int j = 0; j < 4; j++)
			hits |= (uint64_t)(encrypted[2 * j] <= threshold) << (4 * i + j);
	}
	return (hits);
}

VAES size_t
phte_scan_vaes512(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	enum { SLOTS = 8, BACK = CDC_WINDOW / WIDE };
	uint64_t ring[2 * WIDE * SLOTS];
	struct phte_roll roll = { 0, 0 };
	struct wide_keys keys;
	size_t e = first, found = end, slot = BACK;

	if (end - first < 8 * WIDE)
		return (phte_scan_with(hits_in_group, GROUP, cdc, data, first, end, threshold));
	for (int i = 0; i <= CDC_AES_ROUNDS; i++)
		keys.round[i] = _mm512_broadcast_i32x4(
		    _mm_loadu_si128((const __m128i *)cdc->round_keys[i]));
	/* As in phte_scan_with(): the places from first - 64 on, then two groups. */
	ring[0] = ring[1] = 0;
	phte_roll_fill(&roll, cdc->table, data + first - CDC_WINDOW, CDC_WINDOW - 1, ring + 2);
	phte_roll_fill(&roll, cdc->table, data + first - 1, 2 * WIDE, ring + 2 * WIDE * BACK);
	for (; end - e >= 3 * WIDE; e += WIDE, slot = (slot + 1) % SLOTS) {
		uint64_t hits = hits_and_roll(&keys, ring + 2 * WIDE * slot,
		    ring + 2 * WIDE * ((slot - BACK) % SLOTS), threshold, &roll, cdc->table,
		    data + e + 2 * WIDE - 1, ring + 2 * WIDE * ((slot + 2) % SLOTS));

		if (hits != 0) {
			found = e + (size_t)__builtin_ctzll(hits);
			break;
		}
	}
	cdc_wipe(ring, sizeof(ring));
	cdc_wipe(&roll, sizeof(roll));
	cdc_wipe(&keys, sizeof(keys));
	if (found == end && e < end)	/* what is too little to roll two groups ahead */
		return (phte_scan_with(hits_in_group, GROUP, cdc, data, e, end, threshold));
	return (found);
}

#else
typedef int phte_vaes_is_not_for_this_architecture;	/* ISO C wants a declaration in every file */
#endif
