/* Neighbours added and features pooled, word after word, and the gradient: what PhraseConv and FeaturePool do in torch.

   The phrase that starts with a token takes that token's row: share 0 of its word, plus share 1 of the next token's
   word, and so on, plus the bias; of each group of `pool` neighbouring features the largest stays. Of equal ones it is
   the first, and of numbers and NaNs a NaN.

   Shares are given, or they are the products of words' vectors with the weights. Then those of a few words at a time
   are made in the first cache, and read there; they never lie in memory. In the backward pass one feature of each group
   has a gradient, so that the weights' is summed over the phrases that chose a feature: a `pool`th of the whole product. */

#include "phrases.h"

#pragma GCC optimize("O3") /* loops over features become vectors */
#define AT_ONCE PHRASES_AT_ONCE
#define A_TILE 76          /* numbers of a weight, a multiple of PIECE: those of 64 columns stay in the first cache */
#define SIDE_BY_SIDE 5     /* vectors of a gradient that are summed together */

INLINE int64_t columns_of(const PhrasesJob *job) { return job->kernel_positions * job->filters; }

/* Weights "columns width" by vectors of columns, of which four, then two, then one go together; `depth` numbers of each,
   from one on. */
INLINE void pack_some(REAL *to, const REAL *weight, int64_t columns, int64_t width, int64_t depth) {
    const int64_t blocks = blocks_of(columns);
    for (int64_t block = 0, here; block < blocks; block += here) {
        here = together(blocks - block);
        for (int64_t b = 0; b < here; b++) {
            const int64_t column = (block + b) * LANES;
            turn(to + b * LANES, here * LANES, weight + column * width, width, least(LANES, columns - column), depth);
        }
        to += depth * here * LANES;
    }
}

void NAME(phrases_pack)(REAL *to, const REAL *weight, int64_t columns, int64_t width) {
    pack_some(to, weight, columns, width, width);
}

/* Ids that are wrong are noted, and read as 0. */
INLINE int64_t word_of(PhrasesJob *job, int64_t token) {
    const int64_t word = job->ids ? job->ids[token] : token;
    if (word >= 0 && word < job->words) return word;
    job->wrong = 1;
    return 0;
}

/* Of n words, this number of vectors of their shares, from one on; `depth` numbers of each word, from `k` on, by weights
   that were packed. */
static void shares_forward(PhrasesJob *job, int64_t word, REAL *to, int64_t vector, int n, int vectors,
                           Products *products, const REAL *packed, int64_t k, int64_t depth) {
    const int64_t stride = blocks_of(columns_of(job)) * LANES;
    const REAL *x[ROWS];
    V sum[ROWS][4];
    for (int r = 0; r < n; r++) {
        x[r] = job->vectors + word_of(job, word + r) * job->width + k;
        for (int v = 0; v < vectors; v++) sum[r][v] = k ? load(to + r * stride + (vector + v) * LANES) : all(0);
    }
    products(sum, x, depth, x, 0, packed + vector * depth * LANES);
    for (int r = 0; r < n; r++)
        for (int v = 0; v < vectors; v++) store(to + r * stride + (vector + v) * LANES, sum[r][v]);
}

static void multiply_some(PhrasesJob *job, int64_t word, int n, REAL *to, const REAL *packed, int64_t k, int64_t depth) {
    const int64_t blocks = blocks_of(columns_of(job)), stride = blocks * LANES;
#define SHARES(first, count, vectors)                                                                                  \
    shares_forward(job, word + (first), to + (first)*stride, vector, count, vectors, products_##count##_##vectors,     \
                   packed, k, depth)
#define SHARES_4(first, count) SHARES(first, count, 4)
#define SHARES_2(first, count) SHARES(first, count, 2)
#define SHARES_1(first, count) SHARES(first, count, 1)
    VECTORS(blocks, SHARES)
}

/* Sums in the order of the numbers of a word, whether weights are packed before, or a tile of them at a time here. */
static void multiply(PhrasesJob *job, int64_t word, int n, REAL *to) {
    if (job->packed) {
        multiply_some(job, word, n, to, job->packed, 0, job->width);
        return;
    }
    const int64_t columns = columns_of(job);
    REAL *tile = room(least(A_TILE, job->width) * blocks_of(columns) * LANES);
    for (int64_t k = 0; k < job->width; k += A_TILE) {
        const int64_t depth = least(A_TILE, job->width - k);
        pack_some(tile, job->weight + k, columns, job->width, depth);
        multiply_some(job, word, n, to, tile, k, depth);
    }
    leave(tile);
}

