/* The k best items of each query, exact, of a score that is a small network of a difference:

   score(query, item) = offset + sum_k weights[k] relu(query[k] - item[k])

   Blocks of queries meet blocks of items, and each query keeps the best so far in a heap: no matrix of scores is made.
   Larger scores are better, and of equal ones smaller ids: an order without ties, so that blocks and threads change
   nothing. All sums have the same order, so that each score has the same bits wherever it is computed.

   Items lie BLOCK side by side, "blocks dense BLOCK". Where they were put in order (`arrange`), a box is BOX blocks, and
   a group is BLOCK boxes. Of each is known between which values its items' numbers lie: their rows, and their states. So
   a term weight * relu(query - item) is at most a line in the state: where all items are on one side of the kink, the
   term itself; else the chord above it (of a positive weight), or the better of relu's two lines (of a negative one).
   The sum of the lines is a line, and the highest value that it has in the box of states is a bound. Lines of positive
   and negative weights cancel before that, as they do in the scores (Zhang et al., CROWN, 2018, bound networks so). The
   sum of the highest values of the single terms is another bound; the smaller one counts. `slack` and what `margin` adds
   are above all that rounding can do.

   A query walks from the best bound to the next one: a group is opened, and the bounds of its boxes are computed; of a
   box the items are scored; until no bound reaches the k-th best score. A pair of a walk costs more than one of a scan,
   by how much depends on the machine and on where the items lie. So walks are timed. A walk is given up after the
   time in which its query would meet all items; all walks that are given up may take LOSS of the time in which all
   queries of the part would, and half of what other walks saved. Such queries meet all items instead, together. */

#include "vectors.h"

#include <math.h>
#include <time.h>

enum { BLOCK = 16, BOX = 8, AT_ONCE = 8, TILE = 256, STEPS = 8 };
/* items; blocks; queries or vectors; blocks that stay in cache; steps of a walk between looks at the clock */
#define LOSS 0.04
#define VECTORS_OF_BLOCK (BLOCK / LANES)

typedef struct {
    const REAL *queries;        /* "queries dense" */
    const REAL *weights;        /* "dense" */
    const REAL *blocks;         /* the items */
    const int64_t *ids;         /* "count", the id of each item */
    const uint8_t *keep;        /* "count": whether a query may find the item; absent: all */
    const int64_t *hidden_items; /* items that a single query may not find, sorted for each query; may be absent */
    const int64_t *hidden_from; /* "queries+1": where those of each query begin */
    const REAL *boxes;          /* "blocks fields BLOCK", of all boxes and then of all groups; absent: no walks */
    const REAL *states;         /* "dense hidden", by which a state is multiplied to be an item's row */
    REAL *scores;               /* "queries k"; -inf where nothing was found */
    int64_t *found;             /* "queries k", ids */
    int64_t *computed;          /* "queries": pairs and bounds that were scored; negative: the walk was given up */
    double offset, least;       /* no smaller score than `least` is wanted */
    double slack, rounding;     /* what bounds are too low by at most: of all queries, and for each 1 of |query| */
    double pace;                /* nanoseconds of a pair where queries meet all items; infinite: no walk is given up */
    int64_t count, dense, hidden, n_queries, k;
    int64_t part, parts, next; /* queries of a part, parts, and the next one to take */
} Job;

typedef struct {
    REAL score;
    int64_t id;
} Found;

typedef struct {
    REAL least; /* a score below is not wanted */
    int64_t query, count;
    Found *heap; /* whose root is the worst */
} Top;

INLINE V relu(V x) {
#if defined(__AVX512F__)
    return IS_FLOAT ? (V)_mm512_max_ps((__m512)x, _mm512_setzero_ps()) : (V)_mm512_max_pd((__m512d)x, _mm512_setzero_pd());
#elif defined(__AVX2__)
    return IS_FLOAT ? (V)_mm256_max_ps((__m256)x, _mm256_setzero_ps()) : (V)_mm256_max_pd((__m256d)x, _mm256_setzero_pd());
#else
    return (V)((Mask)x & (x > all(0)));
#endif
}

/* A bit for each lane that reaches the least wanted score. */
INLINE uint32_t reaches(V x, REAL least) {
#if defined(__AVX512F__)
    return IS_FLOAT ? _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(least), _CMP_GE_OQ)
                    : _mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(least), _CMP_GE_OQ);
