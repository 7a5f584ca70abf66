/* A whole tower in one call, and two towers with their head: vectors or shares of words -> last states -> logits.

   It is `phrases.c`, then `lstm.c`, with nothing of Python in between. The features of a phrase are in the row of its
   first token, and those that two sentences have in common are never read:

       tokens     a b c | d e f        three words and three
       features   ab bc .. | de ef

   Lengths and offsets are checked here, where they are read anyway; an answer that is not DONE says that nothing may
   be used. The number of threads changes no bit. */

#include "tower.h"

#define A_PART 240      /* phrases that one thread takes at a time, from shares */
#define A_PRODUCT 96    /* the same from vectors, at most; and */
#define A_SMALL_PRODUCT 24 /* at least */
#define OF_SHARES 500   /* phrases from shares (about 10 microseconds) for which it pays to wake another thread */
#define OF_PRODUCTS 25  /* the same from vectors */
#define OF_STEPS 60000  /* multiply-adds of an LSTM */
#define PARTS 8         /* parts of the phrases in the backward pass; each has a sum of its own for the weights' gradient */

/* Where the sentences of a call are. */
typedef struct {
    int64_t tokens, steps;     /* of all sentences */
    int64_t *starts, *lengths; /* of each sentence's features, "count"; absent: all are alike */
    int64_t *offsets, *order;  /* as `lstm_lay_out` leaves them, "count+1"; absent: all are alike */
    int64_t *ids;              /* the rows of the real tokens, where padding lies between them; absent: see Sentences */
} Places;

INLINE int64_t are_alike(const Sentences *of) { return !of->offsets && !of->lengths; }

static Places places_in(const Sentences *of, int64_t count, int64_t *memory) {
    Places places = {of->tokens, count * most(of->span - of->tower->kernel_positions + 1, 0)};
    if (are_alike(of)) return places;
    places.starts = memory, places.lengths = memory + count, places.offsets = memory + 2 * count;
    places.order = memory + 3 * count + 1;
    if (of->lengths) places.ids = memory + 4 * count + 2;
    return places;
}

/* Looks at every offset or length once; no sentence may be shorter than a phrase. */
static int64_t lay_out(const Sentences *of, int64_t count, Places *places) {
    const int64_t fewer = of->tower->kernel_positions - 1;
    if (are_alike(of)) return of->span > fewer ? DONE : WRONG_LENGTHS;
    int64_t before = 0;
    for (int64_t s = 0; s < count; s++) {
        const int64_t length = of->lengths ? of->lengths[s] : of->offsets[s + 1] - of->offsets[s];
        if (length <= fewer || length > (of->lengths ? of->span : of->tokens - before)) return WRONG_LENGTHS;
        if (of->lengths)
            for (int64_t word = 0; word < length; word++) places->ids[before + word] = s * of->span + word;
        places->starts[s] = before;
        places->lengths[s] = length - fewer;
        before += length;
    }
    if (of->offsets && (of->offsets[0] || before != of->tokens)) return WRONG_LENGTHS;
    places->tokens = before;
    places->steps = of->tower->lstm->lay_out(places->starts, places->lengths, 0, count, before, places->offsets,
                                             places->order);
    return places->steps < 0 ? WRONG_LENGTHS : DONE;
}

static PhrasesJob phrases_of(const Sentences *of, const Places *places) {
    const Tower *tower = of->tower;
    return (PhrasesJob){
        .vectors = tower->weight ? of->rows : 0,
        .weight = tower->weight,
        .shares = tower->weight ? 0 : of->rows,
        .ids = places->ids ? places->ids : of->ids,
        .bias = tower->bias,
        .words = of->words,
        .tokens = places->tokens,
        .width = tower->width,
        .rows = most(places->tokens - tower->kernel_positions + 1, 0),
        .kernel_positions = tower->kernel_positions,
        .filters = tower->filters,
        .pool = tower->pool,
    };
}

