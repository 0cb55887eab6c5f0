// bf16 matrix products with float32 sums: by AMX tiles, or by AVX-512 dot products of pairs. The left matrix lies in rows; the
// right one in VNNI layout: entries (2i, n) and (2i + 1, n) are neighbors, in row i. Depths are zero-padded to multiples of
// BF16_TILE_DEPTH, rows and columns to multiples of TILE_ROWS.
#pragma once

#include "attention/tile.hpp"
#include "gemm/tile_registers.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t BF16_TILE_DEPTH = 32;  // numbers of 2 bytes in a row of a tile

#if !defined(__AVX512BF16__)

constexpr bool HAS_BF16_DOT = false;

#else

constexpr bool HAS_BF16_DOT = true;

// Rounds two rows of floats to one row in VNNI layout.
REGARD_INLINE void store_vnni(const float* first, const float* second, Bfloat* to) {
    static const uint16_t places[32] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                        8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __m512i both = (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first));
    _mm512_storeu_si512(to, _mm512_permutexvar_epi16(_mm512_loadu_si512(places), both));
}

REGARD_INLINE void store_bf16(const float* first, const float* second, Bfloat* to) {  // rounds 2 x 16 floats to 32 neighboring bf16
    _mm512_storeu_si512(to, (__m512i)_mm512_cvtne2ps_pbh(_mm512_loadu_ps(second), _mm512_loadu_ps(first)));
}

alignas(64) static const float ZEROS[TILE_ROWS] = {};

#if defined(__AMX_BF16__)

constexpr int64_t TILES = 2;  // by 2 tiles of sums: with two tiles of either operand, all eight registers

template <bool ADD, int M, int N>
static inline void bf16_tile(int64_t depth, const Bfloat* a, int64_t row, const Bfloat* vnni, int64_t vnni_row, float* c,
                              int64_t c_row) {
    const int64_t a_bytes = 2 * row, b_bytes = 2 * vnni_row, c_bytes = 4 * c_row;
    float* below = c + TILE_ROWS * c_row;
    if constexpr (ADD) {
        _tile_loadd(0, c, c_bytes);
        if constexpr (N == 2) _tile_loadd(1, c + TILE_ROWS, c_bytes);
        if constexpr (M == 2) _tile_loadd(2, below, c_bytes);
        if constexpr (M == 2 && N == 2) _tile_loadd(3, below + TILE_ROWS, c_bytes);
    } else {
        _tile_zero(0);
        if constexpr (N == 2) _tile_zero(1);
        if constexpr (M == 2) _tile_zero(2);
        if constexpr (M == 2 && N == 2) _tile_zero(3);
    }
    for (int64_t k = 0; k < depth; k += BF16_TILE_DEPTH) {
        _tile_loadd(4, a + k, a_bytes);
        _tile_loadd(6, vnni + k / 2 * vnni_row, b_bytes);
        _tile_dpbf16ps(0, 4, 6);
        if constexpr (N == 2) {
            _tile_loadd(7, vnni + k / 2 * vnni_row + 2 * TILE_ROWS, b_bytes);
            _tile_dpbf16ps(1, 4, 7);
        }
        if constexpr (M == 2) {
            _tile_loadd(5, a + TILE_ROWS * row + k, a_bytes);
            _tile_dpbf16ps(2, 5, 6);
            if constexpr (N == 2) _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_bytes);
    if constexpr (N == 2) _tile_stored(1, c + TILE_ROWS, c_bytes);
    if constexpr (M == 2) _tile_stored(2, below, c_bytes);
    if constexpr (M == 2 && N == 2) _tile_stored(3, below + TILE_ROWS, c_bytes);
}

// C (rows x columns, floats) = or += A (rows x depth) B (depth x columns).
template <bool ADD>
static void bf16_product(int64_t rows, int64_t columns, int64_t depth, const Bfloat* a, int64_t row, const Bfloat* vnni,
                             int64_t vnni_row, float* c, int64_t c_row) {
    TileRegisters::written();
    for (int64_t m = 0; m < rows; m += 2 * TILE_ROWS)
        for (int64_t n = 0; n < columns; n += 2 * TILE_ROWS) {
            const bool tall = m + TILE_ROWS < rows, wide = n + TILE_ROWS < columns;
            const Bfloat *from = a + m * row, *with = vnni + 2 * n;
            float* to = c + m * c_row + n;
            if (tall && wide) bf16_tile<ADD, 2, 2>(depth, from, row, with, vnni_row, to, c_row);
            else if (tall) bf16_tile<ADD, 2, 1>(depth, from, row, with, vnni_row, to, c_row);
            else if (wide) bf16_tile<ADD, 1, 2>(depth, from, row, with, vnni_row, to, c_row);
            else bf16_tile<ADD, 1, 1>(depth, from, row, with, vnni_row, to, c_row);
        }
}

#else

struct TileRegisters {};

template <bool ADD, int M, int N>
static inline void bf16_tile(int64_t depth, const Bfloat* a, int64_t row, const Bfloat* vnni, int64_t vnni_row, float* c,
                              int64_t c_row) {
    __m512 sum[M][N];
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) sum[m][n] = ADD ? _mm512_loadu_ps(c + m * c_row + n * TILE_ROWS) : _mm512_setzero_ps();
    for (int64_t k = 0; k < depth; k += 2) {
        __m512bh right[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) right[n] = (__m512bh)_mm512_loadu_si512(vnni + k / 2 * vnni_row + 2 * TILE_ROWS * n);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            int32_t pair;
            std::memcpy(&pair, a + m * row + k, 4);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[m][n] = _mm512_dpbf16_ps(sum[m][n], left, right[n]);
        }
    }
