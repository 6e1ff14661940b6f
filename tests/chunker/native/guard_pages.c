/*
 * Every kernel on buffers that touch forbidden pages at both ends, compared with one another.
 *
 * Method: map three pages' worth of room, forbid the first and the last page, and lay each input
 * once flush against the front and once flush against the back.  One byte read before or after
 * the input dies here on any build; the sanitizers watch the rest.  Each input is cut whole, in
 * pieces and with every kernel, and all answers must be the same.
 *
 * Run by the Makefile beside this file.  Knows no Python: only the algorithm files are linked.
 */
#define _DEFAULT_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "cdc.h"
#include "phte.h"

enum { ROOM = 1 << 16, CUTS_MAX = ROOM + 2, CONTEXTS_MAX = 8 };

struct room {
	uint8_t *start;	/* ROOM bytes, with a forbidden page on either side */
};

struct answer {
	uint64_t cuts[CUTS_MAX];
	size_t count;
};

static uint64_t seed = 1;

static uint8_t
random_byte(void)
{
	seed = seed * 6364136223846793005u + 1442695040888963407u;
	return ((uint8_t)(seed >> 56));
}

static void
fail(const char *what, size_t size)
{
	fprintf(stderr, "guard_pages: %s, input of %zu bytes\n", what, size);
	exit(1);
}

static struct room
make_room(void)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	uint8_t *all = mmap(NULL, ROOM + 2 * page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (all == MAP_FAILED || mprotect(all + page, ROOM, PROT_READ | PROT_WRITE) != 0)
		fail("no memory", 0);
	return ((struct room){ all + page });
}

/* Cut ${data}, fed in pieces of ${piece} bytes, with room for ${capacity} cuts a call. */
static void
cut(const struct cdc *cdc, const uint8_t *data, size_t size, size_t piece, size_t capacity,
    struct answer *answer)
{
	struct cdc_state state = { 0 };

	answer->count = 0;
	for (size_t at = 0; at < size;) {
		size_t part = size - at < piece ? size - at : piece, consumed;

		answer->count += cdc_feed(cdc, &state, data + at, part,
		    answer->cuts + answer->count, capacity, &consumed);
		at += consumed;
	}
	answer->count += cdc_end(&state, answer->cuts + answer->count);
}

static int
same(const struct answer *a, const struct answer *b)
{
	return (a->count == b->count &&
	    memcmp(a->cuts, b->cuts, a->count * sizeof(a->cuts[0])) == 0);
}

/*
 * Cut one input at both ends of the room, whole and in pieces.  All must give ${expected}, which is
 * set by the first if it holds nothing yet.  Return the number of chunks.
 */
static size_t
try_input(struct room room, const struct cdc *cdc, const uint8_t *input, size_t size,
    struct answer *expected)
{
	/* A piece costs a warm-up of 64 bytes: bytes one by one are for small inputs. */
	const size_t pieces[] = { ROOM, size < 700 ? 1 : 4097, size < 700 ? 33 : 1000, 127 };
	static struct answer answer;

	for (int back = 0; back < 2; back++) {
		uint8_t *data = room.start + (back ? ROOM - size : 0);

		memcpy(data, input, size);
		for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
			cut(cdc, data, size, pieces[i], pieces[i] == ROOM ? CUTS_MAX - 1 : 1, &answer);
			if (expected->count == 0)
				*expected = answer;
			if (!same(&answer, expected))
				fail("kernels, places or pieces differ", size);
		}
	}
	return (answer.count);
}

static void
fill(uint8_t *input, size_t size, int shape)
{
	for (size_t i = 0; i < size; i++) {
		if (shape == 0)
			input[i] = random_byte();
		else if (shape == 1)
			input[i] = 0xff;
		else
			input[i] = (uint8_t)(i % (size_t)shape < 2 ? i % (size_t)shape : random_byte() & 1);
	}
}

/*
 * Small sizes one by one, then doubling ones; between them those at which gear's two lanes of 4096
 * places, begun at place 64, end just at the last byte: a lane too far reads one byte outside.
 */
static size_t
next_size(size_t size)
{
	if (size < 330)
		return (size + 1 + size / 140);
	if (size < 8253)
		return (8253);
	return (size < 8258 ? size + 1 : size + size / 2);
}

/* A context for gear and for each kernel of phte; return how many. */
static size_t
make_contexts(struct cdc *contexts, const char **names, uint64_t min, uint64_t avg, uint64_t max)
{
	uint8_t table[CDC_TABLE_BYTES], aes_key[CDC_AES_KEY_BYTES];
	size_t count = 1;

	seed = 42;
	for (size_t i = 0; i < sizeof(table); i++)
		table[i] = random_byte();
	for (size_t i = 0; i < sizeof(aes_key); i++)
		aes_key[i] = random_byte();
	names[0] = "gear64";
	if (cdc_init_gear(&contexts[0], min, avg, max, table) != NULL)
		fail("gear64 refused", 0);
	for (const struct phte_kernel *k = phte_kernels; k->name != NULL; k++) {
		if (!k->possible())
			continue;
		names[count] = k->name;
		if (cdc_init_phte(&contexts[count++], min, avg, max, table, aes_key, k->name) != NULL)
			fail("phte64 refused", 0);
	}
	return (count);
}

/* FIPS-197, appendix C.1, with the kernels that this CPU has. */
static void
known_answers(void)
{
	uint64_t blocks[2 * PHTE_BATCH], encrypted[PHTE_BATCH];
	uint8_t aes_key[CDC_AES_KEY_BYTES];
	struct cdc cdc;

	for (uint8_t i = 0; i < CDC_AES_KEY_BYTES; i++)
		aes_key[i] = i;
	phte_expand_key(&cdc, aes_key);
	for (size_t i = 0; i < PHTE_BATCH; i++) {
		blocks[2 * i] = 0x7766554433221100;
		blocks[2 * i + 1] = 0xffeeddccbbaa9988;
	}
	for (const struct phte_kernel *k = phte_kernels; k->name != NULL; k++) {
		if (!k->possible())
			continue;
		phte_encrypt_batch(k, &cdc, blocks, encrypted);
		for (size_t i = 0; i < PHTE_BATCH; i++) {
			if (encrypted[i] != 0x30047b6ad8e0c469)
				fail(k->name, i);
		}
	}
}

int
main(void)
{
	static const uint64_t sizes[][3] = {
		{ 64, 256, 1024 }, { 65, 256, 257 }, { 256, 256, 256 }, { 64, 16384, 60000 },
	};
	static uint8_t input[ROOM];
	static struct answer phte, gear;
	struct room room = make_room();
	size_t inputs = 0, chunks = 0;

	known_answers();
	for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
		struct cdc contexts[CONTEXTS_MAX];
		const char *names[CONTEXTS_MAX];
		size_t count = make_contexts(contexts, names, sizes[s][0], sizes[s][1], sizes[s][2]);

		for (size_t size = 0; size <= ROOM; size = next_size(size)) {
			for (int shape = 0; shape < 4; shape++) {
				fill(input, size, shape);
				phte.count = gear.count = 0;
				chunks += try_input(room, &contexts[0], input, size, &gear);
				for (size_t c = 1; c < count; c++, inputs++)
					chunks += try_input(room, &contexts[c], input, size, &phte);
			}
		}
		if (s == 0) {
			for (size_t c = 0; c < count; c++)
				printf("guard_pages: %s\n", names[c]);
		}
	}
	printf("guard_pages: %zu inputs, %zu chunks, all alike\n", inputs, chunks);
	return (0);
}
