/* Neighbours added and features pooled, word after word, and the gradient: what `towers.layers.on_cpu` does in torch.

   The phrase that starts with a token takes that token's row: share 0 of its word, plus share 1 of the next token's
   word, and so on, plus the bias; of each group of `pool` neighbouring features the largest stays. Of equal ones it is
   the first, and of numbers and NaNs a NaN. A phrase never leaves the first cache. REAL is float or double. */

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#pragma GCC optimize("O3") /* loops over features become vectors */
#define INLINE static inline __attribute__((always_inline))
#define NEAR 4096 /* features of the phrases that are at work */

typedef struct {
    const REAL *shares;  /* "words places filters" */
    const int64_t *ids;  /* the word that each token is; absent: token and word are the same */
    const REAL *bias;    /* "filters" */
    REAL *features;      /* "rows filters/pool"; on the way back their gradient */
    int32_t *chosen;     /* "rows filters/pool": which of its group each feature is; forward, may be absent */
    REAL *g_shares;      /* "words places filters", 0 where there are ids */
    double *g_bias;      /* "parts filters" */
    int64_t words, rows, places, filters, pool;
    int64_t parts, next; /* the parts of the rows, and the next one to take */
    int64_t wrong;       /* whether an id is none of a word */
} Job;

INLINE const REAL *shares_of(Job *job, int64_t token, int64_t place) {
    int64_t word = job->ids ? job->ids[token] : token;
    if (word < 0 || word >= job->words) word = 0, job->wrong = 1;
    return job->shares + (word * job->places + place) * job->filters;
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

static void rows_forward(Job *job, int64_t first, int64_t last) {
    const int64_t filters = job->filters, groups = filters / job->pool, near = NEAR / filters + 1;
    REAL *phrases = malloc(near * filters * sizeof(REAL));
    for (int64_t start = first; start < last; start += near) {
        const int64_t count = last - start < near ? last - start : near;
        for (int64_t row = 0; row < count; row++) {
            REAL *restrict sum = phrases + row * filters;
            const REAL *restrict bias = job->bias, *restrict one = shares_of(job, start + row, 0);
            if (job->places == 2) {
                const REAL *restrict other = shares_of(job, start + row + 1, 1);
                for (int64_t f = 0; f < filters; f++) sum[f] = one[f] + other[f] + bias[f];
                continue;
            }
            for (int64_t f = 0; f < filters; f++) sum[f] = one[f];
            for (int64_t place = 1; place < job->places; place++) {
                const REAL *restrict other = shares_of(job, start + row + place, place);
                for (int64_t f = 0; f < filters; f++) sum[f] += other[f];
            }
            for (int64_t f = 0; f < filters; f++) sum[f] += bias[f];
        }
        int32_t *chosen = job->chosen ? job->chosen + start * groups : 0;
        pooled(phrases, job->features + start * groups, chosen, count * groups, job->pool);
    }
    free(phrases);
}

/* Adds the gradient of one phrase. */
INLINE void add_phrase(const Job *job, int64_t row, REAL *to) {
    const int64_t groups = job->filters / job->pool;
    const REAL *gradient = job->features + row * groups;
    const int32_t *chosen = job->chosen + row * groups;
    for (int64_t group = 0; group < groups; group++) to[group * job->pool + chosen[group]] += gradient[group];
}

static void bias_backward(const Job *job, int64_t first, int64_t last, double *sum) {
    const int64_t groups = job->filters / job->pool;
    memset(sum, 0, job->filters * sizeof(double));
    for (int64_t row = first; row < last; row++)
        for (int64_t group = 0; group < groups; group++)
            sum[group * job->pool + job->chosen[row * groups + group]] += job->features[row * groups + group];
}

/* Some tokens, each a word of its own. */
static void tokens_backward(const Job *job, int64_t first, int64_t last) {
    for (int64_t token = first; token < last; token++)
        for (int64_t place = 0; place < job->places; place++) {
            REAL *to = job->g_shares + (token * job->places + place) * job->filters;
            memset(to, 0, job->filters * sizeof(REAL));
            const int64_t row = token - place;
            if (row >= 0 && row < job->rows) add_phrase(job, row, to);
        }
}

/* One place of all tokens: no two threads add to the same number. */
static void words_backward(const Job *job, int64_t place) {
    for (int64_t row = 0; row < job->rows; row++)
        add_phrase(job, row, job->g_shares + (job->ids[row + place] * job->places + place) * job->filters);
}

/* Each of these is run by every thread, until no part is left. */
INLINE int64_t take(Job *job) { return __atomic_fetch_add(&job->next, 1, __ATOMIC_RELAXED); }

void forward(Job *job) {
    for (int64_t part; (part = take(job)) < job->parts;)
        rows_forward(job, job->rows * part / job->parts, job->rows * (part + 1) / job->parts);
}

void backward(Job *job) {
    for (int64_t part; (part = take(job)) < job->parts;) {
        if (!job->ids) tokens_backward(job, job->words * part / job->parts, job->words * (part + 1) / job->parts);
        bias_backward(job, job->rows * part / job->parts, job->rows * (part + 1) / job->parts,
                      job->g_bias + part * job->filters);
    }
}

void backward_words(Job *job) {
    for (int64_t place; (place = take(job)) < job->places;) words_backward(job, place);
}