/* The shares of all words by themselves, as `rows_forward` makes them of each sentence: the same sums, the same bits. */
BY_THREADS(phrases_shares) {
    PhrasesJob *job = shared;
    const int64_t columns = columns_of(job), stride = blocks_of(columns) * LANES;
    REAL *near = room(AT_ONCE * stride);
    for (int64_t part; (part = take(&job->next)) < job->parts;) {
        const int64_t first = part * AT_ONCE, count = least(AT_ONCE, job->rows - first);
        multiply(job, first, count, near);
        for (int64_t row = 0; row < count; row++)
            memcpy(job->g_shares + (first + row) * columns, near + row * stride, columns * sizeof(REAL));
    }
    leave(near);
}

int64_t NAME(shares_of_words)(const WordsJob *given) {
    Parallel *parallel = given->parallel;
    const int64_t columns = given->kernel_positions * given->filters, parts = up(given->count, AT_ONCE);
    REAL *packed = room(most(1, given->width * blocks_of(columns) * LANES));
    if (!packed) return NO_MEMORY;
    NAME(phrases_pack)(packed, given->weight, columns, given->width);
    PhrasesJob job = {
        .vectors = given->vectors, .packed = packed, .g_shares = given->shares, .words = given->count,
        .tokens = given->count, .rows = given->count, .width = given->width,
        .kernel_positions = given->kernel_positions, .filters = given->filters, .parts = parts,
    };
    by_threads(&parallel, NAME(phrases_shares), &job, least(given->threads, parts));
    leave(packed);
    return with_threads(DONE, given->parallel, parallel);
}

/* `near` has the shares of the words from `start` on, if they are not given. */
INLINE const REAL *share_of(PhrasesJob *job, const REAL *near, int64_t start, int64_t token, int64_t position) {
    if (job->vectors) return near + (token - start) * blocks_of(columns_of(job)) * LANES + position * job->filters;
    return job->shares + (word_of(job, token) * job->kernel_positions + position) * job->filters;
}

INLINE void largest(const REAL *restrict phrases, REAL *restrict features, int32_t *restrict chosen, int64_t groups,
                    const int64_t pool) {
    for (int64_t group = 0; group < groups; group++) {
        REAL best = phrases[group * pool];
        int32_t at = 0;
        for (int32_t k = 1; k < pool; k++) {
            const REAL one = phrases[group * pool + k];
            const int better = one > best || one != one;
            best = better ? one : best;
            at = better ? k : at;
        }
        features[group] = best;
        if (chosen) chosen[group] = at;
    }
}

static void pooled(const REAL *phrases, REAL *features, int32_t *chosen, int64_t groups, int64_t pool) {
#define POOL(size)                                                                                                     \
    if (pool == size) {                                                                                                \
        if (chosen)                                                                                                    \
            largest(phrases, features, chosen, groups, size);                                                          \
        else                                                                                                           \
            largest(phrases, features, 0, groups, size);                                                               \
        return;                                                                                                        \
    }
    POOL(2) POOL(4) POOL(8) POOL(pool)
}

static void rows_forward(PhrasesJob *job, int64_t first, int64_t last) {
    const int64_t filters = job->filters, groups = filters / job->pool, fewer = job->kernel_positions - 1;
    const int64_t stride = blocks_of(columns_of(job)) * LANES;
    REAL *phrases = room(AT_ONCE * filters), *near = room((AT_ONCE + fewer) * stride);
    for (int64_t start = first; start < last; start += AT_ONCE) {
        const int64_t count = least(AT_ONCE, last - start), known = start > first ? fewer : 0;
        if (job->vectors) multiply(job, start + known, count + fewer - known, near + known * stride);
        for (int64_t row = 0; row < count; row++) {
            REAL *restrict sum = phrases + row * filters;
            const REAL *restrict bias = job->bias, *restrict one = share_of(job, near, start, start + row, 0);
            if (job->kernel_positions == 2) {
                const REAL *restrict other = share_of(job, near, start, start + row + 1, 1);
                for (int64_t f = 0; f < filters; f++) sum[f] = one[f] + other[f] + bias[f];
                continue;
            }
            for (int64_t f = 0; f < filters; f++) sum[f] = one[f];
            for (int64_t position = 1; position < job->kernel_positions; position++) {
                const REAL *restrict other = share_of(job, near, start, start + row + position, position);
                for (int64_t f = 0; f < filters; f++) sum[f] += other[f];
            }
            for (int64_t f = 0; f < filters; f++) sum[f] += bias[f];
        }
        int32_t *chosen = job->chosen ? job->chosen + start * groups : 0;
        pooled(phrases, job->features + start * groups, chosen, count * groups, job->pool);
        memmove(near, near + count * stride, fewer * stride * sizeof(REAL));
    }
    leave(near);
    leave(phrases);
}

