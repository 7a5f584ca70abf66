/* An LSTM over sentences of different lengths: one layer and direction, its gradient, and that of its weights.

   Each sentence is walked over by itself, word after word, in one of a few slots; a slot whose sentence ends takes the
   next one. So there is no padding, nothing is sorted into buckets, and what is computed for a sentence does not depend
   on the others: ROWS slots go side by side only so that a weight, once loaded, serves ROWS words.

   Units stand in blocks of LANES, the lanes of a vector; the last block is filled up with units whose weights are 0.
   The packed weights of a block lie in the order in which they are read, for each input first and then each unit of
   the state: gates i, f, g, o, a vector each. What is kept for the backward pass has that order too: of a
   word, for each block its four gates. The gradients of a word's gates lie gate by gate, "4 blocks*LANES", since sums run
   over them: the order of a sum does not depend on LANES.

   SHIFT is 1 for layers of few units. */

#include "lstm.h"

#define SLOTS 24 /* sentences side by side, for which a block's weights stay in the cache */
#define THIN 2   /* sentences, up to which the words are looked at ahead of the steps */
#define COLUMNS 64 /* of weights of x, whose vectors for a block stay in the nearest cache */
#define CHUNK 64 /* words, whose gates stay there while the gradient of the weights is summed */

typedef struct {
    int64_t sentence, left, token, row; /* words left; where the word stands among words, and among rows */
    REAL *h, *next, *c;
} Slot;

INLINE V where(Mask here, V yes, V no) { return (V)(((Mask)yes & here) | ((Mask)no & ~here)); }

/* exp(x) - 1, to the last digits of its own size. */
INLINE V expm1_of(V x) {
    const REAL limit = IS_FLOAT ? 87 : 708;
    x = where(x > all(limit), all(limit), x); /* a NaN stays */
    x = where(x < all(-limit), all(-limit), x);
    const REAL magic = IS_FLOAT ? 12582912.0 : 6755399441055744.0; /* rounds to a whole number, in the lowest bits */
    V shifted = mul_add(x, all((REAL)1.44269504088896340736), all(magic)), n = shifted - magic;
    V r, p;
    if (IS_FLOAT) { /* Cephes: expf */
        r = mul_add(n, all((REAL)-0.693359375), x);
        r = mul_add(n, all((REAL)2.12194440e-4), r);
        p = all((REAL)1.9875691500e-4);
        p = mul_add(p, r, all((REAL)1.3981999507e-3));
        p = mul_add(p, r, all((REAL)8.3334519073e-3));
        p = mul_add(p, r, all((REAL)4.1665795894e-2));
        p = mul_add(p, r, all((REAL)1.6666665459e-1));
        p = mul_add(p, r, all((REAL)5.0000001201e-1));
    } else { /* Taylor, |r| < 0.35 */
        r = mul_add(n, all((REAL)-6.93147180369123816490e-01), x);
        r = mul_add(n, all((REAL)-1.90821492927058770002e-10), r);
        const double factorials[] = {87178291200., 6227020800., 479001600., 39916800., 3628800., 362880., 40320.,
                                     5040., 720., 120., 24., 6., 2.};
        p = all((REAL)(1 / factorials[0]));
        _Pragma("GCC unroll 16") for (int term = 1; term < 13; term++)
            p = mul_add(p, r, all((REAL)(1 / factorials[term])));
    }
    p = mul_add(p * r, r, r);
    const int bits = IS_FLOAT ? 23 : 52, bias = IS_FLOAT ? 127 : 1023;
    V power = (V)(((Mask)shifted + bias) << bits);
    return mul_add(p, power, power - 1);
}
INLINE V sigmoid(V x) { return 1 / (expm1_of(-x) + 2); }
INLINE V tanh_of(V x) {
    V e = expm1_of(x * -2);
    return -e / (e + 2);
}

int64_t NAME(lanes)(void) { return LANES; }

/* Words before each sentence, and sentences by length, longest first (about so, where some are very long). Returns the
   number of words; -1 where a sentence does not lie inside the rows. */
