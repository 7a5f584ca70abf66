/* Vectors as wide as the processor has them, and the product that all the C code here rests on.

   Each source is compiled once for each REAL, SHIFT and LEVEL, and all of it lies in one library (.build/native.py). REAL
   is float or double; SHIFT 1 halves the vectors; LEVEL is v2, v3 or v4 of x86-64, or base elsewhere.

   All levels but v2 give the same bits, whatever their vectors hold. So the order of a sum never depends on LANES or
   ROWS, a lane never adds to another lane, and what is multiplied and added in one rounding says so (`mul_add`): the
   compiler fuses nothing by itself (-ffp-contract=off). v2 has no such instruction, and rounds twice. */

#ifndef TOWERS_VECTORS
#define TOWERS_VECTORS

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__FMA__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#if defined(__AVX512F__)
#define WIDEST 64 /* bytes of a vector */
#define ROWS 6    /* so that ROWS * 4 sums, 4 weights and a broadcast fit into the registers */
#elif defined(__AVX2__)
#define WIDEST 32
#define ROWS 2
#elif defined(__aarch64__)
#define WIDEST 16
#define ROWS 6
#else
#define WIDEST 16
#define ROWS 2
#endif
#define BYTES (WIDEST >> SHIFT)
#define LANES ((int64_t)(BYTES / sizeof(REAL)))

/* What others may call. NAME(lstm_forward) is lstm_forward_float_0_v3, where all this is compiled for that. */
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif
#define JOIN(name, real, shift, level) name##_##real##_##shift##_##level
#define JOIN_VALUES(name, real, shift, level) JOIN(name, real, shift, level)
#define NAME(name) JOIN_VALUES(name, REAL, SHIFT, LEVEL)

/* A function that threads run side by side over the same job, each until no piece of it is left. Its type is that of
   the function that libtorch's torch_parallel_for calls; the range is not looked at. */
#define BY_THREADS(name) EXPORT void NAME(name)(int64_t begin, int64_t end, void *shared)

typedef REAL V __attribute__((vector_size(BYTES)));
typedef REAL Loose __attribute__((vector_size(BYTES), aligned(sizeof(REAL)), may_alias));
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

#define IS_FLOAT (sizeof(REAL) == 4)

/* a * b + c, rounded once. */
INLINE V mul_add(V a, V b, V c) {
#if !defined(__FMA__) && !defined(__aarch64__)
    return a * b + c;
#elif defined(__aarch64__) && BYTES == 16
    return IS_FLOAT ? (V)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b)
                    : (V)vfmaq_f64((float64x2_t)c, (float64x2_t)a, (float64x2_t)b);
#elif defined(__aarch64__)
    return IS_FLOAT ? (V)vfma_f32((float32x2_t)c, (float32x2_t)a, (float32x2_t)b)
                    : (V)vfma_f64((float64x1_t)c, (float64x1_t)a, (float64x1_t)b);
#elif BYTES == 64
    return IS_FLOAT ? (V)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c)
                    : (V)_mm512_fmadd_pd((__m512d)a, (__m512d)b, (__m512d)c);
#elif BYTES == 32
    return IS_FLOAT ? (V)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c)
                    : (V)_mm256_fmadd_pd((__m256d)a, (__m256d)b, (__m256d)c);
#else
    return IS_FLOAT ? (V)_mm_fmadd_ps((__m128)a, (__m128)b, (__m128)c)
                    : (V)_mm_fmadd_pd((__m128d)a, (__m128d)b, (__m128d)c);
#endif
}

INLINE V all(REAL value) { return value - (V){}; }
INLINE V load(const REAL *from) { return *(const Loose *)from; }
INLINE void store(REAL *to, V value) { *(Loose *)to = value; }
INLINE int64_t least(int64_t one, int64_t other) { return one < other ? one : other; }
INLINE int64_t together(int64_t vectors) { return vectors >= 4 ? 4 : vectors >= 2 ? 2 : 1; }
INLINE int64_t blocks_of(int64_t units) { return (units + LANES - 1) / LANES; }

INLINE void store_some(REAL *to, V value, int64_t count) {
    if (count >= LANES)
        store(to, value);
    else
        for (int64_t lane = 0; lane < count; lane++) to[lane] = value[lane];
}

