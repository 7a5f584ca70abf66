/* What `lstm.c` takes and gives; the pictures of the layouts are there. */

#ifndef TOWERS_LSTM
#define TOWERS_LSTM

#include "vectors.h"

typedef struct {
    const REAL *x; /* "rows inputs" */
    const int64_t *starts;  /* row of each sentence's first word; absent: they begin `span` rows apart */
    const int64_t *lengths; /* absent: all have `steps` words */
    const int64_t *offsets; /* words before each sentence, "batch+1" */
    const int64_t *order;   /* sentences, longest first */
    int64_t span, steps, batch, inputs, hidden, reverse;
    const REAL *packed, *packed_x; /* weights, as `pack` leaves them; as `pack_back` does, of the state and of x */
    const REAL *h_in, *c_in; /* the state that comes in, "batch hidden", 0 where absent; in the backward pass its gradient, as below */
    REAL *h_out, *c_out; /* c_out may be absent */
    const REAL *c_0; /* for the backward pass; 0 where absent */
    REAL *y; /* "rows hidden", may be absent; in the backward pass its gradient */
    int64_t apart; /* from one row of y to the next */
    const REAL *ahead; /* "rows blocks 4 LANES": what a word's sums begin with, by `lstm_ahead`; may be absent */
    int64_t ahead_apart;     /* from one row of it to the next */
    const int64_t *ids;      /* "rows": the row of it for each word; absent: its own */
    REAL *gates;   /* "words blocks 4 LANES": kept for the backward pass, or absent */
    REAL *cells;   /* "words blocks LANES": c behind the word */
    REAL *entries; /* "words blocks LANES": h before it */
    REAL *g_x;     /* "rows inputs", may be absent */
    REAL *sums;    /* "parts blocks inputs+hidden+1 4 LANES": gradients of the weights, by part of the sentences */
    REAL *g_w_ih, *g_w_hh, *g_bias;
    int64_t parts, next; /* of the sentences, and the next one to take */
} LstmJob;

typedef struct {
    const LstmJob *lstm;
    const REAL *w_ih, *bias; /* "4*hidden inputs"; "4*hidden", may be absent */
    REAL *to;                /* "rows blocks 4 LANES" */
    int64_t apart;           /* from one row of it to the next */
    int64_t rows, next;      /* the next block of units to take */
} AheadJob;

EXPORT int64_t NAME(lanes)(void);
EXPORT int64_t NAME(lstm_lay_out)(const int64_t *starts, const int64_t *lengths, int64_t span, int64_t batch,
                                  int64_t rows, int64_t *offsets, int64_t *order);
EXPORT void NAME(lstm_pack)(REAL *to, const REAL *w_ih, const REAL *w_hh, const REAL *bias, int64_t inputs,
                            int64_t hidden);
EXPORT void NAME(lstm_pack_back)(REAL *to, const REAL *weights, int64_t width, int64_t hidden);
BY_THREADS(lstm_ahead);
BY_THREADS(lstm_forward);
BY_THREADS(lstm_backward);
BY_THREADS(lstm_give_weights);

#endif
