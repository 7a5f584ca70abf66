/* One layer of an LSTM in one direction, without gradients, in one call: it looks at the lengths, packs the weights and
   walks over the sentences (`lstm.c`), with nothing of Python in between. The number of threads changes no bit. */

#include "calls.h"
#include "lstm.h"

#define A_THREAD 60000 /* multiply-adds for which it pays to wake another thread; as in `lstm_call.py` */

typedef struct {
    const REAL *w_ih, *w_hh, *b_ih, *b_hh; /* "4*hidden inputs", "4*hidden hidden"; biases may be absent */
    int64_t inputs, hidden;
} Layer;

typedef struct {
    const Layer *layer;
    const REAL *x;          /* "rows inputs" */
    const int64_t *offsets; /* "batch+1": the rows of each sentence; absent: `span` rows each */
    const int64_t *lengths; /* "batch": how many of its `span` rows are real; absent: all */
    int64_t rows, span, batch;
    const REAL *h_0, *c_0; /* "batch hidden", 0 where absent */
    REAL *y;               /* "rows hidden", 0 where no sentence is; may be absent */
    REAL *h_n, *c_n;       /* "batch hidden" */
    int64_t threads;
    Parallel *parallel; /* may be absent */
} LayerJob;

/* Where sentences that are not alike lie. Memory: "4*batch+2". */
static int64_t lay_out(const LayerJob *job, LstmJob *lstm, int64_t *memory) {
    int64_t *starts = memory, *lengths = memory + job->batch, *offsets = lengths + job->batch;
    int64_t *order = offsets + job->batch + 1, before = 0;
    for (int64_t s = 0; s < job->batch; s++) {
        const int64_t end = job->offsets ? job->offsets[s + 1] : 0;
        if (job->offsets ? end < before || end > job->rows : job->lengths[s] < 0 || job->lengths[s] > job->span)
            return WRONG_LENGTHS;
        starts[s] = job->offsets ? before : s * job->span;
        lengths[s] = job->offsets ? end - before : job->lengths[s];
        before += lengths[s];
    }
    if (job->offsets && (job->offsets[0] || before != job->rows)) return WRONG_LENGTHS;
    NAME(lstm_lay_out)(starts, lengths, job->span, job->batch, job->rows, offsets, order);
    lstm->starts = starts, lstm->lengths = lengths, lstm->offsets = offsets, lstm->order = order;
    return DONE;
}

static int64_t run(const LayerJob *job, Parallel **parallel) {
    const Layer *layer = job->layer;
    const int64_t inputs = layer->inputs, hidden = layer->hidden, gates = 4 * hidden;
    LstmJob lstm = {
        .x = job->x, .span = job->span, .steps = job->span, .batch = job->batch, .inputs = inputs, .hidden = hidden,
        .h_in = job->h_0, .c_in = job->c_0, .h_out = job->h_n, .c_out = job->c_n, .y = job->y,
    };
    const int alike = !job->offsets && !job->lengths;
    int64_t *places = alike ? 0 : malloc((4 * job->batch + 2) * sizeof(int64_t));
    const int64_t of_weights = blocks_of(hidden) * (inputs + hidden + 1) * 4 * LANES;
    REAL *packed = room(of_weights + gates);
    int64_t answer = packed && (alike || places) ? DONE : NO_MEMORY;
    if (answer == DONE && !alike) answer = lay_out(job, &lstm, places);
    if (answer == DONE) {
        REAL *bias = packed + of_weights;
        for (int64_t unit = 0; layer->b_hh && unit < gates; unit++) bias[unit] = layer->b_ih[unit] + layer->b_hh[unit];
        NAME(lstm_pack)(packed, layer->w_ih, layer->w_hh, layer->b_hh ? bias : layer->b_ih, inputs, hidden);
        lstm.packed = packed;
        for (int64_t s = 0; job->y && job->lengths && s < job->batch; s++)
            memset(job->y + (s * job->span + lstm.lengths[s]) * hidden, 0,
                   (job->span - lstm.lengths[s]) * hidden * sizeof(REAL));
        const int64_t words = alike ? job->rows : lstm.offsets[job->batch];
        lstm.parts = least(least(job->threads, job->batch), most(1, words * gates * (inputs + hidden) / A_THREAD));
        by_threads(parallel, NAME(lstm_forward), &lstm, lstm.parts);
    }
    leave(packed);
    free(places);
    return answer;
}

EXPORT int64_t NAME(lstm_layer)(const LayerJob *given);
int64_t NAME(lstm_layer)(const LayerJob *given) {
    Parallel *parallel = given->parallel;
    const int64_t answer = run(given, &parallel);
    return with_threads(answer, given->parallel, parallel);
}
