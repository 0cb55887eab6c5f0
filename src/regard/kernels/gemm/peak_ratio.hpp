// Peak ratios: a bound on the rounding error of int8-split products, from which rows to multiply as floats are chosen.
//
// The peak ratio c of a row is log2 of its largest magnitude over the geometric mean of its magnitudes, zeros excluded: large
// in rows with outliers. Let a product of two rows x and y have n terms, and X and Y be their largest magnitudes. The int8
// split rounds each number to 2^-24 of the largest of its row: an error of variance u^2 (X^2 |y|^2 + Y^2 |x|^2), u = 2^-24 /
// sqrt(3). Floats round each partial sum to 2^-24 of itself: for terms of random signs, about u^2 / 4 n sum x_i^2 y_i^2 in all.
// By the inequalities of Cauchy-Schwarz and of arithmetic and geometric means,
//
//     sum x_i^2 y_i^2 >= (sum |x_i y_i|)^2 / n >= n X^2 Y^2 4^-(c(x) + c(y)),
//
// so the ratio of the errors is at most 2^(c(x) + c(y)) sqrt(4 (|x|^2 / X^2 + |y|^2 / Y^2)) / n. A limit of a constant plus
// log2(n) / 2 on c(x) + c(y) therefore bounds the error relative to that of floats, for any two rows. For numbers of a
// continuous distribution the true ratio is about a third of the bound. Rows of normal numbers have peak ratios of 2.3 (n = 64)
// to 2.5 (n = 256).
#pragma once

#include "gemm/bf16_dot.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t MAX_SPLIT_DEPTH = 1 << 15;  // numbers in a row; more could overflow the int32 sums

#if defined(__AMX_INT8__) && defined(__AVX512VBMI__)
#define REGARD_INT8_SPLIT

constexpr float MIN_ROW_MAX = 0x1p-100f;     // smaller nonzero row maxima lose precision: infinite peak ratio
constexpr float MAX_ROW_MAX = 0x1p126f;       // larger or non-finite row maxima likewise

// Base of the limit on the sum of two rows' peak ratios: beyond `limit(depth, PAIR_LIMIT)` they are multiplied as floats.
constexpr float PAIR_LIMIT = 3.5f;
// Limit for a key or query row in products that sum over keys or queries, where the row is scaled by its largest feature:
// beyond, features far below an outlier would lose precision. With a single outlier, the peak ratio is 4 where it is 9 times
// the standard deviation of the others.
constexpr float ROW_LIMIT = 4;
constexpr float NO_LIMIT = 3e38f;  // no limit, except for rows that cannot be split

// Absolute values, as integer bits.
REGARD_INLINE __m512i magnitude(__m512 x) { return _mm512_and_si512((__m512i)x, _mm512_set1_epi32(0x7fffffff)); }

// log2 of magnitudes in fixed point, from their bits: in steps of 1 / 128 from 2^-127 on, at most 0.09 below the true value.
constexpr float STEPS_OF_LOG = 128;
REGARD_INLINE __m512i log_of(__m512i magnitude) { return _mm512_srli_epi32(magnitude, 16); }

// Limit on a sum of two peak ratios: base + log2(depth) / 2.
static float limit(int64_t depth, float base, bool relaxed) {
    constexpr int64_t SUMMED = 1024;  // libraries cut longer sums, whose error grows no further
    const float log = float(__builtin_bit_cast(int32_t, float(min(depth, SUMMED))) - __builtin_bit_cast(int32_t, 1.0f)) / float(1 << 23);
    return relaxed ? NO_LIMIT : base + 0.5f * log;
}

REGARD_INLINE __mmask16 not_splittable(__m512i largest) {  // integer comparison: bits of floats are ordered by magnitude
    constexpr int32_t MIN_ROW_MAX_BITS = __builtin_bit_cast(int32_t, MIN_ROW_MAX), MAX_ROW_MAX_BITS = __builtin_bit_cast(int32_t, MAX_ROW_MAX);
    return _mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(MAX_ROW_MAX_BITS)) |
           _mm512_cmplt_epu32_mask(_mm512_sub_epi32(largest, _mm512_set1_epi32(1)), _mm512_set1_epi32(MIN_ROW_MAX_BITS - 1));
}