INLINE V load_some(const REAL *from, int64_t count) {
    if (count >= LANES) return load(from);
    V value = all(0);
    for (int64_t lane = 0; lane < count; lane++) value[lane] = from[lane];
    return value;
}

typedef __typeof__((V){} < (V){}) Mask;

/* 0, 1, 2, … */
INLINE Mask counted(void) {
    static const int32_t narrow[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    static const int64_t wide[] = {0, 1, 2, 3, 4, 5, 6, 7};
    typedef int32_t Narrow __attribute__((vector_size(BYTES), aligned(4), may_alias));
    typedef int64_t Wide __attribute__((vector_size(BYTES), aligned(8), may_alias));
    return IS_FLOAT ? (Mask) * (const Narrow *)narrow : (Mask) * (const Wide *)wide;
}

/* `count` vectors: in each square of count rows and count lanes, rows become columns. */
INLINE void transpose(V *rows, const int count) {
#if defined(__clang__)
    for (int first = 0; first < LANES; first += count)
        for (int i = 0; i < count; i++)
            for (int j = 0; j < i; j++) {
                REAL one = rows[i][first + j];
                rows[i][first + j] = rows[j][first + i], rows[j][first + i] = one;
            }
#else
    UNROLL for (int size = 1; size < count; size *= 2) { /* squares of this size change places across the diagonal */
        const Mask lane = counted(), other_half = (lane & size) != 0;
        const Mask upper = (lane & ~size) + (other_half & LANES), lower = (lane | size) + (other_half & LANES);
        _Pragma("GCC unroll 16") for (int row = 0; row < count; row++)
            if (!(row & size)) {
                V one = rows[row], other = rows[row | size];
                rows[row] = __builtin_shuffle(one, other, upper);
                rows[row | size] = __builtin_shuffle(one, other, lower);
            }
    }
#endif
}

/* A vector of pieces of 16 bytes that lie `apart` numbers apart: loads do most of a transpose's work. */
#define PIECE ((int)(BYTES < 16 ? LANES : 16 / sizeof(REAL)))
INLINE V pieces(const REAL *from, int64_t apart) {
#if BYTES >= 32 && defined(__AVX2__)
#define PIECE_AT(place) _mm_loadu_ps((const float *)(from + (place)*apart))
#if BYTES == 64
    __m512 all_of_them = _mm512_castps128_ps512(PIECE_AT(0));
    all_of_them = _mm512_mask_broadcast_f32x4(all_of_them, 0x00f0, PIECE_AT(1));
    all_of_them = _mm512_mask_broadcast_f32x4(all_of_them, 0x0f00, PIECE_AT(2));
    return (V)_mm512_mask_broadcast_f32x4(all_of_them, 0xf000, PIECE_AT(3));
#else
    return (V)_mm256_insertf128_ps(_mm256_castps128_ps256(PIECE_AT(0)), PIECE_AT(1), 1);
#endif
#undef PIECE_AT
#else
    V value;
    for (int place = 0; place < LANES; place += PIECE)
        for (int at = 0; at < PIECE; at++) value[place + at] = from[place / PIECE * apart + at];
    return value;
#endif
}

/* `rows` rows of `width` numbers, `apart` from each other, become columns: of each k LANES numbers, 0 behind the last row,
   `stride` apart. */
INLINE void turn(REAL *to, int64_t stride, const REAL *from, int64_t apart, int64_t rows, int64_t width) {
    int64_t k = 0;
    if (rows >= LANES)
        for (; k + PIECE <= width; k += PIECE) {
            V square[PIECE];
            UNROLL for (int row = 0; row < PIECE; row++)
                square[row] = pieces(from + row * apart + k, PIECE * apart);
            transpose(square, PIECE);
            UNROLL for (int at = 0; at < PIECE; at++) store(to + (k + at) * stride, square[at]);
        }
    for (; k < width; k++) {
        store(to + k * stride, all(0));
        for (int64_t row = 0; row < least(rows, LANES); row++) to[k * stride + row] = from[row * apart + k];
    }
}

/* Memory for this number of numbers. */
#if defined(_WIN32)
#include <malloc.h>
INLINE REAL *room(int64_t count) { return _aligned_malloc(count * sizeof(REAL), 64); }
INLINE void leave(REAL *numbers) { _aligned_free(numbers); }
#else
INLINE REAL *room(int64_t count) { return aligned_alloc(64, (count * sizeof(REAL) + 63) / 64 * 64); }
INLINE void leave(REAL *numbers) { free(numbers); }
#endif

/* The next piece of a job that no thread has taken. */
INLINE int64_t take(int64_t *next) { return __atomic_fetch_add(next, 1, __ATOMIC_RELAXED); }

/* DO(first, count) for n things, as many at once as there are registers for. */
#if ROWS == 6
#define UP_TO_ROWS(DO) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6)
#define CASES(DO) CASE(DO, 1) CASE(DO, 2) CASE(DO, 3) CASE(DO, 4) CASE(DO, 5) CASE(DO, 6)
#else
#define UP_TO_ROWS(DO) DO(1) DO(2)
#define CASES(DO) CASE(DO, 1) CASE(DO, 2)
#endif
#define CASE(DO, count)                                                                                                \
    case count:                                                                                                        \
        DO(first, count);                                                                                              \
        break;
/* How many of those that are left: the last two groups are about equal. */
INLINE int of_group(int64_t left) { return left >= 2 * ROWS ? ROWS : left > ROWS ? (left + 1) / 2 : left; }
#define GROUPS(n, DO)                                                                                                  \
    for (int first = 0, here; first < (n); first += here) switch (here = of_group((n)-first)) { CASES(DO) }

/* sum[row][v] += weights[k][v] * from[row][k], over all k of the words and then of the state, for n rows. Functions of
   their own, since what stands around them would take the registers from the sums. */
#define PRODUCTS(n, vectors)                                                                                           \
    static __attribute__((noinline)) void products_##n##_##vectors(                                                    \
        V(*sum)[4], const REAL *const *x, int64_t inputs, const REAL *const *h, int64_t hidden, const REAL *w) {       \
        V total[n][vectors];                                                                                           \
        const REAL *from[n];                                                                                           \
        UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vectors; v++) total[r][v] = sum[r][v];           \
        for (int part = 0; part < 2; part++) {                                                                         \
            const int64_t count = part ? hidden : inputs;                                                              \
            UNROLL for (int r = 0; r < n; r++) from[r] = part ? h[r] : x[r];                                           \
            for (int64_t k = 0; k < count; k++, w += vectors * LANES) {                                                \
                V own[vectors];                                                                                        \
                UNROLL for (int v = 0; v < vectors; v++) own[v] = load(w + v * LANES);                                 \
                UNROLL for (int r = 0; r < n; r++) {                                                                   \
                    V value = all(from[r][k]);                                                                         \
                    UNROLL for (int v = 0; v < vectors; v++) total[r][v] = mul_add(own[v], value, total[r][v]);        \
                }                                                                                                      \
            }                                                                                                          \
        }                                                                                                              \
        UNROLL for (int r = 0; r < n; r++) UNROLL for (int v = 0; v < vectors; v++) sum[r][v] = total[r][v];           \
    }
#define PRODUCTS_1(n) PRODUCTS(n, 1)
#define PRODUCTS_2(n) PRODUCTS(n, 2)
#define PRODUCTS_4(n) PRODUCTS(n, 4)
UP_TO_ROWS(PRODUCTS_1)
UP_TO_ROWS(PRODUCTS_2)
UP_TO_ROWS(PRODUCTS_4)

typedef void Products(V (*)[4], const REAL *const *, int64_t, const REAL *const *, int64_t, const REAL *);

/* DO(count, vectors) for all vectors, as they go together. */
#define VECTORS(all_of_them, DO)                                                                                       \
    for (int64_t vector = 0; vector < (all_of_them); vector += together((all_of_them)-vector)) {                       \
        switch (together((all_of_them)-vector)) {                                                                      \
        case 4:                                                                                                        \
            GROUPS(n, DO##_4)                                                                                          \
            break;                                                                                                     \
        case 2:                                                                                                        \
            GROUPS(n, DO##_2)                                                                                          \
            break;                                                                                                     \
        default:                                                                                                       \
            GROUPS(n, DO##_1)                                                                                          \
        }                                                                                                              \
    }

#endif