/* Adds the gradient of one phrase. */
INLINE void add_phrase(const PhrasesJob *job, int64_t row, REAL *to) {
    const int64_t groups = job->filters / job->pool;
    const REAL *gradient = job->features + row * groups;
    const int32_t *chosen = job->chosen + row * groups;
    for (int64_t group = 0; group < groups; group++) to[group * job->pool + chosen[group]] += gradient[group];
}

static void bias_backward(const PhrasesJob *job, int64_t first, int64_t last, double *sum) {
    const int64_t groups = job->filters / job->pool;
    memset(sum, 0, job->filters * sizeof(double));
    for (int64_t row = first; row < last; row++)
        for (int64_t group = 0; group < groups; group++)
            sum[group * job->pool + job->chosen[row * groups + group]] += job->features[row * groups + group];
}

/* Some tokens, each a word of its own. */
static void tokens_backward(const PhrasesJob *job, int64_t first, int64_t last) {
    for (int64_t token = first; token < last; token++)
        for (int64_t position = 0; position < job->kernel_positions; position++) {
            REAL *to = job->g_shares + (token * job->kernel_positions + position) * job->filters;
            memset(to, 0, job->filters * sizeof(REAL));
            const int64_t row = token - position;
            if (row >= 0 && row < job->rows) add_phrase(job, row, to);
        }
}

/* One position of all tokens: no two threads add to the same number. */
static void words_backward(PhrasesJob *job, int64_t position) {
    for (int64_t row = 0; row < job->rows; row++) {
        const int64_t share = word_of(job, row + position) * job->kernel_positions + position;
        add_phrase(job, row, job->g_shares + share * job->filters);
    }
}

/* The phrases, of some, that chose a feature, and the gradients that they have of it. */
typedef struct {
    int64_t count, rows[AT_ONCE];
    REAL gradients[AT_ONCE];
} Choosers;

/* n neighbouring vectors of the gradient of one feature's weight at one position, from n of each word; and of the
   gradient of one word, from n of each weight. */
#define ADD_PHRASES(n)                                                                                                 \
    static __attribute__((noinline)) void add_choosers_##n(REAL *sums, const Choosers *choosers, const REAL *words) {  \
        V sum[n];                                                                                                      \
        UNROLL for (int v = 0; v < n; v++) sum[v] = load(sums + v * LANES);                                            \
        for (int64_t at = 0; at < choosers->count; at++) {                                                             \
            const REAL *x = words + choosers->rows[at] * n * LANES;                                                    \
            const V gradient = all(choosers->gradients[at]);                                                           \
            UNROLL for (int v = 0; v < n; v++) sum[v] = mul_add(gradient, load(x + v * LANES), sum[v]);                \
        }                                                                                                              \
        UNROLL for (int v = 0; v < n; v++) store(sums + v * LANES, sum[v]);                                            \
    }                                                                                                                  \
    static __attribute__((noinline)) void vector_backward_##n(PhrasesJob *job, int64_t token, int64_t block) {         \
        const int64_t groups = job->filters / job->pool, stride = blocks_of(job->width) * LANES;                       \
        V sum[n];                                                                                                      \
        UNROLL for (int v = 0; v < n; v++) sum[v] = all(0);                                                            \
        for (int64_t position = 0; position < job->kernel_positions; position++) {                                     \
            const int64_t row = token - position;                                                                      \
            if (row < 0 || row >= job->rows) continue;                                                                 \
            const REAL *weights = job->whole + position * job->filters * stride + block * LANES;                       \
            for (int64_t group = 0; group < groups; group++) {                                                         \
                const int64_t feature = group * job->pool + job->chosen[row * groups + group];                         \
                const V gradient = all(job->features[row * groups + group]);                                           \
                UNROLL for (int v = 0; v < n; v++)                                                                     \
                    sum[v] = mul_add(gradient, load(weights + feature * stride + v * LANES), sum[v]);                  \
            }                                                                                                          \
        }                                                                                                              \
        REAL *to = job->g_vectors + word_of(job, token) * job->width;                                                  \
        UNROLL for (int64_t v = block; v < block + n; v++)                                                             \
            store_some(to + v * LANES, sum[v - block], job->width - v * LANES);                                        \
    }
