/* The k best items of each query, exact, of a score that is a small network of a difference:

   score(query, item) = offset + sum_k weights[k] relu(query[k] - item[k])

   Blocks of queries meet blocks of items, and each query keeps the best so far in a heap: no matrix of scores is made.
   Larger scores are better, and of equal ones smaller ids: an order without ties, so that blocks and threads change
   nothing. All sums have the same order, so that each score has the same bits wherever it is computed.

   Items lie BLOCK side by side, "blocks dense BLOCK". Where the items were put in order (`order`), boxes of BOX blocks
   may have bounds, laid out like items: of each number the least in the box where its weight is positive, else the
   largest. The score of a bound is at least the score of every item in the box, also as rounded: each operation of the
   sum is monotone, and stays so when it is rounded. A query first meets its best boxes, which gives a good k-th best
   score. Then the queries walk over the boxes together, and each meets those whose bound reaches its k-th best score. If
   these are more than `budget` items, it meets all items instead. */

#include "vectors.h"

#include <math.h>

enum { BLOCK = 16, BOX = 8, AT_ONCE = 8, TILE = 256, FIRST = 512 };
/* items; blocks; queries or vectors; blocks that stay in cache; of so many boxes a query meets one more at first */
#define VECTORS_OF_BLOCK (BLOCK / LANES)

typedef struct {
    const REAL *queries;        /* "queries dense" */
    const REAL *weights;        /* "dense" */
    const REAL *blocks;         /* the items */
    const int64_t *ids;         /* "count", the id of each item */
    const uint8_t *keep;        /* "count": whether a query may find the item; absent: all */
    const int64_t *hidden;      /* items that a single query may not find, sorted for each query; may be absent */
    const int64_t *hidden_from; /* "queries+1": where those of each query begin */
    const REAL *bounds;         /* of the boxes; absent: all items are scored */
    REAL *scores;               /* "queries k"; -inf where nothing was found */
    int64_t *found;             /* "queries k", ids */
    int64_t *computed;          /* "queries": pairs and bounds that were scored; negative: the walk was given up */
    double offset, least;       /* no smaller score than `least` is wanted */
    int64_t count, dense, n_queries, k, budget;
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

INLINE int any_reaches(V x, REAL least) {
#if defined(__AVX512F__)
    return IS_FLOAT ? _mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(least), _CMP_GE_OQ)
                    : _mm512_cmp_pd_mask((__m512d)x, _mm512_set1_pd(least), _CMP_GE_OQ);
#elif defined(__AVX2__)
    return IS_FLOAT ? _mm256_movemask_ps(_mm256_cmp_ps((__m256)x, _mm256_set1_ps(least), _CMP_GE_OQ))
                    : _mm256_movemask_pd(_mm256_cmp_pd((__m256d)x, _mm256_set1_pd(least), _CMP_GE_OQ));
#else
    const Mask reached = x >= all(least);
    int any = 0;
    for (int lane = 0; lane < LANES; lane++) any |= reached[lane] != 0;
    return any;
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
        if (job->hidden[middle] < place)
            first = middle + 1;
        else
            last = middle;
    }
    return first < job->hidden_from[query + 1] && job->hidden[first] == place;
}

