/*
 * Content-defined chunking: bytes in, cut offsets out.
 *
 * The law.  Candidate n of a chunk is the place after its first n bytes.  The chunk ends at the
 * smallest n with size_min <= n < size_max at which the hash of the 64 bytes before n is at or
 * below a threshold, else at n = size_max, else at the end of the stream.  The threshold is
 * strict for n < size_avg and loose from there on, which narrows the spread of lengths
 * (normalised chunking, level 2):
 *
 *     strict = (2^64 - 1) >> (lg size_avg + 2)      loose = (2^64 - 1) >> (lg size_avg - 2)
 *
 * The hash looks at exactly the last 64 bytes of the stream and is never reset by a cut.  That
 * purity is what lets two lanes run ahead of each other, what makes a cut independent of how the
 * stream was split into feeds, and why an insertion moves only the cuts next to it.
 *
 * chunker/reference.py is the definition; tests/vectors/chunking/ holds its golden vectors.
 * Repositories depend on it: the same bytes must be cut at the same places for ever.
 *
 * These files know no Python, allocate nothing and keep no state of their own, so that they can
 * be fuzzed and sanitised alone (tests/chunker/native).  All arithmetic is on numbers, never on
 * the host's byte order; where a kernel's vector loads need a little-endian host, it says so.
 */
#ifndef HOLDFAST_CDC_H
#define HOLDFAST_CDC_H

#include <stddef.h>
#include <stdint.h>

enum {
	CDC_WINDOW = 64,	/* bytes the hash looks at */
	CDC_TABLE_BYTES = 2048,	/* 256 words of 64 bits, little-endian */
	CDC_AES_KEY_BYTES = 16,
	CDC_AES_ROUNDS = 10,
};

/* Limits of the parameters, the same as in chunker/parameters.py. */
#define CDC_SIZE_MIN_FLOOR ((uint64_t)CDC_WINDOW)
#define CDC_SIZE_AVG_FLOOR ((uint64_t)256)
#define CDC_SIZE_MAX_CEILING ((uint64_t)1 << 24)

/* As stored in manifests: never renumber.  3 is phte96, reserved: no code may give it a meaning. */
enum cdc_algorithm { CDC_FIXED = 0, CDC_GEAR64 = 1, CDC_PHTE64 = 2 };

struct cdc;

/*
 * scan(cdc, data, first, end, threshold):
 * Return the smallest e with first <= e < end for which the hash of data[e - 64 .. e) is at or
 * below ${threshold}, or ${end} if there is none.  Needs first >= 64 and reads nothing outside
 * data[first - 64 .. end - 1).
 */
typedef size_t cdc_scan_fn(const struct cdc *cdc, const uint8_t *data, size_t first, size_t end,
    uint64_t threshold);

/* A context: immutable once made, so any number of threads may share it.  Holds secrets. */
struct cdc {
	uint64_t size_min, size_avg, size_max;
	uint64_t phase;		/* fixed only: length of the first chunk, 0 for a whole one */
	uint64_t strict, loose;
	cdc_scan_fn *scan;
	const char *kernel;	/* static text */
	uint64_t table[256];
	uint8_t round_keys[CDC_AES_ROUNDS + 1][16];
};

/* Where a stream stands.  Plain data: copying it forks the stream.  Starts as all zeros. */
struct cdc_state {
	uint64_t total;		/* bytes fed */
	uint64_t cut;		/* offset of the last cut */
	uint8_t tail[CDC_WINDOW];	/* the last bytes fed; zeros before the stream began */
};

/*
 * cdc_init_fixed(cdc, size, phase), cdc_init_gear(cdc, ...), cdc_init_phte(cdc, ..., kernel):
 * Make ${cdc} a context.  Return NULL, or a static text that says what is wrong with the
 * arguments.  ${kernel} NULL takes the fastest that this CPU can run.
 */
const char *cdc_init_fixed(struct cdc *cdc, uint64_t size, uint64_t phase);
const char *cdc_init_gear(struct cdc *cdc, uint64_t size_min, uint64_t size_avg,
    uint64_t size_max, const uint8_t table[CDC_TABLE_BYTES]);
const char *cdc_init_phte(struct cdc *cdc, uint64_t size_min, uint64_t size_avg,
    uint64_t size_max, const uint8_t table[CDC_TABLE_BYTES],
    const uint8_t aes_key[CDC_AES_KEY_BYTES], const char *kernel);

/* Overwrite secrets in a way that the compiler cannot leave out. */
void cdc_wipe(void *secret, size_t size);

/*
 * cdc_feed(cdc, state, data, size, cuts, capacity, &consumed):
 * Feed ${size} bytes; write the absolute offsets of the cuts found to ${cuts} and return their
 * number.  ${consumed} is less than ${size} only if ${cuts} is full: feed the rest again.
 */
size_t cdc_feed(const struct cdc *cdc, struct cdc_state *state, const uint8_t *data, size_t size,
    uint64_t *cuts, size_t capacity, size_t *consumed);

/* End the stream: return 1 and write its length to ${cut} if bytes follow the last cut, else 0. */
size_t cdc_end(const struct cdc_state *state, uint64_t *cut);

#endif
