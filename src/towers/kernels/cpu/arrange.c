/* Items in an order in which neighbours are alike, so that boxes of them are small (`topk.c`): a k-d tree whose leaves are
   boxes. Each node is divided along the coordinate in which its items spread the most, so coordinates must be alike: a
   step along each of them moves scores about as much. Sorted are keys, of 8 bytes for floats; the items move at the end,
   and in place. */

#include "vectors.h"

enum { BLOCK = 16, BOX = 8, SAMPLE = 128, NEAR = 1 << 15, SEEN = 16 };
/* items; blocks; items by which a coordinate is chosen; whose coordinates are held; keys by which a pivot is chosen */

typedef struct {
    REAL *values;
    uint32_t *items;
} Keys;

INLINE Keys from(Keys keys, int64_t first) { return (Keys){keys.values + first, keys.items + first}; }

/* Keys below the pivot (or equal to it, too) come first; how many they are. There is no branch to guess. */
INLINE int64_t divide(Keys keys, int64_t count, REAL pivot, int or_equal) {
    int64_t first = 0;
    for (int64_t i = 0; i < count; i++) {
        const REAL value = keys.values[i];
        const uint32_t item = keys.items[i];
        keys.values[i] = keys.values[first], keys.items[i] = keys.items[first];
        keys.values[first] = value, keys.items[first] = item;
        first += or_equal ? value <= pivot : value < pivot;
    }
    return first;
}

/* The value that is about the `at`th of all, on the side that leaves fewer of them. */
static REAL pivot_of(const REAL *values, int64_t count, int64_t at) {
    REAL seen[SEEN];
    for (int64_t i = 0; i < SEEN; i++) {
        const REAL value = values[i * count / SEEN];
        int64_t to = i;
        for (; to && seen[to - 1] > value; to--) seen[to] = seen[to - 1];
        seen[to] = value;
    }
    const int64_t place = at * SEEN / count;
    return seen[at > count / 2 ? place - 1 : place + 1];
}

/* The `at` smallest keys come first. */
static void select_smallest(Keys keys, int64_t count, int64_t at) {
    while (0 < at && at < count) {
        const REAL pivot = pivot_of(keys.values, count, at);
        const int64_t below = divide(keys, count, pivot, 0);
        if (at <= below) {
            count = below;
            continue;
        }
        const int64_t up_to = below + divide(from(keys, below), count - below, pivot, 1);
        if (at <= up_to) return;
        keys = from(keys, up_to), count -= up_to, at -= up_to;
    }
}

typedef struct {
    const REAL *rows; /* "count dense" */
    V *axes;          /* "width dense": a row times these is a place, whose coordinates are lanes */
    int64_t dense, hidden, width;
    V *place;        /* of one item, "width" */
    double *sums;    /* of coordinates and of their squares, "2 hidden" */
    REAL *held;      /* coordinates of the items of a node, "NEAR hidden" */
    uint32_t *items; /* which items those are, "NEAR" */
} Space;

/* The coordinates of an item; 0 in place of what is no number, since that has no order. */
static const REAL *place_of(const Space *in, int64_t item) {
    const REAL *row = in->rows + item * in->dense;
    for (int64_t part = 0; part < in->width; part++) {
        const V *axes = in->axes + part * in->dense;
        V sum = all(0);
        for (int64_t k = 0; k < in->dense; k++) sum = mul_add(all(row[k]), axes[k], sum);
        in->place[part] = (V)((Mask)sum & (sum == sum));
    }
    return (const REAL *)in->place;
}

INLINE const REAL *coordinates(const Space *in, uint32_t item, int are_held) {
    return are_held ? in->held + item * in->hidden : place_of(in, item);
}

/* The coordinate that varies the most, as seen in a sample. */
static int64_t widest(const Space *in, Keys keys, int64_t count, int are_held) {
    double *const squares = in->sums + in->hidden, most = -1;
    int64_t seen = 0, best = 0;
    memset(in->sums, 0, 2 * in->hidden * sizeof(double));
    for (int64_t i = 0; i < count; i += count / SAMPLE + 1, seen++) {
        const REAL *own = coordinates(in, keys.items[i], are_held);
        for (int64_t j = 0; j < in->hidden; j++) in->sums[j] += own[j], squares[j] += (double)own[j] * own[j];
    }
    for (int64_t j = 0; j < in->hidden; j++) {
        const double variance = squares[j] - in->sums[j] * in->sums[j] / seen;
        if (variance > most) best = j, most = variance;
    }
    return best;
}