static LstmJob lstm_of(const Sentences *of, const Places *places, int64_t count, REAL *features) {
    const Tower *tower = of->tower;
    return (LstmJob){
        .x = features,
        .starts = places->starts,
        .lengths = places->lengths,
        .offsets = places->offsets,
        .order = places->order,
        .span = of->span,
        .steps = of->span - tower->kernel_positions + 1,
        .batch = count,
        .inputs = tower->filters / tower->pool,
        .hidden = tower->hidden,
    };
}

static int64_t threads_of(const LstmJob *job, int64_t steps, int64_t passes, int64_t threads) {
    const int64_t work = steps * passes * 4 * job->hidden * (job->inputs + job->hidden);
    return least(least(threads, job->batch), most(1, work / OF_STEPS));
}

/* The last states of some sentences. */
static int64_t states_of(TowerJob *job, const Sentences *of) {
    const Tower *tower = of->tower;
    const LstmCode *code = tower->lstm;
    const int64_t count = job->count, columns = tower->kernel_positions * tower->filters;
    const int64_t inputs = tower->filters / tower->pool, hidden = tower->hidden;
    const int64_t few = tower->weight && of->tokens <= PHRASES_AT_ONCE;
    const int64_t of_weights = tower->weight && !few ? tower->width * blocks_of(columns) * LANES : 0;
    const int64_t of_lstm = up(hidden, code->lanes) * (inputs + hidden + 1) * 4 * code->lanes;

    int64_t *whole_numbers = of->places || are_alike(of) ? 0 : malloc((4 * count + 2 + of->tokens) * sizeof(int64_t));
    if (!of->places && !are_alike(of) && !whole_numbers) return NO_MEMORY;
    Places places = places_in(of, count, of->places ? of->places : whole_numbers);
    int64_t answer = lay_out(of, count, &places);
    const int64_t of_features = of->features ? 0 : places.tokens * inputs;
    REAL *memory = answer == DONE ? room(of_weights + up(of_lstm, LANES) * LANES + of_features) : 0;
    if (answer == DONE && !memory) answer = NO_MEMORY;
    if (answer == DONE) {
        REAL *packed = memory, *packed_lstm = memory + of_weights;
        REAL *features = of->features ? of->features : packed_lstm + up(of_lstm, LANES) * LANES;
        PhrasesJob phrases = phrases_of(of, &places);
        if (of_weights) NAME(phrases_pack)(packed, tower->weight, columns, tower->width);
        code->pack(packed_lstm, tower->w_ih, tower->w_hh, tower->lstm_bias, inputs, hidden);
        phrases.packed = few ? 0 : packed, phrases.features = features, phrases.chosen = of->chosen;
        const int64_t threads = least(job->threads, phrases.rows / (tower->weight ? OF_PRODUCTS : OF_SHARES));
        phrases.part = A_PART;
        if (of_weights) phrases.part = least(A_PRODUCT, most(A_SMALL_PRODUCT, up(phrases.rows, 4 * most(threads, 1))));
        phrases.parts = up(phrases.rows, phrases.part);
        by_threads(&job->parallel, NAME(phrases_forward), &phrases, threads);
        answer = phrases.wrong ? WRONG_IDS : DONE;
        LstmJob lstm = lstm_of(of, &places, count, features);
        lstm.packed = packed_lstm, lstm.h_out = of->states;
        lstm.gates = of->gates, lstm.cells = of->cells, lstm.entries = of->entries;
        lstm.parts = threads_of(&lstm, places.steps, 1, job->threads);
        by_threads(&job->parallel, code->forward, &lstm, lstm.parts);
        leave(memory);
    }
    free(whole_numbers);
    return answer;
}

/* The dense layers' weights by vectors of units, and room for a vector of each. */
typedef struct {
    int64_t stride; /* units, filled up to whole vectors */
    REAL *memory, *dense, *bias, *weight, *rest; /* dense: "hidden stride" */
} PackedHead;

