/*
 * The rule of the cuts: where a hash may decide, and where a limit does.
 *
 * Every algorithm shares this file and brings a scan() of its own (gear.c, phte.c).  fixed needs
 * none: with size_min = size_avg = size_max there is no place where a hash could decide.
 */
#include "cdc.h"

#include <assert.h>
#include <string.h>

#include "gear.h"
#include "phte.h"

void
cdc_wipe(void *secret, size_t size)
{
	memset(secret, 0, size);
	/* Claims to read the memory, so the memset above is not dead. */
	__asm__ volatile("" : : "r"(secret) : "memory");
}

static uint64_t
load_le64(const uint8_t *bytes)
{
	uint64_t word = 0;

	for (int i = 7; i >= 0; i--)
		word = word << 8 | bytes[i];
	return (word);
}

/* Set what gear and phte have in common.  The limits are why nothing below can overflow. */
static const char *
init_hashed(struct cdc *cdc, uint64_t size_min, uint64_t size_avg, uint64_t size_max,
    const uint8_t table[CDC_TABLE_BYTES])
{
	unsigned lg_avg = 0;

	if (size_min < CDC_SIZE_MIN_FLOOR)
		return ("size_min is below the hash window of 64 bytes");
	if (size_avg < CDC_SIZE_AVG_FLOOR || (size_avg & (size_avg - 1)) != 0)
		return ("size_avg is not a power of two of at least 256");
	if (size_min > size_avg || size_avg > size_max)
		return ("sizes are not in the order size_min <= size_avg <= size_max");
	if (size_max > CDC_SIZE_MAX_CEILING)
		return ("size_max is above the limit of 16 MiB");
	memset(cdc, 0, sizeof(*cdc));
	while (size_avg >> lg_avg != 1)
		lg_avg++;
	cdc->size_min = size_min;
	cdc->size_avg = size_avg;
	cdc->size_max = size_max;
	cdc->strict = UINT64_MAX >> (lg_avg + 2);
	cdc->loose = UINT64_MAX >> (lg_avg - 2);
	for (size_t i = 0; i < 256; i++)
		cdc->table[i] = load_le64(table + 8 * i);
	return (NULL);
}

const char *
cdc_init_fixed(struct cdc *cdc, uint64_t size, uint64_t phase)
{
	if (size == 0 || size > CDC_SIZE_MAX_CEILING)
		return ("size is not between 1 byte and 16 MiB");
	if (phase >= size)
		return ("phase is not below size");
	memset(cdc, 0, sizeof(*cdc));
	cdc->size_min = cdc->size_avg = cdc->size_max = size;
	cdc->phase = phase;
	cdc->kernel = "portable";
	return (NULL);
}

const char *
cdc_init_gear(struct cdc *cdc, uint64_t size_min, uint64_t size_avg, uint64_t size_max,
    const uint8_t table[CDC_TABLE_BYTES])
{
	const char *wrong = init_hashed(cdc, size_min, size_avg, size_max, table);

	if (wrong != NULL)
		return (wrong);
	cdc->scan = gear_scan;
	cdc->kernel = "portable";
	return (NULL);
}

const char *
cdc_init_phte(struct cdc *cdc, uint64_t size_min, uint64_t size_avg, uint64_t size_max,
    const uint8_t table[CDC_TABLE_BYTES], const uint8_t aes_key[CDC_AES_KEY_BYTES],
    const char *kernel)
{
	const struct phte_kernel *chosen = phte_kernel_find(kernel);
	const char *wrong = init_hashed(cdc, size_min, size_avg, size_max, table);

	if (wrong != NULL)
		return (wrong);
	if (chosen == NULL)
		return ("this CPU cannot run the kernel");
	cdc->scan = chosen->scan;
	cdc->kernel = chosen->name;
	phte_expand_key(cdc, aes_key);
	return (NULL);
}

/*
 * As scan(), for offsets relative to data[0] whose windows may begin in the bytes fed before:
 * windows that straddle the two are scanned in a scratch copy of at most 64 + 63 bytes.
 */
static size_t
scan_across(const struct cdc *cdc, const struct cdc_state *state, const uint8_t *data,
    size_t first, size_t end, uint64_t threshold)
{
	if (first < CDC_WINDOW) {
		uint8_t joined[2 * CDC_WINDOW];
		size_t near_end = end < CDC_WINDOW ? end : CDC_WINDOW;
		size_t found;

		memcpy(joined, state->tail, CDC_WINDOW);
		memcpy(joined + CDC_WINDOW, data, near_end - 1);
		found = cdc->scan(cdc, joined, CDC_WINDOW + first, CDC_WINDOW + near_end, threshold);
		if (found < CDC_WINDOW + near_end)
			return (found - CDC_WINDOW);
		first = CDC_WINDOW;
	}
	if (first >= end)
		return (end);
	return (cdc->scan(cdc, data, first, end, threshold));
}

static uint64_t
least(uint64_t a, uint64_t b)
{
	return (a < b ? a : b);
}

/*
 * Return the offset in ${data} of the next cut, in 1..size, or 0 if the chunk goes on.
 * Places up to state->total were judged by earlier feeds; the first one here is total + 1.
 */
static size_t
next_cut(const struct cdc *cdc, const struct cdc_state *state, const uint8_t *data, size_t size)
{
	uint64_t since = state->total - state->cut;
	uint64_t whole = state->cut == 0 && cdc->phase != 0 ? cdc->phase : cdc->size_max;
	uint64_t limit = whole - since;	/* where the longest chunk would end */
	uint64_t end = least(limit, (uint64_t)size + 1);
	uint64_t first = cdc->size_min > since ? cdc->size_min - since : 1;
	uint64_t turn = cdc->size_avg > since ? cdc->size_avg - since : 1;
	uint64_t strict_end = least(turn, end);
	size_t found;

	assert(since < whole);
	if (first < strict_end) {
		found = scan_across(cdc, state, data, (size_t)first, (size_t)strict_end, cdc->strict);
		if (found < strict_end)
			return (found);
	}
	if (turn < end) {
		found = scan_across(cdc, state, data, (size_t)turn, (size_t)end, cdc->loose);
		if (found < end)
			return (found);
	}
	return (limit <= size ? (size_t)limit : 0);
}

/* Move the stream ${size} bytes on. */
static void
advance(struct cdc_state *state, const uint8_t *data, size_t size)
{
	state->total += size;
	if (size >= CDC_WINDOW) {
		memcpy(state->tail, data + size - CDC_WINDOW, CDC_WINDOW);
	} else if (size > 0) {
		memmove(state->tail, state->tail + size, CDC_WINDOW - size);
		memcpy(state->tail + CDC_WINDOW - size, data, size);
	}
}

size_t
cdc_feed(const struct cdc *cdc, struct cdc_state *state, const uint8_t *data, size_t size,
    uint64_t *cuts, size_t capacity, size_t *consumed)
{
	size_t count = 0, at = 0;

	assert(state->total <= UINT64_MAX - size);
	while (at < size && count < capacity) {
		size_t length = next_cut(cdc, state, data + at, size - at);
		size_t step = length != 0 ? length : size - at;

		assert(step > 0 && step <= size - at);
		advance(state, data + at, step);
		at += step;
		if (length != 0)
			cuts[count++] = state->cut = state->total;
	}
	*consumed = at;
	return (count);
}

size_t
cdc_end(const struct cdc_state *state, uint64_t *cut)
{
	if (state->total == state->cut)
		return (0);
	*cut = state->total;
	return (1);
}