int64_t NAME(lstm_lay_out)(const int64_t *starts, const int64_t *lengths, int64_t span, int64_t batch, int64_t rows,
                           int64_t *offsets, int64_t *order) {
    enum { CLASSES = 512 };
    int64_t places[CLASSES + 1] = {0}, longest = 0;
    offsets[0] = 0;
    for (int64_t s = 0; s < batch; s++) {
        int64_t start = starts ? starts[s] : s * span;
        if (start < 0 || lengths[s] < 0 || lengths[s] > rows - start) return -1;
        offsets[s + 1] = offsets[s] + lengths[s];
        longest = lengths[s] > longest ? lengths[s] : longest;
    }
    int64_t size = longest / CLASSES + 1, before = 0;
    for (int64_t s = 0; s < batch; s++) places[CLASSES - lengths[s] / size]++;
    for (int64_t class = 0; class <= CLASSES; class++) {
        int64_t count = places[class];
        places[class] = before;
        before += count;
    }
    for (int64_t s = 0; s < batch; s++) order[places[CLASSES - lengths[s] / size]++] = s;
    return offsets[batch];
}

/* "blocks inputs+hidden 4 LANES", then the biases, "blocks 4 LANES". */
void NAME(lstm_pack)(REAL *to, const REAL *w_ih, const REAL *w_hh, const REAL *bias, int64_t inputs, int64_t hidden) {
    const int64_t blocks = blocks_of(hidden);
    for (int64_t block = 0; block < blocks; block++)
        for (int64_t gate = 0; gate < 4; gate++) {
            const int64_t count = least(LANES, hidden - block * LANES), row = gate * hidden + block * LANES;
            for (int state = 0; state < 2; state++) {
                const int64_t columns = state ? hidden : inputs;
                const REAL *from = (state ? w_hh : w_ih) + row * columns;
                REAL *start = to + ((block * (inputs + hidden) + (state ? inputs : 0)) * 4 + gate) * LANES;
                turn(start, 4 * LANES, from, columns, count, columns);
            }
            V own = bias ? load_some(bias + row, count) : all(0);
            store(to + ((blocks * (inputs + hidden) + block) * 4 + gate) * LANES, own);
        }
}

/* Weights "4*hidden width" by vectors of their columns, of which four, then two, then one go together:
   "vectors/4 4*blocks*LANES 4 LANES", and so on. */
void NAME(lstm_pack_back)(REAL *to, const REAL *weights, int64_t width, int64_t hidden) {
    const int64_t blocks = blocks_of(hidden), vectors = blocks_of(width);
    for (int64_t vector = 0, here; vector < vectors; vector += here) {
        here = together(vectors - vector);
        for (int64_t place = 0; place < 4 * blocks * LANES; place++) {
            const int64_t gate = place / (blocks * LANES), unit = place % (blocks * LANES);
            const REAL *from = weights + (gate * hidden + unit) * width;
            for (int64_t v = vector; v < vector + here; v++, to += LANES)
                store(to, unit < hidden ? load_some(from + v * LANES, width - v * LANES) : all(0));
        }
    }
}

/* A sentence into a slot; `last`: from its other end. */
INLINE void enter(const LstmJob *job, Slot *slot, int64_t sentence, int last) {
    int64_t length = job->lengths ? job->lengths[sentence] : job->steps, at = last ? length - 1 : 0;
    slot->sentence = sentence;
    slot->left = length;
    slot->token = (job->offsets ? job->offsets[sentence] : sentence * job->steps) + at;
    slot->row = (job->starts ? job->starts[sentence] : sentence * job->span) + at;
}

/* Its state, from where it lies for the whole batch; 0 where that is absent. */
INLINE void fill(REAL *to, const REAL *from, int64_t sentence, int64_t hidden) {
    memset(to, 0, blocks_of(hidden) * LANES * sizeof(REAL));
    if (from) memcpy(to, from + sentence * hidden, hidden * sizeof(REAL));
}