#pragma GCC unroll 8
    for (int m = 0; m < M; ++m)
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) _mm512_storeu_ps(c + m * c_row + n * TILE_ROWS, sum[m][n]);
}

// C (rows x columns, floats) = or += A (rows x depth) B (depth x columns).
template <bool ADD>
static void bf16_product(int64_t rows, int64_t columns, int64_t depth, const Bfloat* a, int64_t row, const Bfloat* vnni,
                             int64_t vnni_row, float* c, int64_t c_row) {
    for (int64_t m = 0; m < rows; m += 4) {  // rows are a multiple of 16
        const Bfloat* from = a + m * row;
        float* to = c + m * c_row;
        int64_t n = 0;
        for (; n + 4 * TILE_ROWS <= columns; n += 4 * TILE_ROWS)
            bf16_tile<ADD, 4, 4>(depth, from, row, vnni + 2 * n, vnni_row, to + n, c_row);
        for (; n < columns; n += TILE_ROWS) bf16_tile<ADD, 4, 1>(depth, from, row, vnni + 2 * n, vnni_row, to + n, c_row);
    }
}

#endif

// Rounds rows of floats (rows x columns, a multiple of TILE_ROWS) to VNNI layout, zero-padded to a multiple of BF16_TILE_DEPTH
// rows. May work in place.
static void to_vnni(const float* from, int64_t row, int64_t rows, int64_t columns, Bfloat* to, int64_t to_row) {
    for (int64_t r = 0; r < round_up(rows, BF16_TILE_DEPTH); r += 2)
        for (int64_t c = 0; c < columns; c += TILE_ROWS)
            store_vnni(r < rows ? from + r * row + c : ZEROS, r + 1 < rows ? from + (r + 1) * row + c : ZEROS,
                        to + r / 2 * to_row + 2 * c);
}

// Rounds the first `columns` numbers of rows of SIDE floats to bf16, zero-padded to multiples of TILE_ROWS rows and
// BF16_TILE_DEPTH columns.
static void to_bf16(const float* from, int64_t rows, int64_t columns, Bfloat* to) {
    for (int64_t r = 0; r < rows; ++r)
        for (int64_t c = 0; c < columns; c += BF16_TILE_DEPTH) {
            const float* numbers = from + r * SIDE + c;
            store_bf16(numbers, c + TILE_ROWS < columns ? numbers + TILE_ROWS : ZEROS, to + r * SIDE + c);
        }
    std::memset(to + rows * SIDE, 0, size_t(round_up(rows, TILE_ROWS) - rows) * SIDE * sizeof(Bfloat));
}

// Keys or values of a panel as the left matrix of a product: in place where possible, else a padded copy with zeros for hidden
// columns.
static Rows<Bfloat> to_bf16(const View& from, int64_t b, int64_t g, const Panel& panel, int64_t width, Bfloat* buffer) {
    const Bfloat* source = from.at<Bfloat>(b, g) + panel.start * from.row;
    const int64_t count = panel.stop - panel.start, row = round_up(width, BF16_TILE_DEPTH);
    if (from.column == 1 && width == row && count % TILE_ROWS == 0 && !panel.has_hidden_columns) return {source, from.row, 1};
    std::memset(buffer, 0, size_t(round_up(count, TILE_ROWS) * row) * sizeof(Bfloat));
    for (int64_t i = 0; i < count; ++i) {
        if (panel.has_hidden_columns && panel.rows[i] == 0) continue;
        for (int64_t c = 0; c < width; ++c) buffer[i * row + c] = source[i * from.row + c * from.column];
    }
    return {buffer, row, 1};
}

// Transposes `count` rows of `width` numbers to rows of SIDE numbers, padded to multiples of BF16_TILE_DEPTH both ways.
static void turned(const Rows<Bfloat>& from, int64_t count, int64_t width, Bfloat* to) {
    const int64_t vnni = round_up(count, BF16_TILE_DEPTH) / 2, row_pairs = round_up(count, TILE_ROWS) / 2;
    // Two rows of a column as one 4-byte word: first the even columns of a group, then the odd ones.
    alignas(64) uint32_t words[SIDE / 2 * BF16_TILE_DEPTH];
    std::memset(words + row_pairs * BF16_TILE_DEPTH, 0, size_t((vnni - row_pairs) * BF16_TILE_DEPTH) * 4);
    for (int64_t c = 0; c < width; c += BF16_TILE_DEPTH) {
        for (int64_t i = 0; i < row_pairs; ++i) {
            const Bfloat* upper = from.data + 2 * i * from.row + c;
            uint32_t* __restrict target = words + i * BF16_TILE_DEPTH;
            for (int64_t j = 0; j < TILE_ROWS; ++j) {
                uint32_t a, b;
                std::memcpy(&a, upper + 2 * j, 4);
                std::memcpy(&b, upper + from.row + 2 * j, 4);
                target[j] = (a & 0xffff) | b << 16;
                target[TILE_ROWS + j] = a >> 16 | (b & 0xffff0000);
            }
        }
        for (int64_t odd = 0; odd < 2; ++odd)
            transpose(reinterpret_cast<const float*>(words) + odd * TILE_ROWS, BF16_TILE_DEPTH, vnni, TILE_ROWS,
                      reinterpret_cast<float*>(to) + (c + odd) * (SIDE / 2), SIDE);
    }
}

#endif

}  // namespace regard::REGARD_ISA