/* Memory for `more` numbers behind the weights, too. */
static PackedHead packed_head(const Head *head, int64_t more) {
    const int64_t units = head->units, hidden = head->hidden;
    PackedHead packed = {blocks_of(units) * LANES};
    packed.memory = packed.dense = room(packed.stride * (hidden + 2) + more);
    if (!packed.memory) return packed;
    packed.bias = packed.dense + packed.stride * hidden, packed.weight = packed.bias + packed.stride;
    packed.rest = packed.weight + packed.stride;
    for (int64_t at = 0; at < units; at += LANES) {
        turn(packed.dense + at, packed.stride, head->dense + at * hidden, hidden, least(LANES, units - at), hidden);
        store(packed.bias + at, load_some(head->dense_bias + at, units - at));
        store(packed.weight + at, load_some(head->logit + at, units - at));
    }
    return packed;
}

/* The first dense layer of the difference of two states, a vector of units from `at` on. */
INLINE V dense_of(const PackedHead *packed, const REAL *left, const REAL *right, int64_t hidden, int64_t at) {
    V sum = load(packed->bias + at);
    for (int64_t k = 0; k < hidden; k++)
        sum = mul_add(load(packed->dense + k * packed->stride + at), all(left[k] - right[k]), sum);
    return sum;
}

/* relu of the difference by one dense layer, then the other; sums in the order of the units. */
static int64_t logits_of(const TowerJob *job) {
    const int64_t hidden = job->head->hidden;
    const PackedHead packed = packed_head(job->head, blocks_of(job->head->units) * LANES);
    REAL *products = packed.rest;
    if (!packed.memory) return NO_MEMORY;
    for (int64_t pair = 0; pair < job->count; pair++) {
        const REAL *left = job->left.states + pair * hidden, *right = job->right.states + pair * hidden;
        for (int64_t at = 0; at < packed.stride; at += LANES) {
            V sum = dense_of(&packed, left, right, hidden, at);
            sum = (V)((Mask)sum & ~(sum < all(0))); /* a NaN stays */
            store(products + at, sum * load(packed.weight + at));
        }
        REAL logit = *job->head->logit_bias;
        for (int64_t unit = 0; unit < job->head->units; unit++) logit += products[unit];
        job->logits[pair] = logit;
    }
    leave(packed.memory);
    return DONE;
}

int64_t NAME(tower_forward)(const TowerJob *given) {
    TowerJob own = *given, *job = &own;
    int64_t answer;
    if (!job->head) {
        answer = states_of(job, &job->left);
        return with_threads(answer, given->parallel, job->parallel);
    }
    const int64_t size = job->count * job->head->hidden;
    REAL *states = job->left.states ? 0 : room(most(1, 2 * size));
    if (!job->left.states && !states) return NO_MEMORY;
    if (states) job->left.states = states, job->right.states = states + size;
    answer = states_of(job, &job->left);
    if (answer == DONE) answer = states_of(job, &job->right);
    if (answer == DONE) answer = logits_of(job);
    leave(states);
    return with_threads(answer, given->parallel, job->parallel);
}

/* Parts of the sentences in an LSTM's backward pass: a power of two, so that each has some that go side by side. */
static int64_t parts_of(int64_t count) {
    int64_t parts = count >= 8 ? 2 : 1;
    while (count >= 32 && parts < 16 && parts * 32 <= count) parts *= 2;
    return parts;
}

static void lstm_backward(TowerBackwardJob *job, const Places *places, REAL *memory, REAL *g_features) {
    const Sentences *of = &job->sentences;
    const Tower *tower = of->tower;
    const LstmCode *code = tower->lstm;
    LstmJob lstm = lstm_of(of, places, job->count, of->features);
    const int64_t hidden = lstm.hidden, inputs = lstm.inputs, blocks = up(hidden, code->lanes);
    REAL *packed = memory, *packed_x = packed + blocks * blocks * 4 * code->lanes * code->lanes;
    lstm.sums = packed_x + up(inputs, code->lanes) * blocks * 4 * code->lanes * code->lanes;
    code->pack_back(packed, tower->w_hh, hidden, hidden);
    code->pack_back(packed_x, tower->w_ih, inputs, hidden);
    REAL *nowhere = lstm.sums + parts_of(job->count) * blocks * (inputs + hidden + 1) * 4 * code->lanes;
    lstm.packed = packed, lstm.packed_x = packed_x, lstm.h_in = job->g_states, lstm.h_out = nowhere;
    lstm.gates = of->gates, lstm.cells = of->cells, lstm.entries = of->entries, lstm.g_x = g_features;
    lstm.g_w_ih = job->g_w_ih, lstm.g_w_hh = job->g_w_hh, lstm.g_bias = job->g_lstm_bias;
    lstm.parts = parts_of(job->count);
    memset(g_features, 0, places->tokens * inputs * sizeof(REAL)); /* of two sentences in common */
    const int64_t threads = threads_of(&lstm, places->steps, 2, job->threads);
    by_threads(&job->parallel, code->backward, &lstm, threads);
    lstm.next = 0;
    by_threads(&job->parallel, code->give_weights, &lstm, blocks > 1 ? threads : 1);
}

