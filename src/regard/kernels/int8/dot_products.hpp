// Exact int32 sums of products of int8 codes: a few rows of x with blocks of a weight's outputs.
//
// Layout of a weight: blocks of 16 outputs; in a block, for every four features, the four codes of each output (64 bytes).
// Features are zero-padded to a multiple of 64. Sixteen such lines are the right operand of AMX's tiles, one line is an operand
// of AVX512-VNNI, half a line one of AVX2: one layout for all instruction sets.
//
// Where an instruction multiplies unsigned by signed bytes (VNNI, AMX), the codes of x are stored plus X_OFFSET, and the sums
// are too large by X_OFFSET times the sum of the output's codes. Codes are within +-127, so the pairwise int16 sums of AVX2 are
// at most 2 * 127 * 127 = 32,258 and never saturate.
#pragma once

#include "gemm/tile_registers.hpp"
#include "simd/memory.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t BLOCK_OUTPUTS = 16, LINE = 64;  // LINE: bytes of four features of a block
constexpr int64_t DEPTH_STEP = 64;                // features are padded to a multiple of it

#if defined(__AVX512VNNI__) || defined(__AVXVNNI__)
constexpr int32_t X_OFFSET = 128;
#else
constexpr int32_t X_OFFSET = 0;
#endif

#if defined(__AVX2__)

#if defined(__AVX512VNNI__)
typedef __m512i Codes;
constexpr int ROWS = 6, VECTORS = 4;  // of a register tile
REGARD_INLINE Codes zero_sums() { return _mm512_setzero_si512(); }
REGARD_INLINE Codes load_codes(const int8_t* from) { return _mm512_loadu_si512(from); }
REGARD_INLINE void store_sums(int32_t* to, Codes x) { _mm512_storeu_si512(to, x); }
struct Left {
    Codes x;
    explicit __attribute__((always_inline)) Left(int32_t four) : x(_mm512_set1_epi32(four)) {}
    __attribute__((always_inline)) Codes add(Codes sums, Codes w) const { return _mm512_dpbusd_epi32(sums, x, w); }
};
#else
typedef __m256i Codes;
constexpr int ROWS = 4, VECTORS = 2;
REGARD_INLINE Codes zero_sums() { return _mm256_setzero_si256(); }
REGARD_INLINE Codes load_codes(const int8_t* from) { return _mm256_loadu_si256(reinterpret_cast<const Codes*>(from)); }
REGARD_INLINE void store_sums(int32_t* to, Codes x) { _mm256_storeu_si256(reinterpret_cast<Codes*>(to), x); }
struct Left {
    Codes x;
    explicit __attribute__((always_inline)) Left(int32_t four) : x(_mm256_set1_epi32(four)) {}
#if defined(__AVXVNNI__)
    __attribute__((always_inline)) Codes add(Codes sums, Codes w) const { return _mm256_dpbusd_avx_epi32(sums, x, w); }
#else
    __attribute__((always_inline)) Codes add(Codes sums, Codes w) const {
        const Codes pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(x), _mm256_sign_epi8(w, x));
        return _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
    }
#endif
};
#endif