/* Some columns of a block's weights of x, by vectors of units. */
INLINE void pack_columns(REAL *to, const AheadJob *job, int64_t block, int64_t first, int64_t columns) {
    const int64_t inputs = job->lstm->inputs, hidden = job->lstm->hidden, unit = block * LANES;
    for (int64_t gate = 0; gate < 4; gate++)
        turn(to + gate * LANES, 4 * LANES, job->w_ih + (gate * hidden + unit) * inputs + first, inputs,
             least(LANES, hidden - unit), columns);
}

/* The memory that `pack_columns` will read, on its way while others are multiplied. */
INLINE void fetch_columns(const AheadJob *job, int64_t block, int64_t first) {
    const int64_t inputs = job->lstm->inputs, hidden = job->lstm->hidden, unit = block * LANES;
    const int64_t units = least(LANES, hidden - unit), columns = least(COLUMNS, inputs - first);
    for (int64_t gate = 0; gate < 4; gate++)
        for (int64_t row = 0; row < units; row++) {
            const REAL *from = job->w_ih + (gate * hidden + unit + row) * inputs + first;
            for (int64_t k = 0; k < columns; k += 64 / (int64_t)sizeof(REAL)) __builtin_prefetch(from + k);
        }
}

/* The bias and the products with the weights of x, of one block of units and all rows: for a few rows, for which packing
   would take longer. The sums are those of `step_forward`, in the same order. */
static void block_ahead(const AheadJob *job, int64_t block) {
    const int64_t inputs = job->lstm->inputs, hidden = job->lstm->hidden, blocks = blocks_of(hidden);
    V packed[COLUMNS * 4], bias[4];
    for (int64_t gate = 0; gate < 4; gate++)
        bias[gate] = job->bias ? load_some(job->bias + gate * hidden + block * LANES, hidden - block * LANES) : all(0);
    for (int64_t column = 0; column < inputs; column += COLUMNS) {
        const int64_t columns = least(COLUMNS, inputs - column);
        pack_columns((REAL *)packed, job, block, column, columns);
        if (column + COLUMNS < inputs) fetch_columns(job, block, column + COLUMNS);
        else if (block + 1 < blocks) fetch_columns(job, block + 1, 0);
#define AHEAD(begin, n)                                                                                                \
    {                                                                                                                  \
        REAL *to = job->to + (begin)*job->apart + block * 4 * LANES;                                                   \
        const REAL *x[ROWS];                                                                                           \
        V sum[ROWS][4];                                                                                                \
        for (int r = 0; r < n; r++) {                                                                                  \
            x[r] = job->lstm->x + ((begin) + r) * inputs + column;                                                     \
            for (int g = 0; g < 4; g++) sum[r][g] = column ? load(to + r * job->apart + g * LANES) : bias[g];          \
        }                                                                                                              \
        products_##n##_4(sum, x, columns, x, 0, (const REAL *)packed);                                                 \
        for (int r = 0; r < n; r++)                                                                                    \
            for (int g = 0; g < 4; g++) store(to + r * job->apart + g * LANES, sum[r][g]);                             \
    }
        GROUPS(job->rows, AHEAD)
#undef AHEAD
    }
}

BY_THREADS(lstm_ahead) {
    AheadJob *job = shared;
    for (int64_t block; (block = take(&job->next)) < blocks_of(job->lstm->hidden);) block_ahead(job, block);
}