#elif defined(__AVX2__)
    return IS_FLOAT ? _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(least), _CMP_GE_OQ))
                    : _mm256_movemask_pd(_mm256_cmp_pd((__m256d)x, _mm256_set1_pd(least), _CMP_GE_OQ));
#else
    const Mask reached = x >= all(least);
    uint32_t lanes = 0;
    for (int lane = 0; lane < LANES; lane++) lanes |= (uint32_t)(reached[lane] != 0) << lane;
    return lanes;
#endif
}

/* sum[q][v] = the scores of n queries and of the items in m vectors; both are known when this is compiled. */
INLINE void score(V (*sum)[AT_ONCE], const REAL *query, const REAL *const *item, const REAL *weights, REAL offset,
                  const int64_t dense, const int n, const int m) {
    UNROLL for (int q = 0; q < n; q++) UNROLL for (int v = 0; v < m; v++) sum[q][v] = all(offset);
    for (int64_t k = 0; k < dense; k++) {
        const V weight = all(weights[k]);
        V own[AT_ONCE];
        UNROLL for (int v = 0; v < m; v++) own[v] = load(item[v] + k * BLOCK);
        UNROLL for (int q = 0; q < n; q++) {
            const V a = all(query[q * dense + k]);
            UNROLL for (int v = 0; v < m; v++) sum[q][v] = mul_add(weight, relu(a - own[v]), sum[q][v]);
        }
    }
}

/* The best so far. */

INLINE int worse(Found one, Found other) {
    return one.score < other.score || (one.score == other.score && one.id > other.id);
}

static void sift_down(Found *heap, int64_t count, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && worse(heap[child + 1], heap[child])) child++;
        if (!worse(heap[child], heap[at])) return;
        const Found one = heap[child];
        heap[child] = heap[at], heap[at] = one;
    }
}

static void sift_up(Found *heap, int64_t at) {
    for (int64_t parent; at && worse(heap[at], heap[parent = (at - 1) / 2]); at = parent) {
        const Found one = heap[parent];
        heap[parent] = heap[at], heap[at] = one;
    }
}

static int is_hidden(const Job *job, int64_t query, int64_t place) {
    int64_t first = job->hidden_from[query], last = job->hidden_from[query + 1];
    while (first < last) {
        const int64_t middle = first + (last - first) / 2;
        if (job->hidden_items[middle] < place)
            first = middle + 1;
        else
            last = middle;
    }
    return first < job->hidden_from[query + 1] && job->hidden_items[first] == place;
}

/* A vector of items, of which some `lanes` reach the least wanted score. */
static __attribute__((noinline)) void offer(const Job *job, Top *top, const V *scores, uint32_t lanes, int64_t place) {
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const REAL score = (*scores)[lane];
        if (place + lane >= job->count) return;
        if (!(score >= top->least) || (job->keep && !job->keep[place + lane])) continue;
        if (job->hidden_items && is_hidden(job, top->query, place + lane)) continue;
        const Found one = {score, job->ids[place + lane]};
        if (top->count < job->k) {
            top->heap[top->count] = one;
            sift_up(top->heap, top->count++);
        } else if (worse(top->heap[0], one)) {
            top->heap[0] = one;
            sift_down(top->heap, job->k, 0);
        } else
            continue;
        if (top->count == job->k) top->least = top->heap[0].score;
    }
}

/* The heap becomes the results, best first. */
static void give(const Job *job, Top *top) {
    REAL *scores = job->scores + top->query * job->k;
    int64_t *found = job->found + top->query * job->k;
    for (int64_t at = top->count; at < job->k; at++) scores[at] = -INFINITY, found[at] = INT64_MAX;
    while (top->count) {
        const int64_t at = --top->count;
        scores[at] = top->heap[0].score, found[at] = top->heap[0].id;
        top->heap[0] = top->heap[at];
        sift_down(top->heap, at, 0);
    }
}