// Sums of M rows and N vectors of outputs from vector `first` of the weight on.
template <int M, int N>
static inline void dot_tile(int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int64_t first, int32_t* sums, int64_t sums_row) {
    constexpr int WIDTH = sizeof(Codes), HALVES = LINE / WIDTH, OUTPUTS = WIDTH / 4;
    const int8_t* w[N];
    for (int n = 0; n < N; ++n) w[n] = weight + (first + n) / HALVES * (depth * BLOCK_OUTPUTS) + (first + n) % HALVES * WIDTH;
    Codes sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[m][n] = zero_sums();
    for (int64_t k = 0; k < depth; k += 4) {
        Codes right[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) right[n] = load_codes(w[n] + k * BLOCK_OUTPUTS);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            int32_t four;
            std::memcpy(&four, x + m * x_row + k, 4);
            const Left left(four);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[m][n] = left.add(sum[m][n], right[n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) store_sums(sums + m * sums_row + (first + n) * OUTPUTS, sum[m][n]);
}

template <int N>
static void dot_rows(int64_t rows, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int64_t first, int32_t* sums, int64_t sums_row) {
    switch (rows) {
        case 1: return dot_tile<1, N>(depth, x, x_row, weight, first, sums, sums_row);
        case 2: return dot_tile<2, N>(depth, x, x_row, weight, first, sums, sums_row);
        case 3: return dot_tile<3, N>(depth, x, x_row, weight, first, sums, sums_row);
        case 4: return dot_tile<4, N>(depth, x, x_row, weight, first, sums, sums_row);
        case 5: return dot_tile<(ROWS > 5 ? 5 : 1), N>(depth, x, x_row, weight, first, sums, sums_row);
        default: return dot_tile<ROWS, N>(depth, x, x_row, weight, first, sums, sums_row);
    }
}

// Sums of at most ROWS rows with some blocks of outputs, (rows, blocks * 16).
static void dot_products(int64_t rows, int64_t blocks, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int32_t* sums,
                         int64_t sums_row) {
    const int64_t vectors = blocks * (LINE / int64_t(sizeof(Codes)));
    int64_t n = 0;
    for (; n + VECTORS <= vectors; n += VECTORS) dot_rows<VECTORS>(rows, depth, x, x_row, weight, n, sums, sums_row);
    for (; n < vectors; ++n) dot_rows<1>(rows, depth, x, x_row, weight, n, sums, sums_row);
}

#else

constexpr int ROWS = 4;

static void dot_products(int64_t rows, int64_t blocks, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int32_t* sums,
                         int64_t sums_row) {
    for (int64_t b = 0; b < blocks; ++b, weight += depth * BLOCK_OUTPUTS)
        for (int64_t m = 0; m < rows; ++m) {
            int32_t sum[BLOCK_OUTPUTS] = {};
            for (int64_t k = 0; k < depth; k += 4)
                for (int64_t n = 0; n < BLOCK_OUTPUTS; ++n)
                    for (int64_t j = 0; j < 4; ++j) sum[n] += int32_t(x[m * x_row + k + j]) * int32_t(weight[k * BLOCK_OUTPUTS + 4 * n + j]);
            std::memcpy(sums + m * sums_row + b * BLOCK_OUTPUTS, sum, sizeof(sum));
        }
}

#endif

#if defined(__AMX_INT8__)

// Sums of M tiles of 16 rows and N blocks of outputs.
template <int M, int N>
static inline void tile_products(int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int32_t* sums, int64_t sums_row) {
    const int64_t block = depth * BLOCK_OUTPUTS, lower = TILE_ROWS * x_row, row = 4 * sums_row;
    _tile_zero(0);
    if constexpr (N == 2) _tile_zero(1);
    if constexpr (M == 2) _tile_zero(2);
    if constexpr (M == 2 && N == 2) _tile_zero(3);
    for (int64_t k = 0; k < depth; k += DEPTH_STEP) {
        _tile_loadd(4, x + k, x_row);
        _tile_loadd(6, weight + k * BLOCK_OUTPUTS, LINE);
        _tile_dpbusd(0, 4, 6);
        if constexpr (N == 2) {
            _tile_loadd(7, weight + block + k * BLOCK_OUTPUTS, LINE);
            _tile_dpbusd(1, 4, 7);
        }
        if constexpr (M == 2) {
            _tile_loadd(5, x + lower + k, x_row);
            _tile_dpbusd(2, 5, 6);
            if constexpr (N == 2) _tile_dpbusd(3, 5, 7);
        }
    }
    _tile_stored(0, sums, row);
    if constexpr (N == 2) _tile_stored(1, sums + BLOCK_OUTPUTS, row);
    if constexpr (M == 2) _tile_stored(2, sums + TILE_ROWS * sums_row, row);
    if constexpr (M == 2 && N == 2) _tile_stored(3, sums + TILE_ROWS * sums_row + BLOCK_OUTPUTS, row);
}

#endif

}  // namespace regard::REGARD_ISA
