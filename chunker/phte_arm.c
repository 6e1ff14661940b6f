/*
 * phte64 for ARMv8 with the AES instructions, little-endian: the loads below take the numbers of
 * a block as bytes, which only there are the bytes of the definition.
 */
#include "phte_scan.h"

#if defined(PHTE_ARM)

#include <arm_neon.h>
#if defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#if defined(__clang__)
#define ARMV8 __attribute__((target("aes")))
#else
#define ARMV8 __attribute__((target("+crypto")))
#endif

enum { REGISTERS = 8, GROUP = 16 };

int
phte_possible_armv8(void)
{
#if defined(__linux__)
	return ((getauxval(AT_HWCAP) & HWCAP_AES) != 0);
#elif defined(__APPLE__)
	return (1);	/* every 64-bit Mac has them */
#else
	return (0);
#endif
}

/* AESE adds the key before the S-box, so the last key is left for a plain xor. */
ARMV8 static inline uint64_t
hits_in_group(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	const uint8x16_t last_key = vld1q_u8(cdc->round_keys[CDC_AES_ROUNDS]);
	uint8x16_t x[REGISTERS], key;
	uint64_t hits = 0;

	for (int at = 0; at < GROUP; at += REGISTERS) {
		for (int i = 0; i < REGISTERS; i++) {
			/* The low word of 64 places before, moved up to the high word. */
			uint64x2_t leaving = vcombine_u64(vcreate_u64(0), vld1_u64(before + 2 * (at + i)));

			x[i] = vreinterpretq_u8_u64(veorq_u64(vld1q_u64(now + 2 * (at + i)), leaving));
		}
		for (int round = 0; round < CDC_AES_ROUNDS - 1; round++) {
			key = vld1q_u8(cdc->round_keys[round]);
			for (int i = 0; i < REGISTERS; i++)
				x[i] = vaesmcq_u8(vaeseq_u8(x[i], key));
		}
		key = vld1q_u8(cdc->round_keys[CDC_AES_ROUNDS - 1]);
		for (int i = 0; i < REGISTERS; i++) {
			x[i] = veorq_u8(vaeseq_u8(x[i], key), last_key);
			hits |= (uint64_t)(vgetq_lane_u64(vreinterpretq_u64_u8(x[i]), 0) <= threshold)
			    << (at + i);
		}
	}
	return (hits);
}

ARMV8 uint64_t
phte_hits_armv8(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	return (hits_in_group(cdc, now, before, threshold));
}

ARMV8 size_t
phte_scan_armv8(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	return (phte_scan_with(hits_in_group, GROUP, cdc, data, first, end, threshold));
}

#else
typedef int phte_arm_is_not_for_this_architecture;	/* ISO C wants a declaration in every file */
#endif
