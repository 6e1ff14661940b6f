/*
 * The lanes of _hashes.c: one step of BLAKE3 on LANES blocks at once. Included once for each width and target:
 *
 *     LANES      blocks at once: as many 32-bit words as a vector register of the target holds
 *     HASH_JOBS  the name of the function that this becomes
 *     TARGET     the attribute that lets the compiler use the target's instructions
 *
 * The state is held across the lanes: vector i holds word i of every lane. So the rounds are the scalar ones,
 * word for word, and no lane ever meets another.
 */

#define JOIN_(a, b) a##b
#define JOIN(a, b) JOIN_(a, b)
#define VECTOR JOIN(vector_, LANES)

typedef uint32_t VECTOR __attribute__((vector_size(4 * LANES)));

#define ROTATE(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define MIX(a, b, c, d, x, y)                                                                                          \
    do {                                                                                                               \
        v[a] += v[b] + m[x];                                                                                           \
        v[d] = ROTATE(v[d] ^ v[a], 16);                                                                                \
        v[c] += v[d];                                                                                                  \
        v[b] = ROTATE(v[b] ^ v[c], 12);                                                                                \
        v[a] += v[b] + m[y];                                                                                           \
        v[d] = ROTATE(v[d] ^ v[a], 8);                                                                                 \
        v[c] += v[d];                                                                                                  \
        v[b] = ROTATE(v[b] ^ v[c], 7);                                                                                 \
    } while (0)

/* Take ${job} into lane ${i}: its chaining value is the key again. */
TARGET static void JOIN(HASH_JOBS, _load)(struct lane *lane, const struct job *job, const uint32_t *key,
                                          VECTOR *chain, int i)
{
    *lane = (struct lane){job, 0};
    for (int word = 0; word < 8; word++)
        chain[word][i] = key[word];
}

/* Do all of ${jobs}. A lane that is done with one takes the next, so blocks of long and short ones fill the lanes. */
TARGET static void HASH_JOBS(const uint32_t *key, const struct job *jobs, size_t count)
{
    static const uint8_t no_block[BLOCK_BYTES];
    struct lane lanes[LANES];
    VECTOR chain[8], m[16], v[16];
    uint32_t words[4][LANES] __attribute__((aligned(4 * LANES)));
    uint32_t message[16][LANES] __attribute__((aligned(4 * LANES)));
    size_t next = 0, busy = 0;
    for (int i = 0; i < LANES; i++) {
        lanes[i].job = NULL;
        if (next < count) {
            JOIN(HASH_JOBS, _load)(&lanes[i], &jobs[next++], key, chain, i);
            busy++;
        }
    }
    while (busy > 0) {
        for (int i = 0; i < LANES; i++) {
            struct block block = {no_block, 0, 0, 0};
            if (lanes[i].job != NULL)
                block = block_of(&lanes[i]);
            uint8_t padded[BLOCK_BYTES];
            const uint8_t *data = block.data;
            if (block.bytes < BLOCK_BYTES) {
                memset(padded, 0, sizeof padded);
                memcpy(padded, data, block.bytes);
                data = padded;
            }
            for (int word = 0; word < 16; word++)
                message[word][i] = load32(data + 4 * word);
            words[0][i] = (uint32_t)block.counter;
            words[1][i] = (uint32_t)(block.counter >> 32);
            words[2][i] = block.bytes;
            words[3][i] = block.flags;
        }
        memcpy(m, message, sizeof m);
        memcpy(v, chain, sizeof chain);
        for (int word = 0; word < 4; word++)
            v[8 + word] = (VECTOR){0} + IV[word];
        memcpy(v + 12, words, sizeof words);
        for (int round = 0; round < ROUNDS; round++) {
            const uint8_t *s = SCHEDULE[round];
            MIX(0, 4, 8, 12, s[0], s[1]);
            MIX(1, 5, 9, 13, s[2], s[3]);
            MIX(2, 6, 10, 14, s[4], s[5]);
            MIX(3, 7, 11, 15, s[6], s[7]);
            MIX(0, 5, 10, 15, s[8], s[9]);
            MIX(1, 6, 11, 12, s[10], s[11]);
            MIX(2, 7, 8, 13, s[12], s[13]);
            MIX(3, 4, 9, 14, s[14], s[15]);
        }
        for (int word = 0; word < 8; word++)
            chain[word] = v[word] ^ v[word + 8];
        for (int i = 0; i < LANES; i++) {
            if (lanes[i].job == NULL || !advance(&lanes[i]))
                continue;
            for (int word = 0; word < 8; word++)
                store32(lanes[i].job->out + 4 * word, chain[word][i]);
            lanes[i].job = NULL;
            busy--;
            if (next < count) {
                JOIN(HASH_JOBS, _load)(&lanes[i], &jobs[next++], key, chain, i);
                busy++;
            }
        }
    }
}

#undef JOIN_
#undef JOIN
#undef VECTOR
#undef ROTATE
#undef MIX
#undef LANES
#undef HASH_JOBS
#undef TARGET