/* A word of n sentences, one block of units. */
static void step_forward(const LstmJob *job, const Slot *slots, int64_t block, const REAL *ahead, int n,
                         Products *products) {
    const int64_t inputs = job->ahead ? 0 : job->inputs, hidden = job->hidden, blocks = blocks_of(hidden);
    const REAL *w = job->packed + block * (inputs + hidden) * 4 * LANES, *x[ROWS], *h[ROWS];
    const REAL *bias = job->packed + (blocks * (inputs + hidden) + block) * 4 * LANES;
    V sum[ROWS][4];
    for (int r = 0; r < n; r++) {
        const int64_t of_ahead = job->ids ? job->ids[slots[r].row] : slots[r].row;
        const REAL *begin = job->ahead ? job->ahead + of_ahead * job->ahead_apart + block * 4 * LANES
                            : ahead    ? ahead + (r * ROWS * blocks + block) * 4 * LANES
                                       : bias;
        x[r] = job->x + slots[r].row * inputs;
        h[r] = slots[r].h;
        UNROLL for (int g = 0; g < 4; g++) sum[r][g] = load(begin + g * LANES);
    }
    if (ahead)
        products(sum, x, 0, h, hidden, w + inputs * 4 * LANES);
    else
        products(sum, x, inputs, h, hidden, w);
    for (int r = 0; r < n; r++) {
        const Slot *slot = slots + r;
        V i = sigmoid(sum[r][0]), f = sigmoid(sum[r][1]), g = tanh_of(sum[r][2]), o = sigmoid(sum[r][3]);
        V c = mul_add(f, load(slot->c + block * LANES), i * g), after = o * tanh_of(c);
        store(slot->c + block * LANES, c);
        store(slot->next + block * LANES, after);
        if (job->gates) {
            int64_t place = slot->token * blocks + block;
            REAL *kept = job->gates + place * 4 * LANES;
            store(kept, i), store(kept + LANES, f), store(kept + 2 * LANES, g), store(kept + 3 * LANES, o);
            store(job->cells + place * LANES, c);
            store(job->entries + place * LANES, load(slot->h + block * LANES));
        }
        if (job->y) store_some(job->y + slot->row * job->apart + block * LANES, after, hidden - block * LANES);
    }
}

/* What the sums of some words of one sentence begin with: the bias and their products with the weights of x. */
static void step_ahead(const LstmJob *job, const Slot *slot, int64_t block, int64_t first, REAL *ahead, int n,
                       Products *products) {
    const int64_t inputs = job->inputs, hidden = job->hidden, blocks = blocks_of(hidden), way = job->reverse ? -1 : 1;
    const REAL *w = job->packed + block * (inputs + hidden) * 4 * LANES, *x[ROWS];
    const REAL *bias = job->packed + (blocks * (inputs + hidden) + block) * 4 * LANES;
    V sum[ROWS][4];
    for (int r = 0; r < n; r++) {
        x[r] = job->x + (slot->row + way * (first + r)) * inputs;
        for (int g = 0; g < 4; g++) sum[r][g] = load(bias + g * LANES);
    }
    products(sum, x, inputs, x, 0, w);
    for (int r = 0; r < n; r++)
        for (int g = 0; g < 4; g++) store(ahead + (((first + r) * blocks + block) * 4 + g) * LANES, sum[r][g]);
}

/* In the backward pass, from the last word to the first, a slot's h and c are the gradients of the state behind a
   word, and `next` is the cell before the first. First the gradients of a word's gates. */
static void gates_backward(const LstmJob *job, const Slot *slot, REAL *flow) {
    const int64_t hidden = job->hidden, blocks = blocks_of(hidden), width = blocks * LANES, way = job->reverse ? 1 : -1;
    for (int64_t block = 0; block < blocks; block++, flow += LANES) {
        const int64_t place = slot->token * blocks + block, at = block * LANES;
        const REAL *kept = job->gates + place * 4 * LANES, *cell = job->cells + place * LANES;
        V i = load(kept), f = load(kept + LANES), g = load(kept + 2 * LANES), o = load(kept + 3 * LANES);
        V end = tanh_of(load(cell)), before = load(slot->left > 1 ? cell + way * width : slot->next + at);
        V d_h = load(slot->h + at), d_c = load(slot->c + at);
        if (job->y) d_h += load_some(job->y + slot->row * job->apart + at, hidden - at);
        d_c = mul_add(d_h * o, mul_add(-end, end, all(1)), d_c);
        store(flow, d_c * g * i * (1 - i));
        store(flow + width, d_c * before * f * (1 - f));
        store(flow + 2 * width, d_c * i * mul_add(-g, g, all(1)));
        store(flow + 3 * width, d_h * end * o * (1 - o));
        store(slot->c + at, d_c * f);
    }
}