/* All items for these queries, AT_ONCE at a time; `rows` and `tops` are filled up to a multiple of it. */
INLINE void scan_all(const Job *job, const REAL *rows, Top *tops, int64_t n, const int64_t dense) {
    const int64_t blocks = (job->count + BLOCK - 1) / BLOCK;
    for (int64_t tile = 0; tile < blocks; tile += TILE)
        for (int64_t q = 0; q < n; q += AT_ONCE)
            for (int64_t block = tile; block < least(blocks, tile + TILE); block++)
                for (int part = 0; part < VECTORS_OF_BLOCK; part++) {
                    V sum[AT_ONCE][AT_ONCE];
                    const REAL *item = job->blocks + block * dense * BLOCK + part * LANES;
                    score(sum, rows + q * dense, &item, job->weights, job->offset, dense, AT_ONCE, 1);
                    UNROLL for (int i = 0; i < AT_ONCE; i++) {
                        const uint32_t lanes = reaches(sum[i][0], tops[q + i].least);
                        if (__builtin_expect(lanes, 0))
                            offer(job, tops + q + i, &sum[i][0], lanes, block * BLOCK + part * LANES);
                    }
                }
}

static void scan(const Job *job, const REAL *rows, Top *tops, int64_t n) {
    if (job->dense == 16)
        scan_all(job, rows, tops, n, 16);
    else
        scan_all(job, rows, tops, n, job->dense);
}

/* Boxes, and the walks of queries. */

typedef struct {
    REAL bound;
    int64_t box;
} Rank;

static void sink(Rank *ranks, int64_t count, int64_t at) {
    for (int64_t child; (child = 2 * at + 1) < count; at = child) {
        if (child + 1 < count && ranks[child + 1].bound > ranks[child].bound) child++;
        if (!(ranks[child].bound > ranks[at].bound)) return;
        const Rank one = ranks[child];
        ranks[child] = ranks[at], ranks[at] = one;
    }
}

/* DO(vectors, first) for the scores of one query and `count` vectors of blocks. */
INLINE void score_one(const Job *job, const REAL *query, const REAL *blocks, int64_t first, V (*sum)[AT_ONCE],
                      const int m) {
    const REAL *item[AT_ONCE];
    UNROLL for (int v = 0; v < m; v++) {
        const int64_t vector = first + v;
        item[v] = blocks + vector / VECTORS_OF_BLOCK * job->dense * BLOCK + vector % VECTORS_OF_BLOCK * LANES;
    }
    if (job->dense == 16)
        score(sum, query, item, job->weights, job->offset, 16, 1, m);
    else
        score(sum, query, item, job->weights, job->offset, job->dense, 1, m);
}

/* Fields of a box: the least and the largest numbers of the rows ("dense" each), the middle of the states and how far
   they are from it at most ("hidden" each). The bounds of the boxes in one vector; `start` is the offset and the margin,
   `slope` room for "hidden" vectors. */
INLINE V bounds_of(const Job *job, const REAL *query, const REAL *box, REAL start, V *slope, const int64_t dense,
                   const int64_t hidden) {
    V sum = all(start), terms = sum;
    UNROLL for (int64_t j = 0; j < hidden; j++) slope[j] = all(0);
    for (int64_t k = 0; k < dense; k++) {
        const REAL weight = job->weights[k], a = query[k];
        const V most = all(a) - load(box + k * BLOCK), fewest = all(a) - load(box + (dense + k) * BLOCK);
        V line; /* the weight of query - item, where relu has it */
        if (weight > 0) {
            const V low = fewest - relu(fewest), high = relu(most); /* of query - item, up to the kink or from it on */
            const V wide = high - low, tiny = all(IS_FLOAT ? 1e-30f : 1e-300);
            line = all(weight) * (high / (tiny + relu(wide - tiny)));
            sum = mul_add(line, all(a) - low, sum);
            terms = mul_add(all(weight), high, terms);
        } else {
            line = (V)((Mask)all(weight) & (most + fewest > all(0)));
            sum = mul_add(line, all(a), sum);
            terms = mul_add(all(weight), relu(fewest), terms);
        }
        UNROLL for (int64_t j = 0; j < hidden; j++) slope[j] = mul_add(line, all(job->states[k * hidden + j]), slope[j]);
    }
    const REAL *state = box + 2 * dense * BLOCK;
    UNROLL for (int64_t j = 0; j < hidden; j++) {
        const V falls = all(0) - slope[j], middle = load(state + j * BLOCK), far = load(state + (hidden + j) * BLOCK);
        sum = mul_add(falls, middle, sum);
        sum = mul_add(relu(falls) + relu(slope[j]), far, sum);
    }
    return terms - relu(terms - sum); /* the smaller one */
}

