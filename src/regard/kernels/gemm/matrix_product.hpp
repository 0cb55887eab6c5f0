// Small matrix products by register tiles, used for all five products of attention and its gradients.
#pragma once

#include "simd/memory.hpp"

namespace regard::REGARD_ISA {

// Loads M x N accumulators from C (ADD) or zeros them, runs `work` on them, and stores them to C.
template <typename T, int M, int N, bool ADD, typename Work>
REGARD_INLINE void with_sums(T* __restrict c, int64_t c_row, const Work& work) {
    constexpr int W = LANES<T>;
    Vec<T> sum[M][N];
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[m][n] = ADD ? load(c + m * c_row + n * W) : Vec<T>{};
    work(sum);
#pragma GCC unroll 12
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) store(c + m * c_row + n * W, sum[m][n]);
}

// Accumulates A B over depth [start, stop) into COUNT of the N vectors of each sum, from vector FIRST on. Entry (m, k) of A is
// a[m * row + k * column], so A may be transposed. PREFETCH: fetches a cache line for each k.
template <bool PREFETCH, int FIRST, int COUNT, typename T, int M, int N>
REGARD_INLINE void add_products(Vec<T> (&sum)[M][N], int64_t start, int64_t stop, const T* __restrict a, int64_t row, int64_t column,
                                const T* __restrict b, int64_t b_row, PrefetchQueue* prefetches) {
    constexpr int W = LANES<T>;
    for (int64_t k = start; k < stop; ++k) {
        if constexpr (PREFETCH) prefetches->fetch_line();
        Vec<T> right[COUNT];
#pragma GCC unroll 8
        for (int n = 0; n < COUNT; ++n) right[n] = load(b + k * b_row + (FIRST + n) * W);
#pragma GCC unroll 12
        for (int m = 0; m < M; ++m) {
            const Vec<T> left = broadcast(a[m * row + k * column]);
#pragma GCC unroll 8
            for (int n = 0; n < COUNT; ++n) sum[m][FIRST + n] += left * right[n];
        }
    }
}

// Register tile: C (M x N vectors) = or += A B.
template <typename T, int M, int N, bool ADD, bool PREFETCH = false>
static inline void register_tile(int64_t depth, const T* a, int64_t row, int64_t column, const T* b, int64_t b_row, T* c,
                                 int64_t c_row, PrefetchQueue* prefetches = nullptr) {
    with_sums<T, M, N, ADD>(c, c_row, [&](auto& sum) __attribute__((always_inline)) {
        add_products<PREFETCH, 0, N, T>(sum, 0, depth, a, row, column, b, b_row, prefetches);
    });
}

// Register tiles of N vectors of columns, down all rows.
template <typename T, int N, bool ADD>
static inline void rows_of_tiles(int64_t rows, int64_t depth, const T* a, int64_t row, int64_t column, const T* b,
                                 int64_t b_row, T* c, int64_t c_row, PrefetchQueue* prefetches) {
    constexpr int TALLER = N <= WIDE / 2 ? 2 * TALL : TALL;  // few columns leave registers for more rows
    int64_t m = 0;
    for (; m + TALLER <= rows && prefetches && !prefetches->done(); m += TALLER)
        register_tile<T, TALLER, N, ADD, true>(depth, a + m * row, row, column, b, b_row, c + m * c_row, c_row, prefetches);
    for (; m + TALLER <= rows; m += TALLER)
        register_tile<T, TALLER, N, ADD>(depth, a + m * row, row, column, b, b_row, c + m * c_row, c_row);
    for (; m + TALL <= rows; m += TALL)
        register_tile<T, TALL, N, ADD>(depth, a + m * row, row, column, b, b_row, c + m * c_row, c_row);
    a += m * row, c += m * c_row;
    switch (rows - m) {
        case 5: register_tile<T, 5, N, ADD>(depth, a, row, column, b, b_row, c, c_row); break;
        case 4: register_tile<T, 4, N, ADD>(depth, a, row, column, b, b_row, c, c_row); break;
        case 3: register_tile<T, 3, N, ADD>(depth, a, row, column, b, b_row, c, c_row); break;
        case 2: register_tile<T, 2, N, ADD>(depth, a, row, column, b, b_row, c, c_row); break;
        case 1: register_tile<T, 1, N, ADD>(depth, a, row, column, b, b_row, c, c_row); break;
        default: break;
    }
}

