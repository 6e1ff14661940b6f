/* Keyed BLAKE3 of many short pieces at once, without Python: see many_hashes.c. */

#ifndef MANY_HASHES_H
#define MANY_HASHES_H

#include <stddef.h>
#include <stdint.h>

#define KEY_BYTES 32
#define HASH_BYTES 32

/* Return how many kernels this machine can run: they are numbered from 0, and the last is the fastest. */
int kernels_here(void);

/*
 * Write the keyed hashes of ${count} pieces, which lie one behind the other in ${data}, to ${out}, 32 bytes each.
 * Returns -1 if there is no memory.
 */
int hash_all(const uint8_t *key, int kernel, const uint8_t *data, const uint32_t *lengths, size_t count,
             uint8_t *out);

/* What a sum is taken of: rows of ${row_bytes} whose u32 at ${index_at} stands for a name. */
struct sum_of {
    const uint8_t *rows, *names;
    size_t count, row_bytes, index_at, name_bytes, names_count;
    uint8_t section;
};

/*
 * Add the keyed hashes of ${section} || row to ${sum}, little-endian and modulo 2^256, where each row has the name
 * that its u32 stands for in its place. Returns -1 if there is no memory, -2 if a row has a number without a name.
 */
int sum_all(const uint8_t *key, int kernel, const struct sum_of *of, uint8_t *sum);

#endif
