// Exact int32 sums of products of int8 codes: a few rows of x with blocks of a weight's outputs.
//
// Sixteen lines of a weight (64 bytes each: four features of a block; see problem.hpp) are the right operand of AMX's tiles, one
// line is an operand of AVX512-VNNI, half a line one of AVX2: one layout for all instruction sets.
//
// Where an instruction multiplies unsigned by signed bytes (VNNI, AMX), the codes of x are stored plus X_OFFSET, and the sums
// are too large by X_OFFSET times the sum of the output's codes. Codes are within +-127, so the pairwise int16 sums of AVX2 are
// at most 2 * 127 * 127 = 32,258 and never saturate.
#pragma once

#include "gemm/tile_registers.hpp"
#include "simd/memory.hpp"

namespace regard::REGARD_ISA {

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

// Sums of M rows and N vectors of outputs from vector `first` of the weight on. Prefetches what lies `ahead` bytes after the
// weight's codes.
template <int M, int N>
static inline void dot_tile(int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int64_t first, int64_t ahead, int32_t* sums,
                            int64_t sums_row) {
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
        for (int n = 0; n < N; n += HALVES) __builtin_prefetch(w[n] + k * BLOCK_OUTPUTS + ahead, 0, 2);
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
static void dot_rows(int64_t rows, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, int64_t first, int64_t ahead, int32_t* sums,
                     int64_t sums_row) {
    switch (rows) {
        case 1: return dot_tile<1, N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
        case 2: return dot_tile<2, N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
        case 3: return dot_tile<3, N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
        case 4: return dot_tile<4, N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
        case 5: return dot_tile<(ROWS > 5 ? 5 : 1), N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
        default: return dot_tile<ROWS, N>(depth, x, x_row, weight, first, ahead, sums, sums_row);
    }
}

// Sums of at most ROWS rows with some blocks of outputs, (rows, blocks * 16). `more`: the blocks after these come next.
static void dot_products(int64_t rows, int64_t blocks, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, bool more, int32_t* sums,
                         int64_t sums_row) {
    constexpr int64_t HALVES = LINE / int64_t(sizeof(Codes));
    const int64_t vectors = blocks * HALVES, step = VECTORS / HALVES * depth * BLOCK_OUTPUTS;
    int64_t n = 0;
    for (; n + VECTORS <= vectors; n += VECTORS)
        dot_rows<VECTORS>(rows, depth, x, x_row, weight, n, more || n + 2 * VECTORS <= vectors ? step : 0, sums, sums_row);
    for (; n < vectors; ++n) dot_rows<1>(rows, depth, x, x_row, weight, n, 0, sums, sums_row);
}

#else

constexpr int ROWS = 4;

static void dot_products(int64_t rows, int64_t blocks, int64_t depth, const int8_t* x, int64_t x_row, const int8_t* weight, bool, int32_t* sums,
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

// A product of up to two tiles of 16 rows with up to two blocks of outputs; their sums are tile registers.
struct TileProduct {
    const int8_t *x, *weight;
    int64_t x_row, depth;  // of the whole weight
    bool tall, wide;

    // Adds the products over features [from, to) to `sums`, or to zeros if it is null; prefetches what lies `ahead` bytes after the
    // weight's codes if that is not 0.
    void multiply(int64_t from, int64_t to, const int32_t* sums, int64_t sums_row, int64_t ahead) const {
        if (sums) {
            load(sums, 4 * sums_row);
        } else {
            _tile_zero(0);
            _tile_zero(1);
            _tile_zero(2);
            _tile_zero(3);
        }
        if (tall && wide) add<2, 2>(from, to, ahead);
        else if (tall) add<2, 1>(from, to, ahead);
        else if (wide) add<1, 2>(from, to, ahead);
        else add<1, 1>(from, to, ahead);
    }
    void store(int32_t* sums, int64_t sums_row) const {
        const int64_t bytes = 4 * sums_row;
        int32_t* below = sums + TILE_ROWS * sums_row;
        _tile_stored(0, sums, bytes);
        if (wide) _tile_stored(1, sums + BLOCK_OUTPUTS, bytes);
        if (tall) _tile_stored(2, below, bytes);
        if (tall && wide) _tile_stored(3, below + BLOCK_OUTPUTS, bytes);
    }

private:
    void load(const int32_t* sums, int64_t bytes) const {
        const int32_t* below = sums + TILE_ROWS * bytes / 4;
        _tile_loadd(0, sums, bytes);
        if (wide) _tile_loadd(1, sums + BLOCK_OUTPUTS, bytes);
        if (tall) _tile_loadd(2, below, bytes);
        if (tall && wide) _tile_loadd(3, below + BLOCK_OUTPUTS, bytes);
    }
    template <int M, int N>
    __attribute__((always_inline)) void add(int64_t from, int64_t to, int64_t ahead) const {
        const int64_t block = depth * BLOCK_OUTPUTS, lower = TILE_ROWS * x_row;
        for (int64_t k = from; k < to; k += DEPTH_STEP) {
            const int8_t* w = weight + k * BLOCK_OUTPUTS;
            _tile_loadd(4, x + k, x_row);
            _tile_loadd(6, w, LINE);
            _tile_dpbusd(0, 4, 6);
            if constexpr (N == 2) {
                _tile_loadd(7, w + block, LINE);
                _tile_dpbusd(1, 4, 7);
            }
            if constexpr (M == 2) {
                _tile_loadd(5, x + lower + k, x_row);
                _tile_dpbusd(2, 5, 6);
                if constexpr (N == 2) _tile_dpbusd(3, 5, 7);
            }
            for (int64_t line = 0; line < TILE_ROWS; ++line)
                for (int n = 0; n < N; ++n) __builtin_prefetch(w + n * block + line * LINE + 2 * DEPTH_STEP * BLOCK_OUTPUTS, 0, 3);
            if (ahead)
                for (int64_t line = 0; line < TILE_ROWS; ++line)
                    for (int n = 0; n < N; ++n) __builtin_prefetch(w + n * block + line * LINE + ahead, 0, 2);
        }
    }
};

#endif

}  // namespace regard::REGARD_ISA
