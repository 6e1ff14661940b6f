/*
 * Keyed BLAKE3 of many short pieces at once: ids of small chunks, cuts of trees, sums of rows.
 *
 * The blake3 package hashes one piece in a call, under the interpreter lock, and on one core a piece of up to 1 KiB
 * cannot use vectors. Here the blocks of many pieces are hashed side by side, one in each lane of the vector
 * registers, without the lock. The function is that of the BLAKE3 paper, section 2, and nothing of it is decided here: tests
 * hold it to the package, and repo_store/chunk_ids.py does so once more before it is used for the first time.
 *
 *     piece   up to 1 KiB blocks chained to one value: a leaf       more: leaves of 1 KiB, and pairs of values
 *             hashed to one above them, until one is left            a job: one leaf, or one pair
 */

#include "many_hashes.h"

#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES 64
#define LEAF_BYTES 1024
#define ROUNDS 7
#define PIECES_AT_ONCE 1024

enum flag { CHUNK_START = 1, CHUNK_END = 2, PARENT = 4, ROOT = 8, KEYED = 16 };

static const uint32_t IV[4] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a};

/* The order of the message words in each round: the permutation of the paper, applied again and again. */
static const uint8_t SCHEDULE[ROUNDS][16] = {
    {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15},
    {2, 6, 3, 10, 7, 0, 4, 13, 1, 11, 12, 5, 9, 14, 15, 8},
    {3, 4, 10, 12, 13, 2, 7, 14, 6, 5, 9, 0, 11, 15, 8, 1},
    {10, 7, 12, 9, 14, 3, 13, 15, 4, 0, 11, 2, 5, 8, 1, 6},
    {12, 13, 9, 11, 15, 10, 14, 8, 7, 2, 5, 3, 0, 1, 6, 4},
    {9, 14, 11, 5, 8, 12, 15, 1, 13, 3, 0, 10, 2, 6, 4, 7},
    {11, 15, 5, 0, 1, 9, 8, 6, 14, 10, 2, 12, 3, 4, 7, 13},
};

/* One leaf, or one pair of values. ${first} stands on its first block, ${last} on its last, beside KEYED. */
struct job {
    const uint8_t *data;
    uint8_t *out;
    uint64_t counter;
    uint32_t bytes;
    uint8_t first, last, every;
};

struct lane {
    const struct job *job;
    uint32_t at;
};

struct block {
    const uint8_t *data;
    uint64_t counter;
    uint32_t bytes, flags;
};

