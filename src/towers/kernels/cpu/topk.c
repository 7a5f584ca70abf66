/* The k best items of each query, exact, of a score that is a small network of a difference:

   score(query, item) = offset + sum_k weights[k] relu(query[k] - item[k])

   Blocks of queries meet blocks of items, and each query keeps the best so far: no matrix of scores is made.
   Larger scores are better, and of equal ones smaller ids: an order without ties, so that blocks and threads change
   nothing. All sums have the same order, so that each score has the same bits wherever it is computed.

   Items lie BLOCK side by side, "blocks dense BLOCK". Where they were put in order (`arrange.c`), a box is BOX blocks, and
   a group is BLOCK boxes. Of each is known between which values its items' numbers lie: their rows, and their places,
   which are fewer numbers that rows are made of (`search/axes.py`). So a term weight * relu(query - item) is at most a
   line in the place: where all items are on one side of the kink, the term itself; else the chord above it (of a positive
   weight), or the better of relu's two lines (of a negative one). The sum of the lines is a line, and the highest value
   that it has in the box of places is a bound. Lines of positive and negative weights cancel before that, as they do in
   the scores (Zhang et al., CROWN, 2018, bound networks so). The sum of the highest values of the single terms is another
   bound; the smaller one counts. `slack` and what `margin` adds are above all that rounding can do (`boxes_of`).

   A query walks from the best bound to the next one: a group is opened, and the bounds of its boxes are computed; of a
   box the items are scored; until no bound reaches the k-th best score. A pair of a walk costs more than one of a scan,
   by how much depends on the machine and on where the items lie. So walks are timed. A walk is given up after the time
   that this would cost, in which its query would meet all items; all walks together may lose LOSS of the time in which
   all queries of the part would, and half of what other walks saved. Queries whose walks are given up meet all items
   instead, together: AT_ONCE of them, or up to ALONE of them one at a time, which for each takes longer. */

#include "vectors.h"

#include <float.h>
#include <math.h>
#include <time.h>

enum { BLOCK = 16, BOX = 8, AT_ONCE = 8, TILE = 256, STEPS = 8, RUN = 128, FEW = 16, ALONE = 3 };
/* items; blocks; queries or vectors; blocks that stay in cache; steps of a walk between looks at the clock; items
   that are sorted by counting; the largest k whose best are always in order; queries that meet items one at a time */
#define LOSS 0.04
#define LARGEST ((REAL)(IS_FLOAT ? FLT_MAX : DBL_MAX))
#define TINY ((REAL)(IS_FLOAT ? 1e-30 : 1e-300))
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
    const REAL *axes;           /* "dense hidden", by which a place is multiplied to be an item's row */
    REAL *scores;               /* "queries k"; -inf where nothing was found */
    int64_t *found;             /* "queries k", ids */
    int64_t *computed;          /* "queries": pairs and bounds that were scored; negative: the walk was given up */
    double offset, least;       /* no smaller score than `least` is wanted */
    double slack, rounding;     /* what bounds are too low by at most: of all queries, and for each 1 of |query| */
    double pace;                /* nanoseconds of a pair where queries meet all items; infinite: no walk is given up */
    int64_t count, dense, hidden, n_queries, k;
    int64_t part, parts, next; /* queries of a part, parts, and the next one to take */
} Job;

