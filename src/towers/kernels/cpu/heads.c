/* The logits of heads with one dense layer, for queries and items, and cheaper scores in their place. Items lie BLOCK side by side, "blocks hidden BLOCK".

   A unit of the dense layer reads features of a query's state a and of an item's state b. Of each number of the states
   that is a line with a kink at a = b, and a product: absolute |a - b| + linear (a - b) + product a b. For one query it
   is absolute |a - b| + slope b and a constant, with slope = product a - linear: two products for each number and unit,
   whichever features the head has.

   Sums over CHUNK numbers of the states stay in registers and are then added up: rounding errors stay small
   (`heads_call.py` counts them), and what is read stays in the cache. All sums have the same order, so that a logit has
   the same bits wherever it is computed. */

#include "vectors.h"

#if defined(__AVX512F__) || defined(__aarch64__)
#define MOST 12 /* units at a time, so that their sums stay in registers */
#else
#define MOST 4
#endif
enum { BLOCK = 16, CHUNK = 64, FEWEST = 4, TOGETHER = 2, QUERIES = 8 }; /* items, numbers, units, vectors of items */
#define VECTORS_OF_BLOCK (BLOCK / LANES)
#define UNROLL_UNITS _Pragma("GCC unroll 12")

typedef struct {
    const REAL *queries;  /* "queries hidden" */
    const REAL *blocks;   /* the items */
    const int64_t *from;  /* "queries+1": where the blocks of each query begin; absent: each query meets all blocks */
    const REAL *absolute; /* "hidden units"; the number of units is a multiple of FEWEST; of lines "queries hidden" */
    const REAL *linear;   /* the same */
    const REAL *product;  /* the same */
    const REAL *bias;     /* "units" */
    const REAL *weights;  /* "outputs units", of the second layer */
    const REAL *offsets;  /* "outputs" */
    REAL *logits;         /* "outputs queries blocks BLOCK", or with `from` "outputs blocks BLOCK" */
    int64_t n_queries, n_blocks, hidden, units, outputs;
    int64_t part, parts, next; /* blocks of a part, parts of a query, and the next one to take */
} Job;

