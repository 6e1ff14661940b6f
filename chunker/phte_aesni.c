/*
 * phte64 for x86-64 with AES-NI: one block to a register, eight in flight to hide the latency.
 */
#include "phte_scan.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define AESNI __attribute__((target("aes,sse2")))

enum { REGISTERS = 8, GROUP = 16 };

int
phte_possible_aesni(void)
{
	return (__builtin_cpu_supports("aes") != 0);
}

AESNI static inline uint64_t
hits_in_group(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	__m128i x[REGISTERS], key;
	uint64_t hits = 0;

	for (int at = 0; at < GROUP; at += REGISTERS) {
		key = _mm_loadu_si128((const __m128i *)cdc->round_keys[0]);
		for (int i = 0; i < REGISTERS; i++) {
			/* The low word of 64 places before, moved up to the high word. */
			__m128i leaving = _mm_slli_si128(
			    _mm_loadl_epi64((const __m128i *)(before + 2 * (at + i))), 8);

			x[i] = _mm_loadu_si128((const __m128i *)(now + 2 * (at + i)));
			x[i] = _mm_xor_si128(_mm_xor_si128(x[i], key), leaving);
		}
		for (int round = 1; round < CDC_AES_ROUNDS; round++) {
			key = _mm_loadu_si128((const __m128i *)cdc->round_keys[round]);
			for (int i = 0; i < REGISTERS; i++)
				x[i] = _mm_aesenc_si128(x[i], key);
		}
		key = _mm_loadu_si128((const __m128i *)cdc->round_keys[CDC_AES_ROUNDS]);
		for (int i = 0; i < REGISTERS; i++) {
			x[i] = _mm_aesenclast_si128(x[i], key);
			hits |= (uint64_t)((uint64_t)_mm_cvtsi128_si64(x[i]) <= threshold) << (at + i);
		}
	}
	return (hits);
}

AESNI uint64_t
phte_hits_aesni(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	return (hits_in_group(cdc, now, before, threshold));
}

AESNI size_t
phte_scan_aesni(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	return (phte_scan_with(hits_in_group, GROUP, cdc, data, first, end, threshold));
}

#else
typedef int phte_aesni_is_not_for_this_architecture;	/* ISO C wants a declaration in every file */
#endif
