/*
 * phte64 in plain C: AES-128 without tables, for CPUs without AES instructions.
 *
 * Bit slicing over the batch: the word plane[bit][byte] holds that bit of that byte of all 64
 * blocks, one block to a bit of the word.  The S-box becomes a circuit of 115 gates that runs on
 * 64 blocks at once, ShiftRows a copy, and the compare with the threshold yields the answer word
 * itself.  No index and no branch depends on key or data, so there is nothing for a cache to tell.
 *
 * Bytes stand by rows, byte[4 * row + column], so that loops over columns run on adjacent words.
 */
#include "phte_scan.h"

typedef uint64_t planes[8][16];

/* Where byte ${i} of a block stands: AES fills its columns first. */
static size_t
place_of(size_t i)
{
	return (4 * (i % 4) + i / 4);
}

/* Transpose a matrix of 64 x 64 bits: bit j of word i becomes bit i of word j. */
static void
transpose(uint64_t words[64])
{
	uint64_t mask = 0x00000000ffffffff;

	for (size_t width = 32; width != 0; width >>= 1, mask ^= mask << width) {
		for (size_t i = 0; i < 64; i = (i + width + 1) & ~width) {
			uint64_t swap = (words[i] >> width ^ words[i + width]) & mask;

			words[i] ^= swap << width;
			words[i + width] ^= swap;
		}
	}
}

static void
slice(planes s, const uint64_t *now, const uint64_t *before)
{
	uint64_t words[64];

	for (size_t half = 0; half < 2; half++) {
		for (size_t i = 0; i < 64; i++)
			words[i] = half == 0 ? now[2 * i] : now[2 * i + 1] ^ before[2 * i];
		transpose(words);
		for (size_t i = 0; i < 64; i++)
			s[i % 8][place_of(8 * half + i / 8)] = words[i];
	}
}

static void
add_key(planes s, const uint8_t key[16])
{
	for (size_t bit = 0; bit < 8; bit++) {
		for (size_t i = 0; i < 16; i++)
			s[bit][place_of(i)] ^= -(uint64_t)(key[i] >> bit & 1);
	}
}

/* The S-box on one byte of 64 blocks: the circuit of Boyar and Peralta (eprint 2011/332). */
static inline void
substitute(planes s, size_t i)
{
	uint64_t x0 = s[7][i], x1 = s[6][i], x2 = s[5][i], x3 = s[4][i];
	uint64_t x4 = s[3][i], x5 = s[2][i], x6 = s[1][i], x7 = s[0][i];

	/* Into the tower field. */
	uint64_t y14 = x3 ^ x5, y13 = x0 ^ x6, y9 = x0 ^ x3, y8 = x0 ^ x5;
	uint64_t t0 = x1 ^ x2, y1 = t0 ^ x7, y4 = y1 ^ x3, y12 = y13 ^ y14;
	uint64_t y2 = y1 ^ x0, y5 = y1 ^ x6, y3 = y5 ^ y8, t1 = x4 ^ y12;
	uint64_t y15 = t1 ^ x5, y20 = t1 ^ x1, y6 = y15 ^ x7, y10 = y15 ^ t0;
	uint64_t y11 = y20 ^ y9, y7 = x7 ^ y11, y17 = y10 ^ y11, y19 = y10 ^ y8;
	uint64_t y16 = t0 ^ y11, y21 = y13 ^ y16, y18 = x0 ^ y16;

	/* The inverse. */
	uint64_t t2 = y12 & y15, t4 = (y3 & y6) ^ t2, t6 = (y4 & x7) ^ t2;
	uint64_t t7 = y13 & y16, t9 = (y5 & y1) ^ t7, t11 = (y2 & y7) ^ t7;
	uint64_t t12 = y9 & y11, t14 = (y14 & y17) ^ t12, t16 = (y8 & y10) ^ t12;
	uint64_t t21 = t4 ^ t14 ^ y20, t22 = t6 ^ t16 ^ y19;
	uint64_t t23 = t9 ^ t14 ^ y21, t24 = t11 ^ t16 ^ y18;
	uint64_t t25 = t21 ^ t22, t26 = t21 & t23, t27 = t24 ^ t26;
	uint64_t t29 = (t25 & t27) ^ t22, t30 = t23 ^ t24, t31 = t22 ^ t26;
	uint64_t t33 = (t31 & t30) ^ t24, t34 = t23 ^ t33, t35 = t27 ^ t33;
	uint64_t t36 = t24 & t35, t37 = t36 ^ t34, t38 = t27 ^ t36;
	uint64_t t40 = t25 ^ (t29 & t38), t41 = t40 ^ t37, t42 = t29 ^ t33;
	uint64_t t43 = t29 ^ t40, t44 = t33 ^ t37, t45 = t42 ^ t41;
	uint64_t z0 = t44 & y15, z1 = t37 & y6, z2 = t33 & x7, z3 = t43 & y16;
	uint64_t z4 = t40 & y1, z5 = t29 & y7, z6 = t42 & y11, z7 = t45 & y17;
	uint64_t z8 = t41 & y10, z9 = t44 & y12, z10 = t37 & y3, z11 = t33 & y4;
	uint64_t z12 = t43 & y13, z13 = t40 & y5, z14 = t29 & y2, z15 = t42 & y9;
	uint64_t z16 = t45 & y14, z17 = t41 & y8;

	/* Back, with the affine map. */
	uint64_t t46 = z15 ^ z16, t47 = z10 ^ z11, t48 = z5 ^ z13, t49 = z9 ^ z10;
	uint64_t t50 = z2 ^ z12, t51 = z2 ^ z5, t52 = z7 ^ z8, t53 = z0 ^ z3;
	uint64_t t54 = z6 ^ z7, t55 = z16 ^ z17, t56 = z12 ^ t48, t57 = t50 ^ t53;
	uint64_t t58 = z4 ^ t46, t59 = z3 ^ t54, t60 = t46 ^ t57, t61 = z14 ^ t57;
	uint64_t t62 = t52 ^ t58, t63 = t49 ^ t58, t64 = z4 ^ t59, t65 = t61 ^ t62;
	uint64_t t66 = z1 ^ t63, t67 = t64 ^ t65, s3 = t53 ^ t66;

	s[7][i] = t59 ^ t63;
	s[6][i] = t64 ^ ~s3;
	s[5][i] = t55 ^ ~t67;
	s[4][i] = s3;
	s[3][i] = t51 ^ t66;
	s[2][i] = t47 ^ t65;
	s[1][i] = t56 ^ ~t62;
	s[0][i] = t48 ^ ~t60;
}

