/* What `tower.c` takes and gives. `tower_call.py` makes all of these, after `door.py` has checked every size. */

#include "calls.h"
#include "lstm.h"
#include "phrases.h"

/* `lstm.c` for a hidden size: its vectors may be narrower than those here. */
typedef struct {
    int64_t (*lay_out)(const int64_t *, const int64_t *, int64_t, int64_t, int64_t, int64_t *, int64_t *);
    void (*pack)(REAL *, const REAL *, const REAL *, const REAL *, int64_t, int64_t);
    void (*pack_back)(REAL *, const REAL *, int64_t, int64_t);
    ByThreads *forward, *backward, *give_weights;
    int64_t lanes;
} LstmCode;

/* The weights and sizes of a tower. */
typedef struct {
    const REAL *weight; /* "kernel_positions filters width"; absent: shares are given in place of vectors */
    const REAL *bias;   /* "filters" */
    const REAL *w_ih, *w_hh, *lstm_bias;
    const LstmCode *lstm;
    int64_t width, kernel_positions, filters, pool, hidden;
} Tower;

/* The sentences that a tower reads, their last states, and what is kept for the backward pass (absent: nothing). */
typedef struct {
    const Tower *tower;
    const REAL *rows;       /* vectors "words width", or shares "words kernel_positions filters" */
    const int64_t *ids;     /* the row of each token; absent: tokens and rows are the same */
    const int64_t *offsets; /* "count+1": the tokens of each sentence; absent: `span` tokens each */
    const int64_t *lengths; /* "count": how many of its `span` tokens are real; absent: all */
    int64_t words, tokens, span;
    REAL *states;    /* "count hidden"; of two towers it may be absent */
    int64_t *places; /* "4 * count + 2 + tokens": where the sentences are, see `Places` */
    int32_t *chosen; /* "tokens filters/pool" */
    REAL *features;  /* "tokens filters/pool" */
    REAL *gates, *cells, *entries; /* "tokens …", as in `lstm.h` */
} Sentences;

/* The dense layers of two towers. */
typedef struct {
    const REAL *dense, *dense_bias, *logit, *logit_bias; /* "units hidden", "units", "units", one number */
    int64_t units, hidden;
} Head;

typedef struct {
    Sentences left, right; /* right: only beside a head */
    const Head *head;
    REAL *logits; /* "count" */
    int64_t count, threads;
    Parallel *parallel; /* may be absent */
} TowerJob;

/* The gradients of one tower, from that of its states. */
typedef struct {
    Sentences sentences;
    int64_t count, threads;
    Parallel *parallel;
    const REAL *g_states; /* "count hidden" */
    REAL *g_rows;         /* as `rows`; of vectors it may be absent; 0 where several tokens may have one row */
    REAL *g_weight;       /* absent where shares are given */
    REAL *g_bias, *g_w_ih, *g_w_hh, *g_lstm_bias;
} TowerBackwardJob;

/* The gradients of two towers with their head, from that of the logits. `g_states` is made here; a side whose `g_bias`
   is absent gets none. */
typedef struct {
    TowerBackwardJob left, right; /* their sentences have `states`, as forward left them */
    const Head *head;
    const REAL *g_logits; /* "count" */
    REAL *g_dense, *g_dense_bias, *g_logit, *g_logit_bias; /* as those of `Head` */
} PairBackwardJob;

EXPORT int64_t NAME(tower_forward)(const TowerJob *given);
EXPORT int64_t NAME(tower_backward)(const TowerBackwardJob *given);
EXPORT int64_t NAME(pair_backward)(const PairBackwardJob *given);