/* The bounds of `count` boxes, in whole vectors. */
static void upper_bounds(const Job *job, const REAL *query, const REAL *boxes, int64_t count, REAL start, V *slope,
                         REAL *upper) {
    const int64_t fields = 2 * (job->dense + job->hidden);
    for (int64_t first = 0; first < count; first += LANES) {
        const REAL *box = boxes + first / BLOCK * fields * BLOCK + first % BLOCK;
        if (job->dense == 16 && job->hidden == 6) {
            V own[6];
            store(upper + first, bounds_of(job, query, box, start, own, 16, 6));
        } else
            store(upper + first, bounds_of(job, query, box, start, slope, job->dense, job->hidden));
    }
}

/* What a bound has above the offset, so that rounding here and in the scores cannot make it too low. */
static REAL margin(const Job *job, const REAL *query) {
    double sizes = 0;
    for (int64_t k = 0; k < job->dense; k++) sizes += fabs((double)job->weights[k]) * fabs((double)query[k]);
    return (REAL)(job->slack + job->rounding * sizes);
}

static int64_t visit(const Job *job, Top *top, const REAL *query, int64_t box) {
    const int64_t vectors = (job->count + BLOCK - 1) / BLOCK * VECTORS_OF_BLOCK;
    const int64_t start = box * BOX * VECTORS_OF_BLOCK, end = least(vectors, start + BOX * VECTORS_OF_BLOCK);
    V sum[1][AT_ONCE];
    int64_t first = start;
    for (; first + AT_ONCE <= end; first += AT_ONCE) {
        score_one(job, query, job->blocks, first, sum, AT_ONCE);
        UNROLL for (int v = 0; v < AT_ONCE; v++) {
            const uint32_t lanes = reaches(sum[0][v], top->least);
            if (lanes) offer(job, top, &sum[0][v], lanes, (first + v) * LANES);
        }
    }
    for (; first < end; first++) {
        score_one(job, query, job->blocks, first, sum, 1);
        const uint32_t lanes = reaches(sum[0][0], top->least);
        if (lanes) offer(job, top, &sum[0][0], lanes, first * LANES);
    }
    return (end - start) * LANES;
}

static void add_rank(Rank *ranks, int64_t *count, Rank one) {
    int64_t at = (*count)++;
    for (int64_t parent; at && ranks[parent = (at - 1) / 2].bound < one.bound; at = parent) ranks[at] = ranks[parent];
    ranks[at] = one;
}

static Rank take_rank(Rank *ranks, int64_t *count) {
    const Rank one = ranks[0];
    ranks[0] = ranks[--*count];
    sink(ranks, *count, 0);
    return one;
}

/* Where numbers are so large that a bound is none, there is no bound. */
static REAL known(REAL bound) { return bound < INFINITY ? bound : INFINITY; }

typedef struct {
    int64_t boxes, groups;
    REAL *upper;          /* of all groups, or of the boxes of one */
    Rank *closed, *ready; /* groups that were not opened, boxes that were not visited: heaps */
    V *slope;
} Walk;

static double nanoseconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* The walk of one query. Returns whether it came to its end by the time `until`; if not, at least a good `least` was
   found. */