static void
substitute_all(planes s)
{
	for (size_t i = 0; i < 16; i++)
		substitute(s, i);
}

static void
shift_rows(planes to, planes from)
{
	for (size_t bit = 0; bit < 8; bit++) {
		for (size_t row = 0; row < 4; row++) {
			for (size_t column = 0; column < 4; column++)
				to[bit][4 * row + column] = from[bit][4 * row + (column + row) % 4];
		}
	}
}

/* Row r becomes 2 (a + b) + b + c + d for the rows a, b, c, d from r on; 2 is a shift by a bit. */
static void
mix_columns(planes to, planes from)
{
	for (size_t row = 0; row < 4; row++) {
		size_t a = 4 * row, b = 4 * ((row + 1) % 4);
		size_t c = 4 * ((row + 2) % 4), d = 4 * ((row + 3) % 4);

		for (size_t bit = 0; bit < 8; bit++) {
			const uint64_t *below = from[(bit + 7) % 8], *top = from[7], *same = from[bit];
			uint64_t fold = -(uint64_t)(bit == 1 || bit == 3 || bit == 4);

			for (size_t i = 0; i < 4; i++)
				to[bit][a + i] = below[a + i] ^ below[b + i]
				    ^ ((top[a + i] ^ top[b + i]) & fold)
				    ^ same[b + i] ^ same[c + i] ^ same[d + i];
		}
	}
}

/* Compare the first 8 bytes of all blocks, as little-endian numbers, from the highest bit down. */
static uint64_t
at_or_below(planes s, uint64_t threshold)
{
	uint64_t below = 0, equal = UINT64_MAX;

	for (size_t i = 64; i-- > 0;) {
		uint64_t limit = -(threshold >> i & 1), word = s[i % 8][place_of(i / 8)];

		below |= equal & limit & ~word;
		equal &= ~(word ^ limit);
	}
	return (below | equal);
}

uint64_t
phte_hits_portable(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold)
{
	planes s, shifted;
	uint64_t hits;

	slice(s, now, before);
	add_key(s, cdc->round_keys[0]);
	for (size_t round = 1; round < CDC_AES_ROUNDS; round++) {
		substitute_all(s);
		shift_rows(shifted, s);
		mix_columns(s, shifted);
		add_key(s, cdc->round_keys[round]);
	}
	substitute_all(s);
	shift_rows(shifted, s);
	add_key(shifted, cdc->round_keys[CDC_AES_ROUNDS]);
	hits = at_or_below(shifted, threshold);
	cdc_wipe(s, sizeof(s));
	cdc_wipe(shifted, sizeof(shifted));
	return (hits);
}

size_t
phte_scan_portable(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold)
{
	return (phte_scan_with(phte_hits_portable, PHTE_BATCH, cdc, data, first, end, threshold));
}