/* The best items of a query so far, and some that are perhaps among them. */
typedef struct {
    REAL least; /* a score below is not wanted; */
    int64_t last; /* of those that are equal to it, only ids up to this one */
    int64_t query, count;
    REAL *scores;
    int64_t *ids;
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

/* The best so far. Up to FEW are kept in order. Where they are more, a query takes what reaches its least score, and when
   it has SPARE more than k, the k best stay. */

INLINE int64_t spare(int64_t k) { return k / 2 > 2 * BLOCK ? k / 2 : 2 * BLOCK; }

INLINE int worse(REAL score, int64_t id, REAL other, int64_t other_id) {
    return (score < other) | ((score == other) & (id > other_id));
}

/* Numbers as integers of the same order, and back. */
INLINE int64_t ordered(REAL number) {
    if (IS_FLOAT) {
        int32_t bits;
        memcpy(&bits, &number, sizeof bits);
        return bits ^ ((bits >> 31) & INT32_MAX);
    }
    int64_t bits = 0;
    memcpy(&bits, &number, sizeof number);
    return bits ^ ((bits >> 63) & INT64_MAX);
}

INLINE REAL number_of(int64_t place) {
    const int32_t narrow = (int32_t)place ^ (((int32_t)place >> 31) & INT32_MAX);
    const int64_t wide = place ^ ((place >> 63) & INT64_MAX);
    REAL number;
    memcpy(&number, IS_FLOAT ? (const void *)&narrow : (const void *)&wide, sizeof number);
    return number;
}

/* How many of `count` scores, filled up to whole vectors with -inf, are at least this one. */
INLINE int64_t count_of(const REAL *scores, int64_t count, REAL least) {
    int64_t found = 0;
    for (int64_t i = 0; i < count; i += LANES) found += __builtin_popcount(reaches(load(scores + i), least));
    return found;
}

/* How many ids are up to this one, of items whose scores are in [low, high). */
static int64_t count_ids(const Top *top, REAL low, REAL high, int64_t id) {
    int64_t found = 0;
    for (int64_t i = 0; i < top->count; i++)
        found += (top->scores[i] >= low) & (top->scores[i] < high) & (top->ids[i] <= id);
    return found;
}

INLINE V larger(V x, V y) {
    const Mask is = x > y;
    return (V)(((Mask)x & is) | ((Mask)y & ~is));
}

/* The largest of `count` scores, filled up to whole vectors. */
INLINE REAL largest_of(const REAL *scores, int64_t count, REAL sign) {
    V most = all(sign) * load(scores);
    for (int64_t i = LANES; i < count; i += LANES) most = larger(all(sign) * load(scores + i), most);
    REAL largest = most[0];
    for (int lane = 1; lane < LANES; lane++) largest = most[lane] > largest ? most[lane] : largest;
    return largest;
}

/* Of equal scores, in [low, high), the largest id that is still among the `wanted` smallest ones. */
static int64_t last_of(const Top *top, REAL low, REAL high, int64_t wanted) {
    int64_t first = -1, last = 0;
    for (int64_t i = 0; i < top->count; i++) last = top->ids[i] > last ? top->ids[i] : last;
    while (first + 1 < last) {
        const int64_t middle = first + (last - first) / 2;
        if (count_ids(top, low, high, middle) >= wanted)
            last = middle;
        else
            first = middle;
    }
    return last;
}

/* At least k items become the k best, and `least` and `last` are those of the worst of them. */
static __attribute__((noinline)) void keep_best(Top *top, int64_t k) {
    REAL *const scores = top->scores;
    int64_t *const ids = top->ids;
    int64_t last = 0, kept = 0;
    for (int64_t i = top->count; i % LANES; i++) scores[i] = -INFINITY;
    REAL low = top->least, high = largest_of(scores, top->count, 1);
    int64_t above = count_of(scores, top->count, high); /* scores from `high` on */
    if (above >= k)
        low = high, high = INFINITY, above = 0;
    else { /* scores from `low` on are at least k, those from `high` on at most k: as near as it goes */
        int64_t first = ordered(low), end = ordered(high);
        while (first + 1 < end && above < k) {
            const int64_t middle = (first & end) + ((first ^ end) >> 1); /* whose sum may be too large */
            const int64_t here = count_of(scores, top->count, number_of(middle));
            if (here > k)
                first = middle;
            else
                end = middle, above = here;
        }
        low = number_of(first), high = number_of(end);
    }
    if (above < k) last = last_of(top, low, high, k - above);
    for (int64_t i = 0; i < top->count; i++) { /* without a branch to guess */
        const REAL score = scores[i];
        const int64_t id = ids[i];
        scores[kept] = score, ids[kept] = id;
        kept += (score >= high) | ((score >= low) & (id <= last) & (above < k));
    }
    for (int64_t i = kept; i % LANES; i++) scores[i] = INFINITY;
    top->count = kept, top->least = -largest_of(scores, kept, -1), top->last = 0;
    for (int64_t i = 0; i < kept; i++) top->last = (scores[i] == top->least) & (ids[i] > top->last) ? ids[i] : top->last;
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

/* At most k items in order, best first, get one more. */
INLINE void insert(Top *top, int64_t k, REAL score, int64_t id) {
    REAL *const scores = top->scores;
    int64_t *const ids = top->ids;
    int64_t at = top->count < k ? top->count++ : k - 1;
    for (; at && worse(scores[at - 1], ids[at - 1], score, id); at--) scores[at] = scores[at - 1], ids[at] = ids[at - 1];
    scores[at] = score, ids[at] = id;
    if (top->count == k) top->least = scores[k - 1], top->last = ids[k - 1];
}

/* A vector of items, of which some `lanes` reach the least wanted score. */
static __attribute__((noinline)) void offer(const Job *job, Top *top, const V *scores, uint32_t lanes, int64_t place) {
    for (; lanes; lanes &= lanes - 1) {
        const int lane = __builtin_ctz(lanes);
        const REAL score = (*scores)[lane] < LARGEST ? (*scores)[lane] : LARGEST; /* `keep_best` needs a number above all */
        if (place + lane >= job->count) break;
        const int64_t id = job->ids[place + lane];
        if (worse(score, id, top->least, top->last) || (job->keep && !job->keep[place + lane])) continue;
        if (job->hidden_items && is_hidden(job, top->query, place + lane)) continue;
        if (job->k <= FEW)
            insert(top, job->k, score, id);
        else
            top->scores[top->count] = score, top->ids[top->count++] = id;
    }
    if (top->count >= job->k + spare(job->k)) keep_best(top, job->k);
}

/* Two sorted runs, from `first` and from `second` up to `end`, become one, best first. */
static void merge(const REAL *scores, const int64_t *ids, REAL *to_scores, int64_t *to_ids, int64_t first,
                  int64_t second, int64_t end) {
    int64_t one = first, other = second;
    for (int64_t at = first; at < end; at++) {
        const int is_other = one == second || (other < end && worse(scores[one], ids[one], scores[other], ids[other]));
        const int64_t from = is_other ? other : one;
        to_scores[at] = scores[from], to_ids[at] = ids[from];
        other += is_other, one += !is_other;
    }
}

/* A run of items, filled up to whole vectors with -inf, in its order: the place of each is the number of better ones. */
static void sort_run(const REAL *scores, const int64_t *ids, REAL *to_scores, int64_t *to_ids, int64_t count) {
    for (int64_t i = 0; i < count; i++) to_ids[i] = -1;
    for (int64_t i = 0; i < count; i++) {
        const int64_t end = count_of(scores, count, scores[i]);
        int64_t at = end - 1;
        while (to_ids[at] >= 0) at--; /* equal ones fill their places from the last one on */
        to_scores[at] = scores[i];
        for (; at + 1 < end && to_ids[at + 1] < ids[i]; at++) to_ids[at] = to_ids[at + 1];
        to_ids[at] = ids[i];
    }
}

/* The items become the results, best first. */
static void give(const Job *job, Top *top) {
    if (top->count > job->k) keep_best(top, job->k);
    REAL *const results = job->scores + top->query * job->k, *own = results, *other = top->scores;
    int64_t *const found = job->found + top->query * job->k, *ids = found, *other_ids = top->ids;
    const int64_t count = top->count;
    for (int64_t at = count; at < job->k; at++) results[at] = -INFINITY, found[at] = INT64_MAX;
    for (int64_t at = count; at % LANES; at++) other[at] = -INFINITY;
    for (int64_t first = 0; first < count; first += RUN)
        sort_run(other + first, other_ids + first, own + first, ids + first, least(RUN, count - first));
    for (int64_t run = RUN; run < count; run *= 2) {
        for (int64_t first = 0; first < count; first += 2 * run)
            merge(own, ids, other, other_ids, first, least(first + run, count), least(first + 2 * run, count));
        REAL *const last = own;
        int64_t *const last_ids = ids;
        own = other, ids = other_ids, other = last, other_ids = last_ids;
    }
    if (own != results) memcpy(results, own, count * sizeof(REAL)), memcpy(found, ids, count * sizeof(int64_t));
}

/* The scores of one query and of m vectors of blocks. */
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

/* A score that at least k of the items in AT_ONCE vectors reach, k up to LANES: the k-th largest of the lanes' largest. */
static __attribute__((noinline)) REAL reached_by(const V *scores, int64_t k) {
    V most = scores[0];
    for (int v = 1; v < AT_ONCE; v++) most = larger(scores[v], most);
    REAL one[LANES], found = -INFINITY;
    store(one, most);
    for (int lane = 0; lane < LANES; lane++)
        if (one[lane] > found && __builtin_popcount(reaches(most, one[lane])) >= k) found = one[lane];
    return found;
}

/* One query and the vectors of items from one to another. */
static void meet(const Job *job, Top *top, const REAL *query, int64_t first, int64_t end) {
    V sum[1][AT_ONCE];
    for (; first + AT_ONCE <= end; first += AT_ONCE) {
        score_one(job, query, job->blocks, first, sum, AT_ONCE);
        const int is_new = top->count < job->k && job->k <= LANES; /* nothing is known of what is wanted */
        const int are_all = !job->keep && !job->hidden_items && (first + AT_ONCE) * LANES <= job->count;
        const REAL some = is_new && are_all ? reached_by(sum[0], job->k) : -INFINITY;
        UNROLL for (int v = 0; v < AT_ONCE; v++) {
            const uint32_t lanes = reaches(sum[0][v], some > top->least ? some : top->least);
            if (lanes) offer(job, top, &sum[0][v], lanes, (first + v) * LANES);
        }
    }
    for (; first < end; first++) {
        score_one(job, query, job->blocks, first, sum, 1);
        const uint32_t lanes = reaches(sum[0][0], top->least);
        if (lanes) offer(job, top, &sum[0][0], lanes, first * LANES);
    }
}

/* AT_ONCE queries and the vectors of items from one to another. */
INLINE void meet_all(const Job *job, Top *tops, const REAL *rows, int64_t first, int64_t end, const int64_t dense) {
    for (; first < end; first++) {
        V sum[AT_ONCE][AT_ONCE];
        const REAL *item = job->blocks + first / VECTORS_OF_BLOCK * dense * BLOCK + first % VECTORS_OF_BLOCK * LANES;
        score(sum, rows, &item, job->weights, job->offset, dense, AT_ONCE, 1);
        UNROLL for (int i = 0; i < AT_ONCE; i++) {
            const uint32_t lanes = reaches(sum[i][0], tops[i].least);
            if (__builtin_expect(lanes, 0)) offer(job, tops + i, &sum[i][0], lanes, first * LANES);
        }
    }
}

/* All items for these queries: AT_ONCE at a time, and if few are left, one at a time; they are filled up to a multiple. */
static void scan(const Job *job, const REAL *rows, Top *tops, int64_t n) {
    const int64_t vectors = (job->count + BLOCK - 1) / BLOCK * VECTORS_OF_BLOCK;
    const int64_t single = n % AT_ONCE <= ALONE ? n - n % AT_ONCE : n;
    for (int64_t first = 0; first < vectors; first += TILE * VECTORS_OF_BLOCK) {
        const int64_t end = least(vectors, first + TILE * VECTORS_OF_BLOCK);
        for (int64_t q = 0; q < single; q += AT_ONCE)
            if (job->dense == 16)
                meet_all(job, tops + q, rows + q * 16, first, end, 16);
            else
                meet_all(job, tops + q, rows + q * job->dense, first, end, job->dense);
        for (int64_t q = single; q < n; q++) meet(job, tops + q, rows + q * job->dense, first, end);
    }
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

/* Fields of a box: the least and the largest numbers of the rows ("dense" each), the middle of the places and how far
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
            const V wide = high - low, tiny = all(TINY);
            line = all(weight) * (high / (tiny + relu(wide - tiny)));
            sum = mul_add(line, all(a) - low, sum);
            terms = mul_add(all(weight), high, terms);
        } else {
            line = (V)((Mask)all(weight) & (most + fewest > all(0)));
            sum = mul_add(line, all(a), sum);
            terms = mul_add(all(weight), relu(fewest), terms);
        }
        UNROLL for (int64_t j = 0; j < hidden; j++) slope[j] = mul_add(line, all(job->axes[k * hidden + j]), slope[j]);
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

/* What a bound has above the offset, so that rounding here and in the scores cannot make it too low (`boxes_of`). */
static REAL margin(const Job *job, const REAL *query) {
    double sizes = 0;
    for (int64_t k = 0; k < job->dense; k++)
        sizes += (fabs((double)job->weights[k]) + TINY) * fabs((double)query[k]);
    return (REAL)(job->slack + job->rounding * sizes);
}

/* The items of a box. */
static int64_t visit(const Job *job, Top *top, const REAL *query, int64_t box) {
    const int64_t vectors = (job->count + BLOCK - 1) / BLOCK * VECTORS_OF_BLOCK;
    const int64_t first = box * BOX * VECTORS_OF_BLOCK, end = least(vectors, first + BOX * VECTORS_OF_BLOCK);
    meet(job, top, query, first, end);
    const int is_known = top->last < INT64_MAX;
    if (job->k > FEW && top->count >= job->k + (is_known ? job->k / 8 + 1 : 0)) keep_best(top, job->k);
    return (end - first) * LANES;
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
static REAL known(REAL bound) { return isfinite(bound) ? bound : INFINITY; }

typedef struct {
    int64_t boxes, groups, n_ready;
    REAL *upper;          /* of all groups */
    Rank *closed, *ready; /* groups that were not opened, boxes that were not visited: heaps */
    V *slope;
    double by_clock, by_thread; /* when it was last asked what other programs took */
} Walk;

static double nanoseconds(void) {
    struct timespec now;
    timespec_get(&now, TIME_UTC);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* Nanoseconds that other programs took from this thread since it last asked, where the system counts them; which takes
   ten times as long as a look at the clock. Less than ten thousand are the time of the looks. */
static double taken_by_others(Walk *own) {
#if defined(CLOCK_THREAD_CPUTIME_ID)
    struct timespec spent;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &spent);
    const double by_clock = nanoseconds(), by_thread = 1e9 * (double)spent.tv_sec + (double)spent.tv_nsec;
    const double taken = by_clock - own->by_clock - (by_thread - own->by_thread);
    own->by_clock = by_clock, own->by_thread = by_thread;
    return taken > 1e4 ? taken : 0;
#else
    return 0;
#endif
}

/* The boxes of a group whose bounds reach the least wanted score become ready. */
static int64_t open_group(const Job *job, const Top *top, const REAL *query, Walk *own, REAL start, int64_t group) {
    const int64_t fields = 2 * (job->dense + job->hidden), first = group * BLOCK;
    const int64_t count = least(BLOCK, own->boxes - first);
    REAL upper[BLOCK];
    upper_bounds(job, query, job->boxes + group * fields * BLOCK, count, start, own->slope, upper);
    for (int64_t box = 0; box < count; box++) {
        const Rank one = {known(upper[box]), first + box};
        if (one.bound >= top->least) add_rank(own->ready, &own->n_ready, one);
    }
    return count;
}

/* The walk of one query. Returns whether it came to its end by the time `until`; if not, at least a good `least` was
   found. */
static int walk(const Job *job, Top *top, const REAL *query, Walk *own, double until) {
    const int64_t fields = 2 * (job->dense + job->hidden);
    const REAL start = (REAL)job->offset + margin(job, query);
    int64_t closed = 0, computed = own->groups, best = 0;
    own->n_ready = 0;
    upper_bounds(job, query, job->boxes + own->groups * fields * BLOCK, own->groups, start, own->slope, own->upper);
    for (int64_t group = 0; group < own->groups; group++) {
        own->upper[group] = known(own->upper[group]);
        if (own->upper[group] > own->upper[best]) best = group;
    }
    computed += open_group(job, top, query, own, start, best);
    if (own->n_ready) computed += visit(job, top, query, take_rank(own->ready, &own->n_ready).box);
    for (int64_t group = 0; group < own->groups; group++) {
        const Rank one = {own->upper[group], group};
        if (group != best && one.bound >= top->least) add_rank(own->closed, &closed, one);
    }
    for (int step = 1;; step++) {
        const REAL of_group = closed ? own->closed[0].bound : -INFINITY;
        const REAL of_box = own->n_ready ? own->ready[0].bound : -INFINITY;
        if (!closed && !own->n_ready) break;
        if ((of_group > of_box ? of_group : of_box) < top->least) break;
        if (step % STEPS == 0 && until < INFINITY && nanoseconds() > until &&
            nanoseconds() > (until += taken_by_others(own))) {
            job->computed[top->query] = -computed - job->count;
            return 0;
        }
        if (closed && of_group >= of_box)
            computed += open_group(job, top, query, own, start, take_rank(own->closed, &closed).box);
        else
            computed += visit(job, top, query, take_rank(own->ready, &own->n_ready).box);
    }
    job->computed[top->query] = computed;
    return 1;
}

/* The search of the parts of the queries that no other thread has taken. */
BY_THREADS(topk_search) {
    Job *job = shared;
    const int64_t boxes = job->boxes ? (job->count + BLOCK * BOX - 1) / (BLOCK * BOX) : 0;
    const int64_t groups = (boxes + BLOCK - 1) / BLOCK, most = (job->part + AT_ONCE - 1) / AT_ONCE * AT_ONCE;
    const int64_t room_of_top = blocks_of(job->k + spare(job->k) + LANES) * LANES;
    int64_t *ids = malloc((size_t)(job->part * room_of_top) * sizeof(int64_t));
    Top *tops = malloc((size_t)most * sizeof(Top));
    REAL *rows = room(most * job->dense), *scores = room(job->part * room_of_top), *upper = room((groups / BLOCK + 1) * BLOCK);
    V *slope = (V *)room((job->hidden + 1) * LANES);
    Rank *ranks = malloc((size_t)(groups + boxes + 1) * sizeof(Rank));
    Walk own = {boxes, groups, 0, upper, ranks, ranks + groups, slope, 0, 0};
    taken_by_others(&own);
    for (int64_t piece; (piece = take(&job->next)) < job->parts;) {
        const int64_t first = piece * job->part, end = least(job->n_queries, first + job->part);
        const double scanned = job->pace * job->count * AT_ONCE * ((end - first + AT_ONCE - 1) / AT_ONCE);
        double left = LOSS * scanned, now = boxes ? nanoseconds() : 0;
        int64_t n = 0;
        for (int64_t query = first; query < end; query++) {
            const REAL *row = job->queries + query * job->dense;
            const int64_t at = (query - first) * room_of_top;
            Top top = {job->least, INT64_MAX, query, 0, scores + at, ids + at};
            job->computed[query] = job->count;
            if (boxes && (left > 0 || (left += taken_by_others(&own)) > 0)) {
                const double alone = scanned / (double)(end - first), start = now;
                const int cold = query == first; /* it brings the boxes into the caches, and may take all that is left */
                const double most = n % AT_ONCE < ALONE ? alone * AT_ONCE / 2 : alone; /* what it costs to give it up */
                const int done = walk(job, &top, row, &own, start + (left < most || cold ? left : most));
                now = nanoseconds();
                left += done && start + alone > now ? (start + alone - now) / 2 : done ? start + alone - now : start - now;
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
            tops[more] = (Top){INFINITY, 0, 0, 0, scores, ids};
        }
        scan(job, rows, tops, n);
        for (int64_t q = 0; q < n; q++) give(job, tops + q);
    }
    free(ids), free(tops), free(ranks), leave(rows), leave(scores), leave(upper), leave((REAL *)slope);
}
