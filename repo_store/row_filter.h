/*
 * The filter of a run: may this key be in it?
 *
 * The filter is a blocked Bloom filter: a key picks one block of 64 bytes (a cache line) and PROBES bits in
 * it. A probe that must wait for memory therefore waits once. Keys are outputs of keyed hashes, or start
 * with one, so their own bytes serve as hash; the mixing below is there for the ordinals of frame names,
 * which differ only in their last bytes.
 */

#ifndef ROW_FILTER_H
#define ROW_FILTER_H

#include <stddef.h>
#include <stdint.h>

#define FILTER_BLOCK_BYTES 64
#define PROBES 7
#define KEY_BYTES_MIN 20 /* the filter hashes bytes 8 to 20 */

static inline uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Big-endian, so that comparing the numbers compares the bytes. */
static inline uint64_t prefix64(const uint8_t *at)
{
    uint64_t value = 0;
    for (int i = 0; i < 8; i++)
        value = value << 8 | at[i];
    return value;
}

/* The finaliser of SplitMix64: every bit of the input reaches every bit of the result. */
static inline uint64_t mix(uint64_t value)
{
    value = (value ^ value >> 30) * 0xbf58476d1ce4e5b9u;
    value = (value ^ value >> 27) * 0x94d049bb133111ebu;
    return value ^ value >> 31;
}

static inline uint64_t key_hash(const uint8_t *key)
{
    return prefix64(key + 8) ^ (uint64_t)load32(key + 16) * 0x9e3779b97f4a7c15u;
}

/* The block of ${key}: the upper half of a hash, scaled to the number of blocks without a division. */
static inline size_t block_of(uint64_t hash, size_t blocks)
{
    return (size_t)((mix(hash) >> 32) * (uint64_t)blocks >> 32);
}

static inline void filter_set(uint8_t *block, uint64_t bits)
{
    for (int i = 0; i < PROBES; i++, bits >>= 9)
        block[(bits & 511) >> 3] |= (uint8_t)(1u << (bits & 7));
}

static inline int filter_test(const uint8_t *block, uint64_t bits)
{
    for (int i = 0; i < PROBES; i++, bits >>= 9)
        if (!(block[(bits & 511) >> 3] & 1u << (bits & 7)))
            return 0;
    return 1;
}

static inline uint64_t filter_bits(uint64_t hash)
{
    return mix(hash ^ 0x5851f42d4c957f2du);
}

/* Return whether a filter of ${bytes} may hold the hash; 0 for an empty one. */
static inline int filter_may_hold(const uint8_t *filter, size_t bytes, uint64_t hash, uint64_t bits)
{
    size_t blocks = bytes / FILTER_BLOCK_BYTES;
    return blocks > 0 && filter_test(filter + block_of(hash, blocks) * FILTER_BLOCK_BYTES, bits);
}

#endif
