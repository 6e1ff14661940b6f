/*
 * phte64 for x86-64 with VAES and AVX-512: four blocks to a register, four registers in flight.
 *
 * Hits are rare (one place in 16,384 at an average of 64 KiB), so a group is tested with one
 * compare of its minimum, and which block it was is found out only then.
 */
#include "phte_scan.h"

#if defined(__x86_64__)

#include <cpuid.h>
#include <immintrin.h>

#define VAES __attribute__((target("avx512f,vaes")))

enum { REGISTERS = 4, GROUP = 4 * REGISTERS };

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

VAES size_t
phte_scan_vaes512(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	return (phte_scan_with(hits_in_group, GROUP, cdc, data, first, end, threshold));
}

#else
typedef int phte_vaes_is_not_for_this_architecture;	/* ISO C wants a declaration in every file */
#endif
