/* Which level of code the processor and its system can run, and what this library was made from. */

#include "vectors.h"

#if defined(__x86_64__) || defined(_M_X64)
#include <cpuid.h>

#define BIT(number) (1u << (number))
enum { OSXSAVE = 27 };

/* The registers that the system keeps for each thread. */
static uint32_t kept(void) {
    uint32_t low, high;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return low;
}

/* 4, 3 or 2: of x86-64, as its ABI defines them; 0 for less. */
EXPORT int64_t towers_level(void) {
    uint32_t a, b, c = 0, d, more_b = 0, more_c, further_c = 0;
    __get_cpuid(1, &a, &b, &c, &d);
    __get_cpuid_count(7, 0, &a, &more_b, &more_c, &d);
    __get_cpuid(0x80000001, &a, &b, &further_c, &d);
    const uint32_t registers = c & BIT(OSXSAVE) ? kept() : 0;
    /* SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, POPCNT; LAHF */
    const uint32_t v2 = BIT(0) | BIT(9) | BIT(13) | BIT(19) | BIT(20) | BIT(23), v2_further = BIT(0);
    /* FMA, MOVBE, OSXSAVE, AVX, F16C; BMI1, AVX2, BMI2; LZCNT; and the vectors of AVX */
    const uint32_t v3 = BIT(12) | BIT(22) | BIT(OSXSAVE) | BIT(28) | BIT(29), v3_further = BIT(5);
    const uint32_t v3_more = BIT(3) | BIT(5) | BIT(8), v3_registers = 0x6;
    /* AVX512F, AVX512DQ, AVX512CD, AVX512BW, AVX512VL; and their vectors */
    const uint32_t v4_more = BIT(16) | BIT(17) | BIT(28) | BIT(30) | BIT(31), v4_registers = 0xe6;
#define HAS(set, bits) (((set) & (bits)) == (bits))
    if (!HAS(c, v2) || !HAS(further_c, v2_further)) return 0;
    if (!HAS(c, v3) || !HAS(further_c, v3_further) || !HAS(more_b, v3_more) || !HAS(registers, v3_registers)) return 2;
    return HAS(more_b, v4_more) && HAS(registers, v4_registers) ? 4 : 3;
}
#else
EXPORT int64_t towers_level(void) { return 1; }
#endif

/* The hash of all sources (`built.digest`). */
EXPORT const char *towers_sources(void) { return SOURCES; }