static int walk(const Job *job, Top *top, const REAL *query, const Walk *own, double until) {
    const int64_t fields = 2 * (job->dense + job->hidden);
    const REAL start = (REAL)job->offset + margin(job, query);
    int64_t closed = 0, ready = 0, computed = own->groups, met = 0;
    upper_bounds(job, query, job->boxes + own->groups * fields * BLOCK, own->groups, start, own->slope, own->upper);
    for (int64_t group = 0; group < own->groups; group++) {
        const Rank one = {known(own->upper[group]), group};
        if (one.bound >= top->least) own->closed[closed++] = one;
    }
    for (int64_t at = closed / 2 - 1; at >= 0; at--) sink(own->closed, closed, at);
    for (int step = 1;; step++) {
        const REAL of_group = closed ? own->closed[0].bound : -INFINITY, of_box = ready ? own->ready[0].bound : -INFINITY;
        if (!closed && !ready) break;
        if ((of_group > of_box ? of_group : of_box) < top->least) break;
        if (step % STEPS == 0 && until < INFINITY && nanoseconds() > until) {
            job->computed[top->query] = -computed - met - job->count;
            return 0;
        }
        if (closed && of_group >= of_box) {
            const int64_t group = take_rank(own->closed, &closed).box, first = group * BLOCK;
            const int64_t count = least(BLOCK, own->boxes - first);
            upper_bounds(job, query, job->boxes + group * fields * BLOCK, count, start, own->slope, own->upper);
            for (int64_t box = 0; box < count; box++) {
                const Rank one = {known(own->upper[box]), first + box};
                if (one.bound >= top->least) add_rank(own->ready, &ready, one);
            }
            computed += count;
            continue;
        }
        met += visit(job, top, query, take_rank(own->ready, &ready).box);
    }
    job->computed[top->query] = computed + met;
    return 1;
}

