/* One layer of an LSTM in one direction or both, without gradients, in one call: it looks at the lengths, packs the weights and
   walks over the sentences (`lstm.c`), with nothing of Python in between. The number of threads changes no bit. */

#include "calls.h"
#include "lstm.h"

#define FEW 64 /* rows for which the weights of x are not packed */
#define A_THREAD 60000 /* multiply-adds for which it pays to wake another thread; as in `lstm_call.py` */

INLINE int64_t packed_size(int64_t inputs, int64_t hidden) {
    return blocks_of(hidden) * (inputs + hidden + 1) * 4 * LANES;
}

typedef struct {
    const REAL *w_ih, *w_hh, *b_ih, *b_hh; /* "4*hidden inputs", "4*hidden hidden"; biases may be absent */
} Direction;

typedef struct {
    Direction direction[2]; /* the second one from the end of each sentence */
    int64_t inputs, hidden, directions;
} Layer;

typedef struct {
    const Layer *layer;
    const REAL *x;          /* "rows inputs"; absent where there are sums of words */
    const REAL *sums;       /* "words directions blocks 4 LANES": of each word, by `lstm_sums`; may be absent */
    const int64_t *ids;     /* "rows": the word of each row, beside sums */
    int64_t words;
    const int64_t *offsets; /* "batch+1": the rows of each sentence; absent: `span` rows each */
    const int64_t *lengths; /* "batch": how many of its `span` rows are real; absent: all */
    int64_t rows, span, batch;
    const REAL *h_0, *c_0; /* "directions batch hidden", 0 where absent */
    REAL *y;               /* "rows directions*hidden", 0 where no sentence is; may be absent */
    REAL *h_n, *c_n;       /* "directions batch hidden" */
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

static const REAL *bias_of(const Direction *own, int64_t gates, REAL *memory) {
    for (int64_t unit = 0; own->b_hh && unit < gates; unit++) memory[unit] = own->b_ih[unit] + own->b_hh[unit];
    return own->b_hh ? memory : own->b_ih;
}

/* For `few` rows packing the weights of x would take longer than the products. */
static void one_direction(const LayerJob *job, LstmJob lstm, int64_t which, int few, REAL *memory,
                          Parallel **parallel) {
    const Direction *own = job->layer->direction + which;
    const int64_t hidden = lstm.hidden, gates = 4 * hidden, before = which * job->batch * hidden;
    const int64_t inputs = few ? 0 : lstm.inputs;
    REAL *sum = memory, *packed = sum + up(gates, LANES) * LANES, *ahead = packed + packed_size(inputs, hidden);
    const REAL *bias = bias_of(own, gates, sum);
    NAME(lstm_pack)(packed, own->w_ih, own->w_hh, bias, inputs, hidden);
    const int64_t apart = blocks_of(hidden) * 4 * LANES;
    if (job->sums) {
        lstm.ahead = job->sums + which * apart, lstm.ahead_apart = job->layer->directions * apart, lstm.ids = job->ids;
    } else if (few) {
        AheadJob first = {
            .lstm = &lstm, .w_ih = own->w_ih, .bias = bias, .to = ahead, .apart = apart, .rows = job->rows};
        const int64_t worth = most(1, job->rows * gates * lstm.inputs / A_THREAD);
        by_threads(parallel, NAME(lstm_ahead), &first, least(job->threads, worth));
        lstm.ahead = ahead, lstm.ahead_apart = apart;
    }
    lstm.packed = packed, lstm.reverse = which;
    lstm.y = job->y ? job->y + which * hidden : 0;
    lstm.h_in = job->h_0 ? job->h_0 + before : 0, lstm.c_in = job->c_0 ? job->c_0 + before : 0;
    lstm.h_out = job->h_n + before, lstm.c_out = job->c_n + before;
    by_threads(parallel, NAME(lstm_forward), &lstm, lstm.parts);
}

static int64_t run(const LayerJob *job, Parallel **parallel) {
    const Layer *layer = job->layer;
    const int64_t inputs = layer->inputs, hidden = layer->hidden, gates = 4 * hidden;
    LstmJob lstm = {
        .x = job->x, .span = job->span, .steps = job->span, .batch = job->batch, .inputs = inputs, .hidden = hidden,
        .apart = layer->directions * hidden,
    };
    const int alike = !job->offsets && !job->lengths;
    int64_t *places = alike ? 0 : malloc((4 * job->batch + 2) * sizeof(int64_t));
    const int few = job->sums || job->rows <= FEW;
    const int64_t of_ahead = few && !job->sums ? job->rows * blocks_of(hidden) * 4 * LANES : 0;
    REAL *memory = room(up(gates, LANES) * LANES + packed_size(few ? 0 : inputs, hidden) + of_ahead);
    int64_t answer = memory && (alike || places) ? DONE : NO_MEMORY;
    for (int64_t row = 0; job->sums && row < job->rows; row++)
        if (job->ids[row] < 0 || job->ids[row] >= job->words) answer = WRONG_IDS;
    if (answer == DONE && !alike) answer = lay_out(job, &lstm, places);
    if (answer == DONE) {
        for (int64_t s = 0; job->y && job->lengths && s < job->batch; s++)
            memset(job->y + (s * job->span + lstm.lengths[s]) * lstm.apart, 0,
                   (job->span - lstm.lengths[s]) * lstm.apart * sizeof(REAL));
        const int64_t words = alike ? job->rows : lstm.offsets[job->batch];
        const int64_t read = job->sums ? hidden : inputs + hidden;
        lstm.parts = least(least(job->threads, job->batch), most(1, words * gates * read / A_THREAD));
        for (int64_t which = 0; which < layer->directions; which++) one_direction(job, lstm, which, few, memory, parallel);
    }
    leave(memory);
    free(places);
    return answer;
}

typedef struct {
    const Layer *layer;
    const REAL *x; /* "words inputs" */
    REAL *to;      /* "words directions blocks 4 LANES": what the sums of each word begin with, in each direction */
    int64_t words, threads;
    Parallel *parallel; /* may be absent */
} SumsJob;

EXPORT int64_t NAME(lstm_sums)(const SumsJob *given);
int64_t NAME(lstm_sums)(const SumsJob *given) {
    const Layer *layer = given->layer;
    const int64_t gates = 4 * layer->hidden, apart = blocks_of(layer->hidden) * 4 * LANES;
    const int64_t worth = most(1, given->words * gates * layer->inputs / A_THREAD);
    const LstmJob lstm = {.x = given->x, .inputs = layer->inputs, .hidden = layer->hidden};
    Parallel *parallel = given->parallel;
    REAL *memory = room(gates);
    if (!memory) return NO_MEMORY;
    for (int64_t which = 0; which < layer->directions; which++) {
        const Direction *own = layer->direction + which;
        AheadJob job = {
            .lstm = &lstm, .w_ih = own->w_ih, .bias = bias_of(own, gates, memory), .to = given->to + which * apart,
            .apart = layer->directions * apart, .rows = given->words,
        };
        by_threads(&parallel, NAME(lstm_ahead), &job, least(given->threads, worth));
    }
    leave(memory);
    return with_threads(DONE, given->parallel, parallel);
}

EXPORT int64_t NAME(lstm_layer)(const LayerJob *given);
int64_t NAME(lstm_layer)(const LayerJob *given) {
    Parallel *parallel = given->parallel;
    const int64_t answer = run(given, &parallel);
    return with_threads(answer, given->parallel, parallel);
}
