/*
 * phte64: a cut rule that chunk lengths do not betray.
 *
 *     D(e) = sum over j < 64 of x^j * T[data[e - 1 - j]]      in GF(2)[x], not reduced: 127 bits
 *     E(e) = AES-128_K(low 64 bits of D || high 64 bits of D)  both little-endian
 *     hit  = first 8 bytes of E, little-endian, <= threshold
 *
 * T holds 256 secret words of 64 bits, so two different windows collide with probability at most
 * 2^-64, and what an observer of cuts sees are outputs of a block cipher.  The keyed chunkers
 * without that second step have all been broken from chunk lengths.  Every place goes through
 * AES: a cheaper filter before it would leak its own bits with every cut.
 *
 * The 127 bits fit the block, so the polynomial is not reduced: no branch or index depends on a
 * secret.  (Indices into T depend on the data, as in every table-driven chunker.)
 */
#include "phte.h"

#include <string.h>

static int
always(void)
{
	return (1);
}

const struct phte_kernel phte_kernels[] = {
#if defined(__x86_64__)
	{ "vaes512", phte_possible_vaes512, phte_scan_vaes512, phte_hits_vaes512, 16 },
	{ "aesni", phte_possible_aesni, phte_scan_aesni, phte_hits_aesni, 16 },
#elif defined(PHTE_ARM)
	{ "armv8", phte_possible_armv8, phte_scan_armv8, phte_hits_armv8, 16 },
#endif
	{ "portable", always, phte_scan_portable, phte_hits_portable, PHTE_BATCH },
	{ NULL, NULL, NULL, NULL, 0 },
};

const struct phte_kernel *
phte_kernel_find(const char *name)
{
	for (const struct phte_kernel *k = phte_kernels; k->name != NULL; k++) {
		if ((name == NULL || strcmp(name, k->name) == 0) && k->possible())
			return (k);
	}
	return (NULL);
}

void
phte_encrypt_batch(const struct phte_kernel *kernel, const struct cdc *cdc,
    const uint64_t blocks[2 * PHTE_BATCH], uint64_t encrypted[PHTE_BATCH])
{
	const uint64_t nothing[2 * PHTE_BATCH] = { 0 };

	for (unsigned slot = 0; slot < PHTE_BATCH; slot++) {
		const uint64_t *group = blocks + 2 * (slot - slot % kernel->group);
		uint64_t value = 0;

		for (int bit = 63; bit >= 0; bit--) {
			uint64_t step = (uint64_t)1 << bit;
			uint64_t hits = kernel->hits(cdc, group, nothing, value + (step - 1));

			if ((hits >> slot % kernel->group & 1) == 0)
				value += step;
		}
		encrypted[slot] = value;
	}
}

/* a * b in the field of AES, without branches. */
static uint8_t
field_times(uint8_t a, uint8_t b)
{
	uint8_t product = 0;

	for (int i = 0; i < 8; i++) {
		product ^= (uint8_t)(a & -(b >> i & 1));
		a = (uint8_t)(a << 1 ^ (0x1b & -(a >> 7)));
	}
	return (product);
}

/* The S-box from its definition: the inverse (a^254), then the affine map. */
static uint8_t
substitute(uint8_t a)
{
	uint8_t inverse = 1, square = a;

	for (int i = 0; i < 7; i++) {	/* 254 = 2 + 4 + ... + 128 */
		square = field_times(square, square);
		inverse = field_times(inverse, square);
	}
	uint8_t image = inverse;
	for (int i = 1; i < 5; i++)
		image ^= (uint8_t)(inverse << i | inverse >> (8 - i));
	return (image ^ 0x63);
}

void
phte_expand_key(struct cdc *cdc, const uint8_t aes_key[CDC_AES_KEY_BYTES])
{
	uint8_t *w = cdc->round_keys[0];
	uint8_t rcon = 1;

	memcpy(w, aes_key, CDC_AES_KEY_BYTES);
	for (size_t i = 16; i < sizeof(cdc->round_keys); i += 4) {
		for (size_t j = 0; j < 4; j++) {
			uint8_t byte = w[i - 4 + j];

			if (i % 16 == 0) {
				byte = substitute(w[i - 4 + (j + 1) % 4]);
				if (j == 0)
					byte ^= rcon;
			}
			w[i + j] = w[i - 16 + j] ^ byte;
		}
		if (i % 16 == 0)
			rcon = field_times(rcon, 2);
	}
}
