/* What functions have in common that do a whole job in one call: who works, and what they answer. */

#ifndef TOWERS_CALLS
#define TOWERS_CALLS

#include "vectors.h"

typedef void ByThreads(int64_t begin, int64_t end, void *shared);
/* torch_parallel_for of libtorch. */
typedef int32_t Parallel(int64_t begin, int64_t end, int64_t grain, ByThreads *work, void *shared);

/* What a call answers; ALONE is added where threads could not be started, and one did all the work. */
enum { DONE = 0, WRONG_LENGTHS = 1, WRONG_IDS = 2, NO_MEMORY = 3, ALONE = 4 };

INLINE int64_t most(int64_t one, int64_t other) { return one > other ? one : other; }
INLINE int64_t up(int64_t count, int64_t size) { return (count + size - 1) / size; }

/* Where the threads fail, they are not asked again, and the answer has ALONE. */
INLINE void by_threads(Parallel **parallel, ByThreads *work, void *shared, int64_t threads) {
    if (threads > 1 && *parallel) {
        if (!(*parallel)(0, threads, 1, work, shared)) return;
        *parallel = 0;
    }
    work(0, 1, shared); /* what is left, if that failed */
}

INLINE int64_t with_threads(int64_t answer, const Parallel *before, const Parallel *after) {
    return before == after ? answer : answer | ALONE;
}

#endif