/* A vector of items, of which at least one reaches the least wanted score. */
static __attribute__((noinline)) void offer(const Job *job, Top *top, const V *scores, int64_t place) {
    for (int64_t lane = 0; lane < LANES && place + lane < job->count; lane++) {
        const REAL score = (*scores)[lane];
        if (!(score >= top->least) || (job->keep && !job->keep[place + lane])) continue;
        if (job->hidden && is_hidden(job, top->query, place + lane)) continue;
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
                    UNROLL for (int i = 0; i < AT_ONCE; i++)
                        if (__builtin_expect(any_reaches(sum[i][0], tops[q + i].least), 0))
                            offer(job, tops + q + i, &sum[i][0], block * BLOCK + part * LANES);
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

static void upper_bounds(const Job *job, const REAL *query, int64_t boxes, REAL *upper) {
    const int64_t vectors = (boxes + BLOCK - 1) / BLOCK * VECTORS_OF_BLOCK;
    V sum[1][AT_ONCE];
    int64_t first = 0;
    for (; first + AT_ONCE <= vectors; first += AT_ONCE) {
        score_one(job, query, job->bounds, first, sum, AT_ONCE);
        UNROLL for (int v = 0; v < AT_ONCE; v++) store(upper + (first + v) * LANES, sum[0][v]);
    }
    for (; first < vectors; first++) {
        score_one(job, query, job->bounds, first, sum, 1);
        store(upper + first * LANES, sum[0][0]);
    }
}

static int64_t visit(const Job *job, Top *top, const REAL *query, int64_t box) {
    const int64_t vectors = (job->count + BLOCK - 1) / BLOCK * VECTORS_OF_BLOCK;
    const int64_t start = box * BOX * VECTORS_OF_BLOCK, end = least(vectors, start + BOX * VECTORS_OF_BLOCK);
    V sum[1][AT_ONCE];
    int64_t first = start;
    for (; first + AT_ONCE <= end; first += AT_ONCE) {
        score_one(job, query, job->blocks, first, sum, AT_ONCE);
        UNROLL for (int v = 0; v < AT_ONCE; v++)
            if (any_reaches(sum[0][v], top->least)) offer(job, top, &sum[0][v], (first + v) * LANES);
    }
    for (; first < end; first++) {
        score_one(job, query, job->blocks, first, sum, 1);
        if (any_reaches(sum[0][0], top->least)) offer(job, top, &sum[0][0], first * LANES);
    }
    return (end - start) * LANES;
}

/* The bounds of one query, and the items of its best boxes, whose bounds become NAN. Returns whether the boxes that may
   still hold one of its best are within the budget; if not, at least a good `least` was found. */
static int begin_walk(const Job *job, Top *top, const REAL *query, int64_t boxes, REAL *upper, Rank *ranks) {
    upper_bounds(job, query, boxes, upper);
    int64_t best = 0, count = 0, computed = boxes, needed = 0;
    for (int64_t box = 1; box < boxes; box++)
        if (upper[box] > upper[best]) best = box;
    computed += visit(job, top, query, best);
    upper[best] = NAN;
    for (int64_t box = 0; box < boxes; box++)
        if (upper[box] >= top->least) ranks[count++] = (Rank){upper[box], box};
    for (int64_t at = count / 2 - 1; at >= 0; at--) sink(ranks, count, at);
    for (int64_t more = boxes / FIRST; more && count && ranks[0].bound >= top->least; more--) {
        computed += visit(job, top, query, ranks[0].box);
        upper[ranks[0].box] = NAN;
        ranks[0] = ranks[--count];
        sink(ranks, count, 0);
    }
    for (int64_t at = 0; at < count; at++) needed += ranks[at].bound >= top->least;
    const int within = needed * BOX * BLOCK <= job->budget;
    job->computed[top->query] = within ? computed : -computed - job->count;
    return within;
}

/* The walks of n queries over the boxes, each of which is read once for all of them. */
static void walk(const Job *job, Top *tops, int64_t n, int64_t boxes, const REAL *upper, int64_t stride) {
    for (int64_t box = 0; box < boxes; box++)
        for (int64_t q = 0; q < n; q++)
            if (upper[q * stride + box] >= tops[q].least) {
                const int64_t query = tops[q].query;
                job->computed[query] += visit(job, tops + q, job->queries + query * job->dense, box);
            }
}

/* The search of the parts of the queries that no other thread has taken. */
BY_THREADS(topk_search) {
    Job *job = shared;
    const int64_t boxes = job->bounds ? (job->count + BLOCK * BOX - 1) / (BLOCK * BOX) : 0;
    const int64_t most = (job->part + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    const int64_t stride = (boxes + BLOCK - 1) / BLOCK * BLOCK; /* bounds are stored in whole vectors */
    Found *heaps = malloc((size_t)(job->part * job->k) * sizeof(Found));
    Top *walking = malloc((size_t)job->part * sizeof(Top)), *tops = malloc((size_t)most * sizeof(Top));
    REAL *rows = room(most * job->dense), *upper = room(job->part * stride);
    Rank *ranks = malloc((size_t)(boxes + 1) * sizeof(Rank));
    for (int64_t piece; (piece = take(&job->next)) < job->parts;) {
        const int64_t first = piece * job->part, end = least(job->n_queries, first + job->part);
        int64_t n = 0, walks = 0;
        for (int64_t query = first; query < end; query++) {
            const REAL *own = job->queries + query * job->dense;
            Top top = {job->least, query, 0, heaps + (query - first) * job->k};
            job->computed[query] = job->count;
            if (boxes) {
                if (begin_walk(job, &top, own, boxes, upper + walks * stride, ranks)) {
                    walking[walks++] = top;
                    continue;
                }
                top.count = 0; /* all items are met again, those of the best boxes too */
            }
            memcpy(rows + n * job->dense, own, job->dense * sizeof(REAL));
            tops[n++] = top;
        }
        walk(job, walking, walks, boxes, upper, stride);
        for (int64_t q = 0; q < walks; q++) give(job, walking + q);
        for (int64_t more = n; more % AT_ONCE; more++) {
            memset(rows + more * job->dense, 0, job->dense * sizeof(REAL));
            tops[more] = (Top){INFINITY, 0, 0, heaps};
        }
        scan(job, rows, tops, n);
        for (int64_t q = 0; q < n; q++) give(job, tops + q);
    }
    free(heaps), free(walking), free(tops), free(ranks), leave(rows), leave(upper);
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

/* Along the number that moves scores the most, as seen in a sample. */
static int64_t widest(const REAL *rows, const Key *keys, int64_t count, int64_t dense, const REAL *weights, REAL *low,
                      REAL *high) {
    const int64_t step = count / 1024 + 1;
    for (int64_t k = 0; k < dense; k++) low[k] = INFINITY, high[k] = -INFINITY;
    for (int64_t i = 0; i < count; i += step) {
        const REAL *row = rows + keys[i].item * dense;
        for (int64_t k = 0; k < dense; k++) {
            low[k] = row[k] < low[k] ? row[k] : low[k];
            high[k] = row[k] > high[k] ? row[k] : high[k];
        }
    }
    int64_t best = 0;
    for (int64_t k = 1; k < dense; k++)
        if (fabs(weights[k]) * (high[k] - low[k]) > fabs(weights[best]) * (high[best] - low[best])) best = k;
    return best;
}

/* rows "count dense"; keys "count", of which these change places. Halves are whole boxes. */
static void split(const REAL *rows, Key *keys, int64_t count, int64_t dense, const REAL *weights, REAL *bounds) {
    const int64_t own = BLOCK * BOX, boxes = (count + own - 1) / own;
    if (boxes < 2) return;
    const int64_t axis = widest(rows, keys, count, dense, weights, bounds, bounds + dense), half = boxes / 2 * own;
    for (int64_t i = 0; i < count; i++) keys[i].value = rows[keys[i].item * dense + axis];
    select_smallest(keys, count, half);
    split(rows, keys, half, dense, weights, bounds);
    split(rows, keys + half, count - half, dense, weights, bounds);
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

/* rows "count dense" and ids "count" of fewer than 2^32 items change places; 0 if there was no memory. */
EXPORT int64_t NAME(topk_arrange)(REAL *rows, int64_t *ids, int64_t count, int64_t dense, const REAL *weights) {
    Key *keys = malloc((size_t)(count + 1) * sizeof(Key));
    if (!keys) return 0;
    REAL *bounds = room(2 * dense);
    for (int64_t i = 0; i < count; i++) keys[i] = (Key){0, (uint32_t)i};
    split(rows, keys, count, dense, weights, bounds);
    move(rows, ids, keys, count, dense, bounds);
    free(keys), leave(bounds);
    return 1;
}