/* Then those of n states before their words, and of n words: `vectors` vectors, from `vector` on. */
static void state_backward(const LstmJob *job, const Slot *slots, const REAL *flow, int64_t vector, int n, int vectors,
                           Products *products) {
    const int64_t width = 4 * blocks_of(job->hidden) * LANES;
    const REAL *gates[ROWS];
    V sum[ROWS][4];
    for (int r = 0; r < n; r++) {
        gates[r] = flow + r * width;
        for (int v = 0; v < vectors; v++) sum[r][v] = all(0);
    }
    products(sum, gates, width, gates, 0, job->packed + vector * width * LANES);
    for (int r = 0; r < n; r++)
        for (int v = 0; v < vectors; v++) store(slots[r].h + (vector + v) * LANES, sum[r][v]);
}

static void words_backward(const LstmJob *job, REAL *const *g_x, const REAL *flow, int64_t vector, int n, int vectors,
                           Products *products) {
    const int64_t width = 4 * blocks_of(job->hidden) * LANES;
    const REAL *gates[ROWS];
    V sum[ROWS][4];
    for (int r = 0; r < n; r++) {
        gates[r] = flow + r * width;
        for (int v = 0; v < vectors; v++) sum[r][v] = all(0);
    }
    products(sum, gates, width, gates, 0, job->packed_x + vector * width * LANES);
    for (int r = 0; r < n; r++)
        for (int v = 0; v < vectors; v++)
            store_some(g_x[r] + (vector + v) * LANES, sum[r][v], job->inputs - (vector + v) * LANES);
}