INLINE V magnitude(V x) { return (V)((Mask)x & ~(Mask)all((REAL)-0.0)); }
INLINE V positive(V x) { return (V)((Mask)x & (x > all(0))); }
/* sum += a * b, rounded once. gcc would put some sums into the registers of a or b and move them back, each time. */
INLINE void accumulate(V *sum, V a, V b) {
#if defined(__AVX512F__) && BYTES == 64
    if (IS_FLOAT)
        __asm__("vfmadd231ps %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
    else
        __asm__("vfmadd231pd %2, %1, %0" : "+v"(*sum) : "v"(a), "v"(b));
#else
    *sum = mul_add(a, b, *sum);
#endif
}

INLINE int64_t at_once(int64_t left) { return left >= MOST ? MOST : FEWEST; }

/* What a thread works with: for one query the weights as they are read, and the sums of all units. */
typedef struct {
    REAL *weights;  /* for some units at once: of each number of a chunk `absolute` and then `slope` */
    REAL *constant; /* "units" */
    V (*total)[TOGETHER];
} Scratch;

static void prepare(const Job *job, const REAL *query, Scratch scratch) {
    const int64_t units = job->units;
    REAL *to = scratch.weights;
    for (int64_t chunk = 0; chunk < job->hidden; chunk += CHUNK)
        for (int64_t first = 0, n; first < units; first += n) {
            n = at_once(units - first);
            for (int64_t i = chunk; i < least(job->hidden, chunk + CHUNK); i++, to += 2 * n)
                for (int64_t u = 0; u < n; u++) {
                    const int64_t at = i * units + first + u;
                    to[u] = job->absolute[at];
                    to[n + u] = job->product[at] * query[i] - job->linear[at];
                }
        }
    for (int64_t u = 0; u < units; u++) {
        double sum = job->bias[u];
        for (int64_t i = 0; i < job->hidden; i++) sum += (double)job->linear[i * units + u] * query[i];
        scratch.constant[u] = (REAL)sum;
    }
}

/* total += the products of `count` numbers; n units and m vectors are known when this is compiled. */
INLINE void add_products(V (*total)[TOGETHER], const REAL *weights, const REAL *const *item, V (*apart)[TOGETHER],
                         int64_t count, const int n, const int m) {
    V sum[MOST][TOGETHER];
    UNROLL_UNITS for (int u = 0; u < n; u++) UNROLL for (int v = 0; v < m; v++) sum[u][v] = all(0);
    for (int64_t i = 0; i < count; i++, weights += 2 * n) {
        V own[TOGETHER], distance[TOGETHER];
        UNROLL for (int v = 0; v < m; v++) own[v] = load(item[v] + i * BLOCK), distance[v] = apart[i][v];
        UNROLL_UNITS for (int u = 0; u < n; u++) {
            const V absolute = all(weights[u]), slope = all(weights[n + u]);
            UNROLL for (int v = 0; v < m; v++) {
                accumulate(&sum[u][v], absolute, distance[v]);
                accumulate(&sum[u][v], slope, own[v]);
            }
        }
    }
    UNROLL_UNITS for (int u = 0; u < n; u++) UNROLL for (int v = 0; v < m; v++) total[u][v] += sum[u][v];
}

/* The logits of m vectors of items, from this one on. */
INLINE void some_items(const Job *job, const REAL *query, int64_t vector, Scratch scratch, REAL *logits, const int m) {
    const int64_t hidden = job->hidden, units = job->units;
    const REAL *item[TOGETHER];
    UNROLL for (int v = 0; v < m; v++) {
        const int64_t at = vector + v;
        item[v] = job->blocks + at / VECTORS_OF_BLOCK * hidden * BLOCK + at % VECTORS_OF_BLOCK * LANES;
    }
    for (int64_t u = 0; u < units; u++)
        UNROLL for (int v = 0; v < m; v++) scratch.total[u][v] = all(scratch.constant[u]);
    const REAL *weights = scratch.weights;
    for (int64_t first = 0; first < hidden; first += CHUNK) {
        const int64_t count = least(CHUNK, hidden - first);
        V apart[CHUNK][TOGETHER];
        const REAL *own[TOGETHER];
        UNROLL for (int v = 0; v < m; v++) own[v] = item[v] + first * BLOCK;
        for (int64_t i = 0; i < count; i++)
            UNROLL for (int v = 0; v < m; v++) apart[i][v] = magnitude(all(query[first + i]) - load(own[v] + i * BLOCK));
        for (int64_t unit = 0, n; unit < units; unit += n, weights += 2 * n * count) {
            n = at_once(units - unit);
            if (n == MOST)
                add_products(scratch.total + unit, weights, own, apart, count, MOST, m);
            else
                add_products(scratch.total + unit, weights, own, apart, count, FEWEST, m);
        }
    }
    const int64_t plane = (job->from ? 1 : job->n_queries) * job->n_blocks * BLOCK;
    for (int64_t output = 0; output < job->outputs; output++) {
        V sum[TOGETHER];
        UNROLL for (int v = 0; v < m; v++) sum[v] = all(job->offsets[output]);
        for (int64_t u = 0; u < units; u++)
            UNROLL for (int v = 0; v < m; v++)
                sum[v] = mul_add(all(job->weights[output * units + u]), positive(scratch.total[u][v]), sum[v]);
        UNROLL for (int v = 0; v < m; v++) store(logits + output * plane + (vector + v) * LANES, sum[v]);
    }
}

/* The logits of the parts of the queries that no other thread has taken. */
BY_THREADS(heads_logits) {
    Job *job = shared;
    Scratch scratch = {room(2 * job->units * job->hidden), room(job->units), NULL};
    scratch.total = (V(*)[TOGETHER])room(job->units * TOGETHER * LANES);
    int64_t prepared = -1;
    for (int64_t piece; (piece = take(&job->next)) < job->n_queries * job->parts;) {
        const int64_t query = piece / job->parts, first = piece % job->parts * job->part;
        const REAL *own = job->queries + query * job->hidden;
        const int64_t start = job->from ? job->from[query] : 0;
        const int64_t end = job->from ? job->from[query + 1] : job->n_blocks;
        int64_t vector = (start + first) * VECTORS_OF_BLOCK;
        const int64_t last = least(end, start + first + job->part) * VECTORS_OF_BLOCK;
        if (vector >= last) continue;
        if (prepared != query) prepare(job, own, scratch), prepared = query;
        REAL *logits = job->logits + (job->from ? 0 : query * job->n_blocks * BLOCK);
        for (; vector + TOGETHER <= last; vector += TOGETHER) some_items(job, own, vector, scratch, logits, TOGETHER);
        for (; vector < last; vector++) some_items(job, own, vector, scratch, logits, 1);
    }
    leave(scratch.weights), leave(scratch.constant), leave((REAL *)scratch.total);
}

/* A cheap score: of n queries and a vector of items the sums of absolute |a - b| + linear b, with weights that each query
   has of its own. */
INLINE void some_lines(const Job *job, int64_t query, int64_t vector, const int n) {
    const int64_t hidden = job->hidden, at = query * hidden;
    const REAL *item = job->blocks + vector / VECTORS_OF_BLOCK * hidden * BLOCK + vector % VECTORS_OF_BLOCK * LANES;
    V sum[QUERIES];
    UNROLL for (int q = 0; q < n; q++) sum[q] = all(0);
    for (int64_t i = 0; i < hidden; i++) {
        const V own = load(item + i * BLOCK);
        UNROLL for (int q = 0; q < n; q++) {
            const int64_t number = at + q * hidden + i;
            accumulate(&sum[q], all(job->absolute[number]), magnitude(all(job->queries[number]) - own));
            accumulate(&sum[q], all(job->linear[number]), own);
        }
    }
    UNROLL for (int q = 0; q < n; q++) store(job->logits + (query + q) * job->n_blocks * BLOCK + vector * LANES, sum[q]);
}

/* The same of all queries and of the parts of the items that no other thread has taken. */
BY_THREADS(heads_lines) {
    Job *job = shared;
    for (int64_t piece; (piece = take(&job->next)) < job->parts;) {
        const int64_t first = piece * job->part * VECTORS_OF_BLOCK;
        const int64_t last = least(job->n_blocks, (piece + 1) * job->part) * VECTORS_OF_BLOCK;
        for (int64_t query = 0, n; query < job->n_queries; query += n) {
            n = job->n_queries - query >= QUERIES ? QUERIES : 1;
            for (int64_t vector = first; vector < last; vector++)
                if (n == QUERIES)
                    some_lines(job, query, vector, QUERIES);
                else
                    some_lines(job, query, vector, 1);
        }
    }
}
