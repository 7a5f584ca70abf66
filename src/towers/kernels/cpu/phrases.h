/* What `phrases.c` takes and gives. */

#ifndef TOWERS_PHRASES
#define TOWERS_PHRASES

#include "calls.h"

#define PHRASES_AT_ONCE 48 /* a multiple of all ROWS */

typedef struct {
    const REAL *vectors;   /* "words width"; absent: the shares are given */
    const REAL *weight;    /* "kernel_positions filters width" */
    const REAL *packed;    /* the same, as `pack` leaves them; forward, of at most PHRASES_AT_ONCE words, absent */
    const REAL *whole;     /* weights "kernel_positions filters width", filled up with 0 to whole vectors */
    const REAL *shares;    /* "words kernel_positions filters" */
    const int64_t *ids;    /* the word that each token is; absent: token and word are the same. No two tokens may be one
                              of the `vectors` whose gradient is wanted */
    const REAL *bias;      /* "filters" */
    REAL *features;        /* "rows filters/pool"; in the backward pass their gradient */
    int32_t *chosen;       /* "rows filters/pool": which of its group each feature is; forward, may be absent */
    REAL *g_vectors;       /* "words width", may be absent */
    REAL *g_weight;        /* "kernel_positions filters width" */
    REAL *g_shares;        /* "words kernel_positions filters", 0 where there are ids */
    REAL *sums;            /* "parts kernel_positions*filters blocks LANES": the weights' gradient, by part of the rows */
    double *g_bias;        /* "parts filters" */
    int64_t words, tokens, width, rows, kernel_positions, filters, pool;
    int64_t part, parts, next; /* rows of a part, parts, and the next one to take */
    int64_t wrong;         /* whether an id is none of a word */
} PhrasesJob;

/* Words that are multiplied by the weights, and no more. */
typedef struct {
    const REAL *vectors; /* "count width" */
    const REAL *weight;  /* "kernel_positions filters width" */
    REAL *shares;        /* "count kernel_positions filters" */
    int64_t count, kernel_positions, filters, width, threads;
    Parallel *parallel; /* may be absent */
} WordsJob;

EXPORT int64_t NAME(shares_of_words)(const WordsJob *given);
EXPORT void NAME(phrases_pack)(REAL *to, const REAL *weight, int64_t columns, int64_t width);
BY_THREADS(phrases_shares);
BY_THREADS(phrases_forward);
BY_THREADS(phrases_backward);
BY_THREADS(phrases_backward_words);
BY_THREADS(phrases_give_weights);

#endif
