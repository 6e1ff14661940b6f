/*
 * phte64: polynomial hash, then encrypt.  What phte.c, its kernels and the tests share.
 *
 * A kernel is AES-128 over a group of blocks and a compare, made into a scan by phte_scan.h.  All
 * kernels give the same answer to the bit.
 */
#ifndef HOLDFAST_PHTE_H
#define HOLDFAST_PHTE_H

#include "cdc.h"

enum { PHTE_BATCH = 64 };	/* the largest group: an answer has a bit for each block */

/*
 * hits(cdc, now, before, threshold):
 * Return a word whose bit i is set iff AES-128 of block i, read as a little-endian number from
 * its first 8 bytes, is at or below ${threshold}.  Block i is the pair of numbers
 *     now[2 * i]                          bytes 0 to 7, little-endian
 *     now[2 * i + 1] ^ before[2 * i]      bytes 8 to 15, little-endian
 * ${before} is the running hash 64 places back; phte_scan.h says why.
 */
typedef uint64_t phte_hits_fn(const struct cdc *cdc, const uint64_t *now, const uint64_t *before,
    uint64_t threshold);

struct phte_kernel {
	const char *name;
	int (*possible)(void);	/* can this CPU run it? */
	cdc_scan_fn *scan;
	phte_hits_fn *hits;
	unsigned group;		/* blocks that hits() takes; divides PHTE_BATCH */
};

/* The kernels built for this architecture, fastest first; the last entry has a NULL name. */
extern const struct phte_kernel phte_kernels[];

/* Return the kernel of that name, the fastest for NULL; NULL if this CPU cannot run it. */
const struct phte_kernel *phte_kernel_find(const char *name);

/* Fill in the round keys of ${cdc}.  No branch and no index depends on the key. */
void phte_expand_key(struct cdc *cdc, const uint8_t aes_key[CDC_AES_KEY_BYTES]);

/*
 * Return the first 8 bytes of each of 64 blocks encrypted, as numbers.  Found by halving the
 * threshold of the kernel itself, so that a known-answer test runs the code that cuts.
 */
void phte_encrypt_batch(const struct phte_kernel *kernel, const struct cdc *cdc,
    const uint64_t blocks[2 * PHTE_BATCH], uint64_t encrypted[PHTE_BATCH]);

cdc_scan_fn phte_scan_portable;
phte_hits_fn phte_hits_portable;

#if defined(__x86_64__)
int phte_possible_vaes512(void);
cdc_scan_fn phte_scan_vaes512;
phte_hits_fn phte_hits_vaes512;
int phte_possible_aesni(void);
cdc_scan_fn phte_scan_aesni;
phte_hits_fn phte_hits_aesni;
#elif defined(__aarch64__) && defined(__AARCH64EL__)
#define PHTE_ARM 1
int phte_possible_armv8(void);
cdc_scan_fn phte_scan_armv8;
phte_hits_fn phte_hits_armv8;
#endif

#endif