/* These keys change places. Halves are whole boxes, and of many boxes whole groups. */
static void split(const Space *in, Keys keys, int64_t count, int are_held) {
    const int64_t boxes = (count + BLOCK * BOX - 1) / (BLOCK * BOX), whole = boxes > BLOCK ? BLOCK : 1;
    if (boxes < 2) return;
    if (!are_held && count <= NEAR) { /* from here on they stay in cache */
        for (int64_t i = 0; i < count; i++) {
            __builtin_prefetch(in->rows + keys.items[least(i + 16, count - 1)] * in->dense);
            memcpy(in->held + i * in->hidden, place_of(in, keys.items[i]), in->hidden * sizeof(REAL));
            in->items[i] = keys.items[i], keys.items[i] = (uint32_t)i;
        }
        split(in, keys, count, 1);
        for (int64_t i = 0; i < count; i++) keys.items[i] = in->items[keys.items[i]];
        return;
    }
    const int64_t half = (boxes + whole) / whole / 2 * whole * BLOCK * BOX, axis = widest(in, keys, count, are_held);
    for (int64_t i = 0; i < count; i++) {
        if (!are_held) __builtin_prefetch(in->rows + keys.items[least(i + 16, count - 1)] * in->dense);
        keys.values[i] = coordinates(in, keys.items[i], are_held)[axis];
    }
    select_smallest(keys, count, half);
    split(in, keys, half, are_held);
    split(in, from(keys, half), count - half, are_held);
}

/* The order of rows "count dense", fewer than 2^32: which row each place gets; 0 if there was no memory. A row times
   `read`, "hidden dense", is its place. */
EXPORT int64_t NAME(topk_order)(const REAL *rows, uint32_t *order, int64_t count, int64_t dense, int64_t hidden,
                                const REAL *read) {
    const Keys keys = {malloc((size_t)(count + 1) * sizeof(REAL)), order};
    if (!keys.values) return 0;
    const int64_t width = blocks_of(hidden), held = least(count, NEAR);
    REAL *axes = room(width * dense * LANES), *places = room(held * hidden + width * LANES);
    double *sums = malloc((size_t)(2 * hidden) * sizeof(double));
    uint32_t *items = malloc((size_t)held * sizeof(uint32_t));
    const Space in = {rows, (V *)axes, dense, hidden, width, (V *)places, sums, places + width * LANES, items};
    for (int64_t at = 0; at < width * dense * LANES; at++) {
        const int64_t k = at / LANES % dense, j = at / LANES / dense * LANES + at % LANES;
        axes[at] = j < hidden ? read[j * dense + k] : 0;
    }
    for (int64_t i = 0; i < count; i++) order[i] = (uint32_t)i;
    split(&in, keys, count, 0);
    free(keys.values), free(sums), free(items), leave(axes), leave(places);
    return 1;
}

/* Each place gets the row and the id of its item, along the cycles of the permutation; the items become the places
   themselves. */
EXPORT void NAME(topk_move)(REAL *rows, int64_t *ids, uint32_t *items, int64_t count, int64_t dense) {
    const size_t size = (size_t)dense * sizeof(REAL);
    REAL *row = room(dense);
    for (int64_t first = 0; first < count; first++) {
        if (items[first] == first) continue;
        const int64_t id = ids[first];
        memcpy(row, rows + first * dense, size);
        int64_t at = first;
        while (items[at] != first) {
            const int64_t from = items[at];
            memcpy(rows + at * dense, rows + from * dense, size);
            ids[at] = ids[from], items[at] = (uint32_t)at, at = from;
        }
        memcpy(rows + at * dense, row, size);
        ids[at] = id, items[at] = (uint32_t)at;
    }
    leave(row);
}

/* States "count hidden" times `weight`, "hidden dense", are rows "count dense". Each product and each sum is rounded, in the
   order of the numbers, so that a state gives the same bits as by torch. */
EXPORT void NAME(topk_rows)(const REAL *states, const REAL *weight, REAL *rows, int64_t count, int64_t hidden,
                            int64_t dense) {
    const int64_t width = blocks_of(dense);
    REAL *columns = room(width * LANES * hidden);
    for (int64_t k = 0; k < hidden; k++) memcpy(columns + k * width * LANES, weight + k * dense, dense * sizeof(REAL));
    for (int64_t i = 0; i < count; i++)
        for (int64_t part = 0; part < width; part++) {
            const REAL *column = columns + part * LANES, *state = states + i * hidden;
            V sum = all(state[0]) * load(column);
            for (int64_t k = 1; k < hidden; k++) sum += all(state[k]) * load(column + k * width * LANES);
            memcpy(rows + i * dense + part * LANES, &sum, least(LANES, dense - part * LANES) * sizeof(REAL));
        }
    leave(columns);
}