INLINE int64_t of_lstm_backward(const Tower *tower, int64_t count) {
    const int64_t lanes = tower->lstm->lanes, blocks = up(tower->hidden, lanes), inputs = tower->filters / tower->pool;
    const int64_t packed = (blocks + up(inputs, lanes)) * blocks * 4 * lanes * lanes;
    return packed + parts_of(count) * blocks * (inputs + tower->hidden + 1) * 4 * lanes + count * tower->hidden;
}

static int64_t phrases_backward(TowerBackwardJob *job, const Places *places, REAL *g_features) {
    const Sentences *of = &job->sentences;
    const Tower *tower = of->tower;
    PhrasesJob phrases = phrases_of(of, places);
    const int64_t columns = tower->kernel_positions * tower->filters, stride = blocks_of(tower->width) * LANES;
    phrases.part = most(A_PART, tower->weight ? up(phrases.rows, PARTS) : 0);
    phrases.parts = most(up(phrases.rows, phrases.part), 1);
    const int64_t of_sums = tower->weight ? phrases.parts * columns * stride : 0;
    double *biases = malloc(phrases.parts * tower->filters * sizeof(double));
    REAL *memory = room(most(1, of_sums + (job->g_rows && tower->weight ? columns * stride : 0)));
    if (!biases || !memory) {
        free(biases);
        leave(memory);
        return NO_MEMORY;
    }
    phrases.features = g_features, phrases.chosen = of->chosen, phrases.g_bias = biases;
    if (tower->weight) {
        phrases.sums = memory, phrases.g_weight = job->g_weight, phrases.g_vectors = job->g_rows;
        phrases.whole = memory + of_sums;
        for (int64_t column = 0; job->g_rows && column < columns; column++) {
            memset(memory + of_sums + column * stride, 0, stride * sizeof(REAL));
            memcpy(memory + of_sums + column * stride, tower->weight + column * tower->width, tower->width * sizeof(REAL));
        }
    } else
        phrases.g_shares = job->g_rows;
    const int64_t threads = least(job->threads, phrases.rows / (tower->weight ? OF_PRODUCTS : OF_SHARES));
    by_threads(&job->parallel, NAME(phrases_backward), &phrases, least(threads, phrases.parts));
    phrases.next = 0;
    if (tower->weight)
        by_threads(&job->parallel, NAME(phrases_give_weights), &phrases, least(threads, 8));
    else if (phrases.ids)
        by_threads(&job->parallel, NAME(phrases_backward_words), &phrases, least(threads, tower->kernel_positions));
    for (int64_t f = 0; f < tower->filters; f++) {
        double sum = 0;
        for (int64_t part = 0; part < phrases.parts; part++) sum += biases[part * tower->filters + f];
        job->g_bias[f] = sum;
    }
    free(biases);
    leave(memory);
    return phrases.wrong ? WRONG_IDS : DONE;
}

static int64_t gradients_of(TowerBackwardJob *job) {
    const Sentences *of = &job->sentences;
    Places places = places_in(of, job->count, of->places);
    if (!are_alike(of)) { /* as forward left them */
        const int64_t last = job->count - 1;
        places.tokens = job->count ? places.starts[last] + places.lengths[last] + of->tower->kernel_positions - 1 : 0;
        places.steps = places.offsets[job->count];
    }
    const int64_t inputs = of->tower->filters / of->tower->pool;
    REAL *memory = room(most(1, of_lstm_backward(of->tower, job->count) + places.tokens * inputs));
    if (!memory) return NO_MEMORY;
    REAL *g_features = memory + of_lstm_backward(of->tower, job->count);
    lstm_backward(job, &places, memory, g_features);
    const int64_t answer = phrases_backward(job, &places, g_features);
    leave(memory);
    return answer;
}