ADD_PHRASES(1)
ADD_PHRASES(2)
ADD_PHRASES(3)
ADD_PHRASES(4)
ADD_PHRASES(5)

#define UP_TO_5(name) {name##_1, name##_1, name##_2, name##_3, name##_4, name##_5}
static void (*const add_choosers[])(REAL *, const Choosers *, const REAL *) = UP_TO_5(add_choosers);
static void (*const vector_backward[])(PhrasesJob *, int64_t, int64_t) = UP_TO_5(vector_backward);

/* Some phrases' part of the gradient of the weights. Words are read a few vectors at a time, in the first cache. */
static void weights_backward(PhrasesJob *job, int64_t first, int64_t last, REAL *sums) {
    const int64_t width = job->width, blocks = blocks_of(width), filters = job->filters, groups = filters / job->pool;
    Choosers *choosers = malloc(filters * sizeof(Choosers));
    REAL *words = room((AT_ONCE + job->kernel_positions - 1) * SIDE_BY_SIDE * LANES);
    memset(sums, 0, columns_of(job) * blocks * LANES * sizeof(REAL));
    for (int64_t start = first; start < last; start += AT_ONCE) {
        const int64_t count = least(AT_ONCE, last - start);
        for (int64_t f = 0; f < filters; f++) choosers[f].count = 0;
        for (int64_t row = 0; row < count; row++)
            for (int64_t group = 0; group < groups; group++) {
                const int64_t at = (start + row) * groups + group;
                Choosers *own = choosers + group * job->pool + job->chosen[at];
                own->rows[own->count] = row;
                own->gradients[own->count++] = job->features[at];
            }
        for (int64_t block = 0, n; block < blocks; block += n) {
            n = least(SIDE_BY_SIDE, blocks - block);
            for (int64_t word = 0; word < count + job->kernel_positions - 1; word++)
                for (int64_t v = block; v < block + n; v++)
                    store(words + (word * n + v - block) * LANES,
                          load_some(job->vectors + word_of(job, start + word) * width + v * LANES, width - v * LANES));
            for (int64_t column = 0; column < columns_of(job); column++)
                add_choosers[n](sums + (column * blocks + block) * LANES, choosers + column % filters,
                                words + column / filters * n * LANES);
        }
    }
    leave(words);
    free(choosers);
}

static void vectors_backward(PhrasesJob *job, int64_t first, int64_t last) {
    const int64_t blocks = blocks_of(job->width);
    for (int64_t start = first; start < last; start += AT_ONCE)
        for (int64_t block = 0, n; block < blocks; block += n) {
            n = least(SIDE_BY_SIDE, blocks - block);
            for (int64_t token = start; token < least(start + AT_ONCE, last); token++)
                vector_backward[n](job, token, block);
        }
}

BY_THREADS(phrases_forward) {
    PhrasesJob *job = shared;
    for (int64_t part; (part = take(&job->next)) < job->parts;)
        rows_forward(job, job->part * part, least(job->part * (part + 1), job->rows));
}

/* The last part has the words behind the last phrase too. */
BY_THREADS(phrases_backward) {
    PhrasesJob *job = shared;
    for (int64_t part; (part = take(&job->next)) < job->parts;) {
        const int64_t first = job->part * part, last = least(first + job->part, job->rows);
        const int64_t behind = part == job->parts - 1 ? job->tokens : last;
        bias_backward(job, first, last, job->g_bias + part * job->filters);
        if (job->sums)
            weights_backward(job, first, last,
                             job->sums + part * columns_of(job) * blocks_of(job->width) * LANES);
        if (job->g_vectors) vectors_backward(job, first, behind);
        if (job->g_shares && !job->ids) tokens_backward(job, first, behind);
    }
}

BY_THREADS(phrases_backward_words) {
    PhrasesJob *job = shared;
    for (int64_t position; (position = take(&job->next)) < job->kernel_positions;) words_backward(job, position);
}

/* The sum over the parts, in order; one column at a time. */
BY_THREADS(phrases_give_weights) {
    PhrasesJob *job = shared;
    const int64_t columns = columns_of(job), width = job->width, blocks = blocks_of(width);
    for (int64_t column; (column = take(&job->next)) < columns;)
        for (int64_t block = 0; block < blocks; block++) {
            V sum = all(0);
            for (int64_t part = 0; part < job->parts; part++)
                sum += load(job->sums + ((part * columns + column) * blocks + block) * LANES);
            store_some(job->g_weight + column * width + block * LANES, sum, width - block * LANES);
        }
}