// C (rows x columns) = or += A (rows x depth) B (depth x columns); columns must be a multiple of the vector length. Every entry
// is the sum over k in ascending order, whatever tile it falls into.
template <typename T, bool ADD>
static void product(int64_t rows, int64_t columns, int64_t depth, const T* a, int64_t row, int64_t column, const T* b,
                    int64_t b_row, T* c, int64_t c_row, PrefetchQueue* prefetches = nullptr) {
    constexpr int W = LANES<T>;
    int64_t n = 0;
    for (; n + WIDE * W <= columns; n += WIDE * W)
        rows_of_tiles<T, WIDE, ADD>(rows, depth, a, row, column, b + n, b_row, c + n, c_row, prefetches);
    if constexpr (WIDE > 2) {
        if (n + 3 * W == columns) return rows_of_tiles<T, 3, ADD>(rows, depth, a, row, column, b + n, b_row, c + n, c_row, prefetches);
        for (; n + 2 * W <= columns; n += 2 * W) rows_of_tiles<T, 2, ADD>(rows, depth, a, row, column, b + n, b_row, c + n, c_row, prefetches);
    }
    for (; n < columns; n += W) rows_of_tiles<T, 1, ADD>(rows, depth, a, row, column, b + n, b_row, c + n, c_row, prefetches);
}

// A range of the depth whose products go to some neighboring columns of C only: a step of a banded B.
struct DepthSegment {
    int64_t column, columns, start, stop;
};
constexpr int64_t MAX_SEGMENTS = 8;

// COUNT vectors from FIRST on, as a compile-time value.
template <int FIRST, int COUNT>
struct VectorRange {};

// Register tile C (TALL x WIDE vectors) += A B, segment after segment, with the sums in registers.
template <typename T>
static inline void segmented_tile(const DepthSegment* segments, int64_t count, const T* a, int64_t row, int64_t column, const T* b, int64_t b_row,
                               T* c, int64_t c_row) {
    static_assert(WIDE <= 4);
    constexpr int W = LANES<T>;
    with_sums<T, TALL, WIDE, true>(c, c_row, [&](auto& sum) __attribute__((always_inline)) {
        for (int64_t s = 0; s < count; ++s) {
            const DepthSegment& segment = segments[s];
            auto accumulate = [&]<int FIRST, int COUNT>(VectorRange<FIRST, COUNT>) __attribute__((always_inline)) {
                if constexpr (FIRST + COUNT <= WIDE)
                    add_products<false, FIRST, COUNT, T>(sum, segment.start, segment.stop, a, row, column, b, b_row, nullptr);
            };
            switch (segment.column / W * 4 + segment.columns / W) {
                case 1: accumulate(VectorRange<0, 1>()); break;
                case 2: accumulate(VectorRange<0, 2>()); break;
                case 3: accumulate(VectorRange<0, 3>()); break;
                case 4: accumulate(VectorRange<0, 4>()); break;
                case 5: accumulate(VectorRange<1, 1>()); break;
                case 6: accumulate(VectorRange<1, 2>()); break;
                case 7: accumulate(VectorRange<1, 3>()); break;
                case 9: accumulate(VectorRange<2, 1>()); break;
                case 10: accumulate(VectorRange<2, 2>()); break;
                default: accumulate(VectorRange<3, 1>()); break;
            }
        }
    });
}

// C (rows x at most WIDE vectors) += A B for a staircase-shaped B: depth segments in rising order, without overlap, each for a
// range of columns.
template <typename T>
static void segmented_product(int64_t rows, const DepthSegment* segments, int64_t count, const T* a, int64_t row, int64_t column, const T* b,
                              int64_t b_row, T* c, int64_t c_row) {
    int64_t m = 0;
    for (; m + TALL <= rows; m += TALL) segmented_tile(segments, count, a + m * row, row, column, b, b_row, c + m * c_row, c_row);
    for (int64_t s = 0; m < rows && s < count; ++s)
        product<T, true>(rows - m, segments[s].columns, segments[s].stop - segments[s].start, a + m * row + segments[s].start * column, row, column,
                         b + segments[s].start * b_row + segments[s].column, b_row, c + m * c_row + segments[s].column, c_row);
}

}  // namespace regard::REGARD_ISA