/* The search of the parts of the queries that no other thread has taken. */
BY_THREADS(topk_search) {
    Job *job = shared;
    const int64_t boxes = job->boxes ? (job->count + BLOCK * BOX - 1) / (BLOCK * BOX) : 0;
    const int64_t groups = (boxes + BLOCK - 1) / BLOCK, most = (job->part + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    Found *heaps = malloc((size_t)(job->part * job->k) * sizeof(Found));
    Top *tops = malloc((size_t)most * sizeof(Top));
    REAL *rows = room(most * job->dense), *upper = room((groups / BLOCK + 1) * BLOCK);
    V *slope = (V *)room((job->hidden + 1) * LANES);
    Rank *ranks = malloc((size_t)(groups + boxes + 1) * sizeof(Rank));
    const Walk own = {boxes, groups, upper, ranks, ranks + groups, slope};
    for (int64_t piece; (piece = take(&job->next)) < job->parts;) {
        const int64_t first = piece * job->part, end = least(job->n_queries, first + job->part);
        const double scanned = job->pace * job->count * AT_ONCE * ((end - first + AT_ONCE - 1) / AT_ONCE);
        double left = LOSS * scanned, now = boxes ? nanoseconds() : 0;
        int64_t n = 0;
        for (int64_t query = first; query < end; query++) {
            const REAL *row = job->queries + query * job->dense;
            Top top = {job->least, query, 0, heaps + (query - first) * job->k};
            job->computed[query] = job->count;
            if (boxes && left > 0) {
                const double alone = scanned / (double)(end - first), start = now;
                const int done = walk(job, &top, row, &own, start + (left < alone ? left : alone));
                now = nanoseconds();
                left += done ? (start + alone - now) / 2 : start - now;
                if (done) {
                    give(job, &top);
                    continue;
                }
                top.count = 0; /* all items are met again, those of the best boxes too */
            }
            memcpy(rows + n * job->dense, row, job->dense * sizeof(REAL));
            tops[n++] = top;
        }
        for (int64_t more = n; more % AT_ONCE; more++) {
            memset(rows + more * job->dense, 0, job->dense * sizeof(REAL));
            tops[more] = (Top){INFINITY, 0, 0, heaps};
        }
        scan(job, rows, tops, n);
        for (int64_t q = 0; q < n; q++) give(job, tops + q);
    }
    free(heaps), free(tops), free(ranks), leave(rows), leave(upper), leave((REAL *)slope);
}

/* Items in an order in which neighbours are alike, so that boxes are small: a k-d tree whose leaves are boxes. Sorted are
   keys, of 8 bytes for floats; the items move at the end, and in place. */

typedef struct {
    REAL value;
    uint32_t item;
} Key;

/* The `at` smallest keys come first. */
static void select_smallest(Key *keys, int64_t count, int64_t at) {
    int64_t first = 0, last = count - 1;
    while (first < last) {
        const REAL a = keys[first].value, b = keys[first + (last - first) / 2].value, c = keys[last].value;
        const REAL middle = a < b ? (b < c ? b : a < c ? c : a) : (a < c ? a : b < c ? c : b);
        int64_t i = first, j = last;
        while (i <= j) {
            while (keys[i].value < middle) i++;
            while (keys[j].value > middle) j--;
            if (i <= j) {
                const Key one = keys[i];
                keys[i++] = keys[j], keys[j--] = one;
            }
        }
        if (at <= j)
            last = j;
        else if (at >= i)
            first = i;
        else
            return;
    }
}

/* One number of the state of an item: `read` is "dense". */
static REAL number(const REAL *row, const REAL *read, int64_t dense) {
    REAL sums[4] = {0}; /* side by side: one sum would wait for itself */
    int64_t k = 0;
    for (; k + 4 <= dense; k += 4)
        UNROLL for (int i = 0; i < 4; i++) sums[i] += row[k + i] * read[k + i];
    for (; k < dense; k++) sums[0] += row[k] * read[k];
    return sums[0] + sums[1] + (sums[2] + sums[3]);
}

typedef struct {
    const REAL *rows, *read, *weights; /* "count dense"; "hidden dense"; "hidden": how much each number moves scores */
    int64_t dense, hidden;
} Space;

/* Along the number of the states that moves scores the most, as seen in a sample. */
static int64_t widest(const Space *in, const Key *keys, int64_t count) {
    const int64_t step = count / 128 + 1;
    int64_t best = 0;
    REAL reach = -1;
    for (int64_t j = 0; j < in->hidden; j++) {
        REAL low = INFINITY, high = -INFINITY;
        for (int64_t i = 0; i < count; i += step) {
            const REAL own = number(in->rows + keys[i].item * in->dense, in->read + j * in->dense, in->dense);
            low = own < low ? own : low, high = own > high ? own : high;
        }
        if (in->weights[j] * (high - low) > reach) best = j, reach = in->weights[j] * (high - low);
    }
    return best;
}

/* These keys change places. Halves are whole boxes, and of many boxes whole groups. */
static void split(const Space *in, Key *keys, int64_t count) {
    const int64_t boxes = (count + BLOCK * BOX - 1) / (BLOCK * BOX), whole = boxes > BLOCK ? BLOCK : 1;
    if (boxes < 2) return;
    const int64_t half = (boxes + whole) / whole / 2 * whole * BLOCK * BOX;
    const REAL *read = in->read + widest(in, keys, count) * in->dense;
    for (int64_t i = 0; i < count; i++) {
        __builtin_prefetch(in->rows + keys[least(i + 16, count - 1)].item * in->dense);
        keys[i].value = number(in->rows + keys[i].item * in->dense, read, in->dense);
    }
    select_smallest(keys, count, half);
    split(in, keys, half);
    split(in, keys + half, count - half);
}

/* Each place gets the row and the id of its key's item, along the cycles of the permutation; keys become those of the
   places themselves. */
static void move(REAL *rows, int64_t *ids, Key *keys, int64_t count, int64_t dense, REAL *row) {
    const size_t size = (size_t)dense * sizeof(REAL);
    for (int64_t first = 0; first < count; first++) {
        if (keys[first].item == first) continue;
        const int64_t id = ids[first];
        memcpy(row, rows + first * dense, size);
        int64_t at = first;
        while (keys[at].item != first) {
            const int64_t from = keys[at].item;
            memcpy(rows + at * dense, rows + from * dense, size);
            ids[at] = ids[from], keys[at].item = (uint32_t)at, at = from;
        }
        memcpy(rows + at * dense, row, size);
        ids[at] = id, keys[at].item = (uint32_t)at;
    }
}

/* rows "count dense" and ids "count" of fewer than 2^32 items change places; 0 if there was no memory. A row times `read`,
   "hidden dense", is a state, whose numbers move scores by `weights`, "hidden". */
EXPORT int64_t NAME(topk_arrange)(REAL *rows, int64_t *ids, int64_t count, int64_t dense, int64_t hidden,
                                  const REAL *read, const REAL *weights) {
    Key *keys = malloc((size_t)(count + 1) * sizeof(Key));
    if (!keys) return 0;
    REAL *row = room(dense);
    const Space in = {rows, read, weights, dense, hidden};
    for (int64_t i = 0; i < count; i++) keys[i] = (Key){0, (uint32_t)i};
    split(&in, keys, count);
    move(rows, ids, keys, count, dense, row);
    free(keys), leave(row);
    return 1;
}