/* sums[k][g] += gates[word][g] * from[word][k], for n neighbouring k and some words. */
#define ADD_COLUMNS(n)                                                                                                 \
    static __attribute__((noinline)) void add_columns_##n(REAL *sums, const REAL *const *from, int64_t k,              \
                                                          const REAL *gates, int64_t width, int64_t words) {           \
        V sum[n][4];                                                                                                   \
        UNROLL for (int r = 0; r < n; r++) UNROLL for (int g = 0; g < 4; g++)                                          \
            sum[r][g] = load(sums + (r * 4 + g) * LANES);                                                              \
        for (int64_t word = 0; word < words; word++, gates += 4 * width) {                                             \
            V own[4];                                                                                                  \
            UNROLL for (int g = 0; g < 4; g++) own[g] = load(gates + g * width);                                       \
            UNROLL for (int r = 0; r < n; r++) {                                                                       \
                V value = all(from[word][k + r]);                                                                      \
                UNROLL for (int g = 0; g < 4; g++) sum[r][g] = mul_add(own[g], value, sum[r][g]);                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int r = 0; r < n; r++) UNROLL for (int g = 0; g < 4; g++)                                          \
            store(sums + (r * 4 + g) * LANES, sum[r][g]);                                                              \
    }
UP_TO_ROWS(ADD_COLUMNS)

/* Words of which no more than the gradients of their gates is known yet. */
typedef struct {
    int64_t count;
    const REAL *x[CHUNK], *h[CHUNK], *ones[CHUNK];
    REAL *g_x[CHUNK], *flow, *sums;
} Chunk;

static void flush(const LstmJob *job, Chunk *chunk) {
    const int64_t inputs = job->inputs, hidden = job->hidden, blocks = blocks_of(hidden);
    for (int64_t block = 0; block < blocks; block++) {
        const REAL *flow = chunk->flow + block * LANES;
        REAL *sums = chunk->sums + block * (inputs + hidden + 1) * 4 * LANES;
#define ADD(first, n) add_columns_##n(sums + (first)*4 * LANES, chunk->x, first, flow, blocks * LANES, chunk->count)
        GROUPS(inputs, ADD)
#undef ADD
        sums += inputs * 4 * LANES;
#define ADD(first, n) add_columns_##n(sums + (first)*4 * LANES, chunk->h, first, flow, blocks * LANES, chunk->count)
        GROUPS(hidden, ADD)
#undef ADD
        add_columns_1(sums + hidden * 4 * LANES, chunk->ones, 0, flow, blocks * LANES, chunk->count);
    }
    if (job->g_x) {
        const int n = chunk->count;
#define WORDS(first, count, vectors)                                                                                   \
    words_backward(job, chunk->g_x + (first), chunk->flow + (first)*4 * blocks * LANES, vector, count, vectors,        \
                   products_##count##_##vectors)
#define WORDS_4(first, count) WORDS(first, count, 4)
#define WORDS_2(first, count) WORDS(first, count, 2)
#define WORDS_1(first, count) WORDS(first, count, 1)
        VECTORS(blocks_of(inputs), WORDS)
    }
    chunk->count = 0;
}

/* `steps` words of n sentences. */
static void run_forward(const LstmJob *job, Slot *slots, int n, int64_t steps, REAL *ahead) {
    const int64_t blocks = blocks_of(job->hidden), way = job->reverse ? -1 : 1;
    for (int64_t begin = 0; steps; begin = (begin + 1) % ROWS, steps--) {
        if (ahead && !begin) { /* a few words of a sentence at once, as there are too few sentences */
            const int count = least(ROWS, steps);
            for (int64_t block = 0; block < blocks; block++)
                for (int r = 0; r < n; r++) {
#define AHEAD(first, count)                                                                                            \
    step_ahead(job, slots + r, block, first, ahead + r * ROWS * blocks * 4 * LANES, count, products_##count##_4)
                    GROUPS(count, AHEAD)
#undef AHEAD
                }
        }
        for (int64_t block = 0; block < blocks; block++) {
#define STEP(first, count)                                                                                             \
    step_forward(job, slots + first, block, ahead ? ahead + (first * ROWS + begin) * blocks * 4 * LANES : 0, count,    \
                 products_##count##_4)
            GROUPS(n, STEP)
#undef STEP
        }
        for (int r = 0; r < n; r++) {
            REAL *before = slots[r].h;
            slots[r].h = slots[r].next, slots[r].next = before;
            slots[r].token += way, slots[r].row += way, slots[r].left--;
        }
    }
}

static void run_backward(const LstmJob *job, Slot *slots, int n, int64_t steps, Chunk *chunk) {
    const int64_t way = job->reverse ? 1 : -1, width = blocks_of(job->hidden) * LANES;
    for (; steps; steps--) {
        if (chunk->count + n > CHUNK) flush(job, chunk);
        REAL *flow = chunk->flow + chunk->count * 4 * width;
        for (int r = 0; r < n; r++, chunk->count++) {
            gates_backward(job, slots + r, flow + r * 4 * width);
            chunk->x[chunk->count] = job->x + slots[r].row * job->inputs;
            chunk->h[chunk->count] = job->entries + slots[r].token * width;
            chunk->g_x[chunk->count] = job->g_x ? job->g_x + slots[r].row * job->inputs : 0;
        }
#define STATE(first, count, vectors)                                                                                   \
    state_backward(job, slots + (first), flow + (first)*4 * width, vector, count, vectors, products_##count##_##vectors)
#define STATE_4(first, count) STATE(first, count, 4)
#define STATE_2(first, count) STATE(first, count, 2)
#define STATE_1(first, count) STATE(first, count, 1)
        VECTORS(width / LANES, STATE)
        for (int r = 0; r < n; r++) slots[r].token += way, slots[r].row += way, slots[r].left--;
    }
}

/* One part of the sentences, dealt like cards, in either direction. */
static void walk(const LstmJob *job, int64_t part, int back) {
    const int64_t hidden = job->hidden, width = blocks_of(hidden) * LANES;
    const int64_t sums = blocks_of(hidden) * (job->inputs + hidden + 1) * 4 * LANES;
    REAL *memory = room(SLOTS * 3 * width + (back ? CHUNK : ROWS * THIN) * 4 * width), one = 1;
    Slot slots[SLOTS];
    for (int r = 0; r < SLOTS; r++) {
        slots[r].h = memory + r * 3 * width;
        slots[r].next = slots[r].h + width;
        slots[r].c = slots[r].next + width;
    }
    Chunk chunk = {0};
    if (back) {
        chunk.flow = memory + SLOTS * 3 * width;
        chunk.sums = job->sums + part * sums;
        memset(chunk.sums, 0, sums * sizeof(REAL));
        for (int word = 0; word < CHUNK; word++) chunk.ones[word] = &one;
    }
    int n = 0;
    for (int64_t rank = part; n || rank < job->batch;) {
        for (; n < SLOTS && rank < job->batch; rank += job->parts) {
            int64_t sentence = job->order ? job->order[rank] : rank;
            enter(job, slots + n, sentence, back != (int)job->reverse);
            fill(slots[n].h, job->h_in, sentence, hidden);
            fill(slots[n].c, job->c_in, sentence, hidden);
            if (back) fill(slots[n].next, job->c_0, sentence, hidden);
            n++;
        }
        int64_t steps = slots[0].left;
        for (int r = 1; r < n; r++) steps = least(steps, slots[r].left);
        if (back)
            run_backward(job, slots, n, steps, &chunk);
        else
            run_forward(job, slots, n, steps, !job->ahead && n <= THIN && steps > 1 ? memory + SLOTS * 3 * width : 0);
        for (int r = n - 1; r >= 0; r--)
            if (!slots[r].left) {
                Slot done = slots[r];
                memcpy(job->h_out + done.sentence * hidden, done.h, hidden * sizeof(REAL));
                if (job->c_out) memcpy(job->c_out + done.sentence * hidden, done.c, hidden * sizeof(REAL));
                slots[r] = slots[--n];
                slots[n] = done;
            }
    }
    if (back) flush(job, &chunk);
    leave(memory);
}

/* The sum over the parts, in order, where the gradient of the weights is wanted; one block of units. */
static void unpack(const LstmJob *job, int64_t block) {
    const int64_t inputs = job->inputs, hidden = job->hidden, blocks = blocks_of(hidden), columns = inputs + hidden + 1;
    const int64_t units = least(LANES, hidden - block * LANES);
    for (int64_t gate = 0; gate < 4; gate++)
        for (int kind = 0; kind < 3; kind++) {
            const int64_t width = kind == 0 ? inputs : kind == 1 ? hidden : 1;
            const int64_t first = kind == 0 ? 0 : kind == 1 ? inputs : inputs + hidden;
            REAL *to = (kind == 0 ? job->g_w_ih : kind == 1 ? job->g_w_hh : job->g_bias);
            to += (gate * hidden + block * LANES) * width;
            for (int64_t k = 0; k < width; k += LANES) {
                const int64_t here = least(LANES, width - k);
                V square[LANES];
                for (int64_t at = 0; at < LANES; at++) {
                    square[at] = all(0);
                    for (int64_t part = 0; at < here && part < job->parts; part++)
                        square[at] += load(
                            job->sums + (((part * blocks + block) * columns + first + k + at) * 4 + gate) * LANES);
                }
                transpose(square, LANES);
                for (int64_t unit = 0; unit < units; unit++) store_some(to + unit * width + k, square[unit], here);
            }
        }
}

BY_THREADS(lstm_forward) {
    LstmJob *job = shared;
    for (int64_t part; (part = take(&job->next)) < job->parts;) walk(job, part, 0);
}

BY_THREADS(lstm_backward) {
    LstmJob *job = shared;
    for (int64_t part; (part = take(&job->next)) < job->parts;) walk(job, part, 1);
}

BY_THREADS(lstm_give_weights) {
    LstmJob *job = shared;
    for (int64_t block; (block = take(&job->next)) < blocks_of(job->hidden);) unpack(job, block);
}