// Peak ratios of 16 rows, from their largest magnitudes and sums of logarithms. `nonzeros()` counts the nonzero numbers of each
// row; it is called only where a ratio exceeds that of normal numbers. Fewer nonzeros than `width` lower the limit by
// log2(width / nonzeros) / 2.
template <typename Nonzeros>
REGARD_INLINE __m512 peak_ratios_of(__m512i largest, __m512i logs, int64_t width, const Nonzeros& nonzeros) {
    constexpr float LARGE = 3;
    const __m512 high = _mm512_cvtepi32_ps(log_of(largest)), sum = _mm512_cvtepi32_ps(logs), step = _mm512_set1_ps(1 / STEPS_OF_LOG);
    const __m512 all_numbers = _mm512_set1_ps(float(width));
    __m512 ratios = _mm512_mul_ps(_mm512_sub_ps(high, _mm512_div_ps(sum, all_numbers)), step);
    const __mmask16 large = _mm512_cmp_ps_mask(ratios, _mm512_set1_ps(LARGE), _CMP_GT_OQ);
    if (large) {
        const __m512 count = _mm512_max_ps(_mm512_cvtepi32_ps(nonzeros()), _mm512_set1_ps(1));
        const __m512 fewer = _mm512_cvtepi32_ps(_mm512_sub_epi32(log_of((__m512i)all_numbers), log_of((__m512i)count)));
        const __m512 above = _mm512_sub_ps(high, _mm512_div_ps(sum, count));
        ratios = _mm512_mask_mul_ps(ratios, large, _mm512_fmadd_ps(fewer, _mm512_set1_ps(0.5f), above), step);
    }
    return _mm512_mask_mov_ps(ratios, not_splittable(largest), _mm512_set1_ps(INFINITE));
}

// Smallest and largest of some peak ratios; these are not negative, so integer comparison of their bits works.
struct PeakRatioRange {
    float min, max;

    static PeakRatioRange of(const float* peak_ratios, int64_t count) {
        __m512i low = _mm512_set1_epi32(INT32_MAX), high = _mm512_setzero_si512();
        for (int64_t i = 0; i < count; i += TILE_ROWS) {
            const __mmask16 there = count - i >= TILE_ROWS ? 0xffff : __mmask16((1u << (count - i)) - 1);
            const __m512i x = _mm512_maskz_loadu_epi32(there, peak_ratios + i);
            low = _mm512_mask_min_epi32(low, there, low, x);
            high = _mm512_max_epi32(high, x);
        }
        return {__builtin_bit_cast(float, _mm512_reduce_min_epi32(low)), __builtin_bit_cast(float, _mm512_reduce_max_epi32(high))};
    }
};

// Bit set of the rows whose peak ratio exceeds a limit.
static uint64_t rows_above(const float* peak_ratios, int64_t count, float limit) {
    uint64_t rows = 0;
    for (int64_t i = 0; i < count; i += TILE_ROWS)
        rows |= uint64_t(_mm512_cmp_ps_mask(_mm512_loadu_ps(peak_ratios + i), _mm512_set1_ps(limit), _CMP_GT_OQ)) << i;
    return rows & bit_range(0, count);
}

// Calls `use(first, count)` for each run of set bits.
template <typename Use>
REGARD_INLINE void for_runs(uint64_t bits, const Use& use) {
    while (bits) {
        const int64_t first = __builtin_ctzll(bits);
        const uint64_t rest = ~(bits >> first);
        const int64_t count = rest ? __builtin_ctzll(rest) : SIDE;
        use(first, count);
        bits = first + count < SIDE ? bits >> (first + count) << (first + count) : 0;
    }
}

#endif

}  // namespace regard::REGARD_ISA