static uint32_t load32(const uint8_t *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

static void store32(uint8_t *at, uint32_t value)
{
    for (int i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> 8 * i);
}

static inline struct block block_of(const struct lane *lane)
{
    const struct job *job = lane->job;
    uint32_t left = job->bytes - lane->at;
    uint32_t flags = job->every;
    if (lane->at == 0)
        flags |= job->first;
    if (left <= BLOCK_BYTES)
        flags |= job->last;
    return (struct block){job->data + lane->at, job->counter, left < BLOCK_BYTES ? left : BLOCK_BYTES, flags};
}

/* Go to the next block; return 1 if that was the last. */
static inline int advance(struct lane *lane)
{
    lane->at += BLOCK_BYTES;
    return lane->at >= lane->job->bytes;
}

#define LANES 4
#define HASH_JOBS hash_jobs_4
#define TARGET
#include "hash_lanes.h"

#if defined(__x86_64__)
#define LANES 8
#define HASH_JOBS hash_jobs_8
#define TARGET __attribute__((target("avx2")))
#include "hash_lanes.h"

#define LANES 16
#define HASH_JOBS hash_jobs_16
#define TARGET __attribute__((target("avx512f")))
#include "hash_lanes.h"
#endif

typedef void hash_jobs_function(const uint32_t *key, const struct job *jobs, size_t count);

static hash_jobs_function *const KERNELS[] = {
    hash_jobs_4,
#if defined(__x86_64__)
    hash_jobs_8,
    hash_jobs_16,
#endif
};

/* How many of KERNELS, which are in the order of their widths, this machine can run. */
int kernels_here(void)
{
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f"))
        return 3;
    return __builtin_cpu_supports("avx2") ? 2 : 1;
#else
    return 1;
#endif
}

/* A run of pieces, one behind the other, and room to hash them. */
struct work {
    hash_jobs_function *hash_jobs;
    uint32_t key[8];
    struct job *jobs;
    uint8_t *values;  /* of the leaves of long pieces, joined */
    size_t *firsts;   /* where those of each long piece begin, */
    size_t *counts;   /* how many are left, */
    uint8_t **outs;   /* and where its hash goes */
    size_t leaves_max, pieces_max;
};

static size_t leaves_of(uint32_t length)
{
    return length == 0 ? 1 : (length + (size_t)LEAF_BYTES - 1) / LEAF_BYTES;
}

static void end_work(struct work *work)
{
    free(work->jobs);
    free(work->values);
    free(work->firsts);
    free(work->counts);
    free(work->outs);
}

/* Returns -1 if there is no memory. */
static int begin_work(struct work *work, const uint8_t *key, int kernel, size_t leaves_max, size_t pieces_max)
{
    *work = (struct work){.hash_jobs = KERNELS[kernel], .leaves_max = leaves_max, .pieces_max = pieces_max};
    for (int i = 0; i < 8; i++)
        work->key[i] = load32(key + 4 * i);
    work->jobs = malloc((leaves_max + 1) * sizeof *work->jobs);
    work->values = malloc((leaves_max + 1) * HASH_BYTES);
    work->firsts = malloc((pieces_max + 1) * sizeof *work->firsts);
    work->counts = malloc((pieces_max + 1) * sizeof *work->counts);
    work->outs = malloc((pieces_max + 1) * sizeof *work->outs);
    if (work->jobs && work->values && work->firsts && work->counts && work->outs)
        return 0;
    end_work(work);
    return -1;
}

/* Hash pairs of values, level by level, until every long piece has one, which goes out. */
static void join_values(struct work *work, size_t longs)
{
    for (size_t jobs = 1; jobs > 0;) {
        jobs = 0;
        for (size_t i = 0; i < longs; i++) {
            uint8_t *values = work->values + work->firsts[i] * HASH_BYTES;
            size_t pairs = work->counts[i] / 2;
            int is_root = work->counts[i] == 2;
            for (size_t pair = 0; pair < pairs; pair++)
                work->jobs[jobs++] = (struct job){
                    .data = values + pair * BLOCK_BYTES,
                    .out = is_root ? work->outs[i] : values + pair * HASH_BYTES, /* never before it was read */
                    .bytes = BLOCK_BYTES,
                    .every = KEYED | PARENT | (is_root ? ROOT : 0),
                };
        }
        work->hash_jobs(work->key, work->jobs, jobs);
        for (size_t i = 0; i < longs; i++) {
            uint8_t *values = work->values + work->firsts[i] * HASH_BYTES;
            size_t count = work->counts[i];
            if (count > 1 && count % 2) /* the last one has no partner at this level */
                memmove(values + count / 2 * HASH_BYTES, values + (count - 1) * HASH_BYTES, HASH_BYTES);
            work->counts[i] = count <= 2 ? 0 : (count + 1) / 2;
        }
    }
}

/* Hash ${count} pieces that lie one behind the other in ${data}, within the bounds that the work was begun with. */
static void hash_pieces(struct work *work, const uint8_t *data, const uint32_t *lengths, size_t count, uint8_t *out)
{
    size_t jobs = 0, longs = 0, values = 0;
    for (size_t i = 0; i < count; data += lengths[i++]) {
        size_t leaves = leaves_of(lengths[i]);
        uint8_t *target = out + i * HASH_BYTES;
        if (leaves > 1) {
            work->firsts[longs] = values;
            work->counts[longs] = leaves;
            work->outs[longs++] = target;
        }
        for (size_t leaf = 0; leaf < leaves; leaf++) {
            uint32_t left = lengths[i] - (uint32_t)(leaf * LEAF_BYTES);
            work->jobs[jobs++] = (struct job){
                .data = data + leaf * LEAF_BYTES,
                .out = leaves > 1 ? work->values + values++ * HASH_BYTES : target,
                .counter = leaf,
                .bytes = left < LEAF_BYTES ? left : LEAF_BYTES,
                .first = CHUNK_START,
                .last = leaves > 1 ? CHUNK_END : CHUNK_END | ROOT,
                .every = KEYED,
            };
        }
    }
    work->hash_jobs(work->key, work->jobs, jobs);
    join_values(work, longs);
}

/* Hash any number of pieces, some at a time. Returns -1 if there is no memory. */
int hash_all(const uint8_t *key, int kernel, const uint8_t *data, const uint32_t *lengths, size_t count,
                    uint8_t *out)
{
    size_t leaves_max = PIECES_AT_ONCE;
    struct work work;
    for (size_t i = 0; i < count; i++)
        if (leaves_of(lengths[i]) > leaves_max)
            leaves_max = leaves_of(lengths[i]);
    if (begin_work(&work, key, kernel, leaves_max, PIECES_AT_ONCE) != 0)
        return -1;
    for (size_t start = 0, end; start < count; start = end) {
        size_t leaves = 0, bytes = 0;
        for (end = start; end < count && end - start < PIECES_AT_ONCE; end++) {
            if (leaves + leaves_of(lengths[end]) > leaves_max)
                break;
            leaves += leaves_of(lengths[end]);
            bytes += lengths[end];
        }
        hash_pieces(&work, data, lengths + start, end - start, out + start * HASH_BYTES);
        data += bytes;
    }
    end_work(&work);
    return 0;
}

/* Add a number of 256 bits, little-endian, to ${sum}, modulo 2^256. */
static void add_256(uint8_t *sum, const uint8_t *number)
{
    unsigned carry = 0;
    for (int i = 0; i < HASH_BYTES; i++) {
        carry += (unsigned)sum[i] + number[i];
        sum[i] = (uint8_t)carry;
        carry >>= 8;
    }
}

/* Returns -1 if there is no memory, -2 if a row has an index without a name. */
int sum_all(const uint8_t *key, int kernel, const struct sum_of *of, uint8_t *sum)
{
    size_t full_bytes = 1 + of->row_bytes - 4 + of->name_bytes;
    uint8_t *full = malloc(PIECES_AT_ONCE * full_bytes), *out = malloc(PIECES_AT_ONCE * HASH_BYTES);
    uint32_t *lengths = malloc(PIECES_AT_ONCE * sizeof *lengths);
    struct work work;
    int result = full && out && lengths ? 0 : -1;
    if (result == 0)
        result = begin_work(&work, key, kernel, PIECES_AT_ONCE, PIECES_AT_ONCE);
    if (result == 0) {
        for (size_t start = 0; start < of->count && result == 0; start += PIECES_AT_ONCE) {
            size_t count = of->count - start < PIECES_AT_ONCE ? of->count - start : PIECES_AT_ONCE;
            for (size_t i = 0; i < count; i++) {
                const uint8_t *row = of->rows + (start + i) * of->row_bytes;
                uint8_t *target = full + i * full_bytes;
                uint32_t index = load32(row + of->index_at);
                if (index >= of->names_count) {
                    result = -2;
                    break;
                }
                *target++ = of->section;
                memcpy(target, row, of->index_at);
                target += of->index_at;
                memcpy(target, of->names + index * of->name_bytes, of->name_bytes);
                memcpy(target + of->name_bytes, row + of->index_at + 4, of->row_bytes - of->index_at - 4);
                lengths[i] = (uint32_t)full_bytes;
            }
            if (result == 0)
                hash_pieces(&work, full, lengths, count, out);
            for (size_t i = 0; i < count && result == 0; i++)
                add_256(sum, out + i * HASH_BYTES);
        }
        end_work(&work);
    }
    free(full);
    free(out);
    free(lengths);
    return result;
}