int64_t NAME(tower_backward)(const TowerBackwardJob *given) {
    TowerBackwardJob job = *given;
    const int64_t answer = gradients_of(&job);
    return with_threads(answer, given->parallel, job.parallel);
}

/* The gradients of the dense layers, and of the left states; those of the right ones are their negatives. What forward
   had between the layers is made again. */
static int64_t head_backward(const PairBackwardJob *job, REAL *g_left, REAL *g_right) {
    const Head *head = job->head;
    const int64_t units = head->units, hidden = head->hidden, wide = blocks_of(hidden) * LANES;
    const int64_t of_sums = blocks_of(units) * LANES * (hidden + 3);
    const PackedHead packed = packed_head(head, of_sums + units * wide);
    if (!packed.memory) return NO_MEMORY;
    REAL *flow = packed.rest, *g_bias = flow + packed.stride, *g_weight = g_bias + packed.stride;
    REAL *g_dense = g_weight + packed.stride, *rows = packed.rest + of_sums; /* "hidden stride"; "units wide" */
    double g_logit_bias = 0;
    memset(packed.rest, 0, (of_sums + units * wide) * sizeof(REAL));
    for (int64_t unit = 0; unit < units; unit++)
        memcpy(rows + unit * wide, head->dense + unit * hidden, hidden * sizeof(REAL));
    for (int64_t pair = 0; pair < job->left.count; pair++) {
        const REAL *left = job->left.sentences.states + pair * hidden, *right = job->right.sentences.states + pair * hidden;
        const V gradient = all(job->g_logits[pair]);
        g_logit_bias += job->g_logits[pair];
        for (int64_t at = 0; at < packed.stride; at += LANES) {
            const V sum = dense_of(&packed, left, right, hidden, at);
            const V rectified = (V)((Mask)sum & ~(sum < all(0)));
            const V own = (V)((Mask)(gradient * load(packed.weight + at)) & ~(sum <= all(0))); /* a NaN stays */
            store(flow + at, own);
            store(g_weight + at, mul_add(gradient, rectified, load(g_weight + at)));
            store(g_bias + at, load(g_bias + at) + own);
            for (int64_t k = 0; k < hidden; k++) {
                REAL *to = g_dense + k * packed.stride + at;
                store(to, mul_add(own, all(left[k] - right[k]), load(to)));
            }
        }
        for (int64_t at = 0; at < wide; at += LANES) {
            V sum = all(0);
            for (int64_t unit = 0; unit < units; unit++) sum = mul_add(all(flow[unit]), load(rows + unit * wide + at), sum);
            store_some(g_left + pair * hidden + at, sum, hidden - at);
            store_some(g_right + pair * hidden + at, -sum, hidden - at);
        }
    }
    for (int64_t unit = 0; unit < units; unit++) {
        job->g_dense_bias[unit] = g_bias[unit], job->g_logit[unit] = g_weight[unit];
        for (int64_t k = 0; k < hidden; k++) job->g_dense[unit * hidden + k] = g_dense[k * packed.stride + unit];
    }
    *job->g_logit_bias = g_logit_bias;
    leave(packed.memory);
    return DONE;
}

int64_t NAME(pair_backward)(const PairBackwardJob *given) {
    TowerBackwardJob left = given->left, right = given->right;
    const int64_t size = left.count * given->head->hidden;
    REAL *g_states = room(most(1, 2 * size));
    if (!g_states) return NO_MEMORY;
    left.g_states = g_states, right.g_states = g_states + size;
    int64_t answer = head_backward(given, g_states, g_states + size);
    if (answer == DONE && left.g_bias) answer = gradients_of(&left);
    right.parallel = left.parallel; /* absent, if it failed */
    if (answer == DONE && right.g_bias) answer = gradients_of(&right);
    leave(g_states);
    return with_threads(answer, given->left.parallel, right.parallel);
}
