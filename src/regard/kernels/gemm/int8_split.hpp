// Float32 matrix products by int8 splits (Ozaki et al. 2012, "Error-free transformations of matrix multiplication by using fast
// routines of matrix multiplication"). Each row of either operand is divided by its largest magnitude and rounded to 24 bits,
// held as three int8 slices in base 256. AMX tiles sum the products of slices exactly in int32, 64 along the depth at a time;
// of the nine pairs of slices the six or eight most significant ones suffice for float32. The error is that of rounding each
// number to 2^-24 of the largest of its row, plus the omitted products, independent of the depth.
#pragma once

#include "gemm/peak_ratio.hpp"

namespace regard::REGARD_ISA {

#if defined(REGARD_INT8_SPLIT)

constexpr int64_t SLICES = 3, INT8_TILE_DEPTH = 64;           // SLICES: slices of a number; INT8_TILE_DEPTH: numbers along the depth of a tile
constexpr int64_t TILE_BYTES = TILE_ROWS * INT8_TILE_DEPTH;
constexpr float SPLIT_MAX = 8355709;               // largest integer of three slices in [-128, 127], less two for rounding

// Entry too small for its row's split, which is multiplied as a float.
struct TinyEntry {
    uint16_t row, column;
    float number;
};
constexpr float TINY_LIMIT = 0x1p14f;          // entries of a scaled row below this are tiny
constexpr int64_t TINY_FRACTION = 8;        // a row with more than 1 / TINY_FRACTION tiny entries is multiplied as floats entirely

// Split operand of a product: for every 16 rows (or columns, of the right operand) and every 64 numbers along the depth, a tile
// for each slice, most significant first. Tiles of the left operand hold a row's numbers contiguously, those of the right
// operand in words of four.
struct Int8Split {
    int8_t* tiles = nullptr;
    float* scales = nullptr;   // of each row
    float* peak_ratios = nullptr;   // of each row, if computed
    float* depth_scales = nullptr;    // scale of each depth index, to be multiplied into the other operand; or null
    uint64_t float_rows = 0;        // depth indices multiplied as floats, if `depth_scales` is set
    TinyEntry* tiny = nullptr;    // tiny entries of the other depth indices, in order of depth
    int64_t tiny_count = 0;
    bool finite = true;        // all numbers are finite and below MAX_ROW_MAX

    static size_t bytes(int64_t rows, int64_t depth) {
        return size_t(round_up(rows, TILE_ROWS)) * (round_up(depth, INT8_TILE_DEPTH) * SLICES + 2 * sizeof(float));
    }
    Int8Split() = default;
    Int8Split(char* room, int64_t rows, int64_t depth)
        : tiles(reinterpret_cast<int8_t*>(room)),
          scales(reinterpret_cast<float*>(room + round_up(rows, TILE_ROWS) * round_up(depth, INT8_TILE_DEPTH) * SLICES)),
          peak_ratios(scales + round_up(rows, TILE_ROWS)) {}
};

// Clears `finite` if some row maximum is too large or not finite.
REGARD_INLINE void check_finite(__m512i largest, Int8Split& of) {
    constexpr int32_t MAX_ROW_MAX_BITS = __builtin_bit_cast(int32_t, MAX_ROW_MAX);
    of.finite &= _mm512_cmpge_epu32_mask(largest, _mm512_set1_epi32(MAX_ROW_MAX_BITS)) == 0;
}
// Slices of round(x * factor), in the three lower bytes of each word.
REGARD_INLINE __m512i split_number(__m512 x, __m512 factor) {
    const __m512i middle = _mm512_set1_epi32(0x808080);
    return _mm512_xor_si512(_mm512_add_epi32(_mm512_cvtps_epi32(_mm512_mul_ps(x, factor)), middle), middle);
}
// Factor that scales a row to 24-bit integers, and the scale that undoes it for 2^23 of them; computed from the factor as
// rounded, since its error would affect the whole row.
REGARD_INLINE __m512 factor_of(__m512i largest) {
    return _mm512_div_ps(_mm512_set1_ps(SPLIT_MAX), _mm512_max_ps((__m512)largest, _mm512_set1_ps(MIN_ROW_MAX)));
}
REGARD_INLINE __m512 scale_of(__m512 factor) { return _mm512_div_ps(_mm512_set1_ps(0x1p23f), factor); }

// Byte permutations that separate the slices of 32-bit words.
alignas(64) static const struct Shuffles {
    uint8_t middle[64], upper[64], lower_planes[64], upper_plane[64];
    constexpr Shuffles() : middle(), upper(), lower_planes(), upper_plane() {
        for (int i = 0; i < 16; ++i) {
            for (int j = 0; j < 4; ++j) {  // of words a and b: a0 b0 a1 b1, and a2 b2 a3 b3
                middle[4 * i + j] = uint8_t(4 * i + j / 2 + (j & 1) * 64);
                upper[4 * i + j] = uint8_t(4 * i + 2 + j / 2 + (j & 1) * 64);
            }
            // of two vectors: the lowest bytes of all words, then the middle ones; and the highest
            lower_planes[i] = uint8_t(4 * i), lower_planes[16 + i] = uint8_t(64 + 4 * i);
            lower_planes[32 + i] = uint8_t(4 * i + 1), lower_planes[48 + i] = uint8_t(64 + 4 * i + 1);
            upper_plane[i] = uint8_t(4 * i + 2), upper_plane[16 + i] = uint8_t(64 + 4 * i + 2);
            upper_plane[32 + i] = upper_plane[48 + i] = 0;
        }
    }
} SHUFFLES;

// Reduces the lanes of each of 16 vectors by `join`; results in order.
template <typename Join>
REGARD_INLINE __m512i joined_lanes(const __m512i* x, const Join& join) {
    alignas(64) int32_t transposed[TILE_ROWS * TILE_ROWS];
    for (int i = 0; i < TILE_ROWS; ++i) _mm512_store_si512(transposed + i * TILE_ROWS, x[i]);
    transpose_square(reinterpret_cast<const float*>(transposed), TILE_ROWS, reinterpret_cast<float*>(transposed), TILE_ROWS);
    __m512i part[4] = {};
#pragma GCC unroll 16
    for (int i = 0; i < TILE_ROWS; ++i) part[i & 3] = join(part[i & 3], _mm512_load_si512(transposed + i * TILE_ROWS));
    return join(join(part[0], part[1]), join(part[2], part[3]));
}

// Loads 16 numbers at a time of a matrix of up to 16 rows, zeros beyond its ends. UNMASKED: no bounds are checked. WEIGHTED:
// each column is multiplied by a weight.
template <bool UNMASKED, bool WEIGHTED = false>
struct Reader {
    const float* from;
    int64_t row, count, width;
    const float* weights = nullptr;

    __attribute__((always_inline)) __m512 operator()(int64_t r, int64_t c) const {
        const __m512 x = number(r, c);
        if constexpr (WEIGHTED) return _mm512_mul_ps(x, _mm512_loadu_ps(weights + c));
        else return x;
    }

private:
    __attribute__((always_inline)) __m512 number(int64_t r, int64_t c) const {
        if constexpr (UNMASKED) return _mm512_loadu_ps(from + r * row + c);
        const int64_t rest = r < count ? width - c : 0;
        return _mm512_maskz_loadu_ps(rest >= TILE_ROWS ? 0xffff : rest > 0 ? __mmask16((1u << rest) - 1) : 0, from + r * row + c);
    }
};

// Factors, scales and, if PEAK_RATIOS, peak ratios of 16 rows.
template <bool PEAK_RATIOS, typename Numbers>
REGARD_INLINE void measure(const Numbers& x, float* scales, float* factors, float* peak_ratios, Int8Split& of) {
    __m512i high[TILE_ROWS], logs[TILE_ROWS];
#pragma GCC unroll 4
    for (int64_t r = 0; r < TILE_ROWS; ++r) {
        high[r] = magnitude(x(r, 0));
        if constexpr (PEAK_RATIOS) logs[r] = log_of(high[r]);
        for (int64_t c = TILE_ROWS; c < x.width; c += TILE_ROWS) {
            const __m512i next = magnitude(x(r, c));
            high[r] = _mm512_max_epu32(high[r], next);
            if constexpr (PEAK_RATIOS) logs[r] = _mm512_add_epi32(logs[r], log_of(next));
        }
    }
    const __m512i largest = joined_lanes(high, [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_max_epu32(a, b); });
    const __m512 factor = factor_of(largest);
    _mm512_storeu_ps(factors, factor);
    _mm512_storeu_ps(scales, scale_of(factor));
    check_finite(largest, of);
    if constexpr (PEAK_RATIOS) {
        const __m512i sums = joined_lanes(logs, [](__m512i a, __m512i b) __attribute__((always_inline)) { return _mm512_add_epi32(a, b); });
        _mm512_storeu_ps(peak_ratios, peak_ratios_of(largest, sums, x.width, [&] {
            alignas(64) int32_t counts[TILE_ROWS] = {};
            for (int64_t r = 0; r < TILE_ROWS; ++r)
                for (int64_t c = 0; c < x.width; c += TILE_ROWS) {
                    const __m512i numbers = magnitude(x(r, c));
                    counts[r] += __builtin_popcount(_mm512_test_epi32_mask(numbers, numbers));
                }
            return _mm512_load_si512(counts);
        }));
    }
}

// Splits 16 rows as left operand.
template <bool PEAK_RATIOS, typename Numbers>
REGARD_INLINE void split_row_group(const Numbers& x, int64_t first, Int8Split& to) {
    const __m512i lower = _mm512_load_si512(SHUFFLES.lower_planes), upper = _mm512_load_si512(SHUFFLES.upper_plane);
    float factors[TILE_ROWS];
    measure<PEAK_RATIOS>(x, to.scales + first, factors, to.peak_ratios + first, to);
    int8_t* tile = to.tiles + first * round_up(x.width, INT8_TILE_DEPTH) * SLICES;
    for (int64_t k = 0; k < x.width; k += INT8_TILE_DEPTH, tile += SLICES * TILE_BYTES)
        for (int64_t r = 0; r < TILE_ROWS; ++r) {
            const __m512 factor = _mm512_set1_ps(factors[r]);
            __m512i words[4];
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) words[j] = split_number(x(r, k + j * TILE_ROWS), factor);
            const __m512i a = _mm512_permutex2var_epi8(words[0], lower, words[1]), b = _mm512_permutex2var_epi8(words[2], lower, words[3]);
            const __m512i c = _mm512_permutex2var_epi8(words[0], upper, words[1]), d = _mm512_permutex2var_epi8(words[2], upper, words[3]);
            int8_t* plane = tile + r * INT8_TILE_DEPTH;
            _mm512_store_si512(plane, _mm512_inserti64x4(c, _mm512_castsi512_si256(d), 1));
            _mm512_store_si512(plane + TILE_BYTES, _mm512_shuffle_i64x2(a, b, 0xee));
            _mm512_store_si512(plane + 2 * TILE_BYTES, _mm512_inserti64x4(a, _mm512_castsi512_si256(b), 1));
        }
}

// Splits the left operand, given as rows of `width` numbers, with peak ratios.
static void split_rows(const float* from, int64_t row, int64_t rows, int64_t width, Int8Split& to) {
    to.finite = true;
    for (int64_t first = 0; first < rows; first += TILE_ROWS) {
        const float* x = from + first * row;
        const int64_t count = min(TILE_ROWS, rows - first);
        if (count == TILE_ROWS && width % INT8_TILE_DEPTH == 0) split_row_group<true>(Reader<true>{x, row, count, width}, first, to);
        else split_row_group<true>(Reader<false>{x, row, count, width}, first, to);
    }
}
// Splits rows of at most 64 numbers, each column multiplied by a weight, without peak ratios.
static void split_weighted_rows(const float* from, int64_t row, int64_t rows, int64_t width, const float* weights, Int8Split& to) {
    to.finite = true;
    for (int64_t first = 0; first < rows; first += TILE_ROWS) {
        const float* x = from + first * row;
        const int64_t count = min(TILE_ROWS, rows - first);
        if (count == TILE_ROWS && width == INT8_TILE_DEPTH) split_row_group<false>(Reader<true, true>{x, row, count, width, weights}, first, to);
        else split_row_group<false>(Reader<false, true>{x, row, count, width, weights}, first, to);
    }
}

// Packs words of four rows and 16 columns into one vector of bytes for each slice.
REGARD_INLINE void pack_quads(const __m512i* words, __m512i* planes) {
    const __m512i middle = _mm512_load_si512(SHUFFLES.middle), upper = _mm512_load_si512(SHUFFLES.upper);
    constexpr __mmask32 ODD = 0xaaaaaaaa;
    const __m512i a = _mm512_permutex2var_epi8(words[0], middle, words[1]), b = _mm512_permutex2var_epi8(words[2], middle, words[3]);
    const __m512i c = _mm512_permutex2var_epi8(words[0], upper, words[1]), d = _mm512_permutex2var_epi8(words[2], upper, words[3]);
    planes[0] = _mm512_mask_blend_epi16(ODD, c, _mm512_slli_epi32(d, 16));
    planes[1] = _mm512_mask_blend_epi16(ODD, _mm512_srli_epi32(a, 16), b);
    planes[2] = _mm512_mask_blend_epi16(ODD, a, _mm512_slli_epi32(b, 16));
}

// Stores 16 columns of a right operand, `number(k)` being the slices of row k; rows are a multiple of 4.
template <typename Number>
REGARD_INLINE void store_packed_quads(int64_t rows, int8_t* tile, const Number& number) {
    for (int64_t k = 0; k < rows; k += 4) {
        __m512i words[4], planes[SLICES];
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) words[j] = number(k + j);
        pack_quads(words, planes);
        int8_t* to = tile + k / INT8_TILE_DEPTH * SLICES * TILE_BYTES + k % INT8_TILE_DEPTH / 4 * INT8_TILE_DEPTH;
#pragma GCC unroll 3
        for (int d = 0; d < SLICES; ++d) _mm512_store_si512(to + d * TILE_BYTES, planes[d]);
    }
}

// Splits the right operand (depth x columns), row k at `from + k * row`, times `weights[k]` if WEIGHTED. Rows before `start`
// count as 0. Columns are a multiple of 16.
template <bool WEIGHTED, bool PEAK_RATIOS>
static void split_columns(const float* from, int64_t row, int64_t start, int64_t depth, int64_t columns, const float* weights, Int8Split& to) {
    const int64_t padded = round_up(depth, INT8_TILE_DEPTH);
    to.finite = true;
    for (int64_t n = 0; n < columns; n += TILE_ROWS) {
        auto entry = [&](int64_t k) __attribute__((always_inline)) {
            const __m512 x = _mm512_loadu_ps(from + k * row + n);
            if constexpr (WEIGHTED) return _mm512_mul_ps(x, _mm512_set1_ps(weights[k]));
            else return x;
        };
        __m512i high[4] = {}, logs[4] = {};
        auto take = [&](int64_t k, int chain) __attribute__((always_inline)) {
            const __m512i x = magnitude(entry(k));
            high[chain] = _mm512_max_epu32(high[chain], x);
            if constexpr (PEAK_RATIOS) logs[chain] = _mm512_add_epi32(logs[chain], log_of(x));
        };
        int64_t k = start;
        for (; k + 4 <= depth; k += 4)
#pragma GCC unroll 4
            for (int j = 0; j < 4; ++j) take(k + j, j);
        for (; k < depth; ++k) take(k, 0);
        const __m512i largest = _mm512_max_epu32(_mm512_max_epu32(high[0], high[1]), _mm512_max_epu32(high[2], high[3]));
        check_finite(largest, to);
        if constexpr (PEAK_RATIOS) {
            const __m512i sums = _mm512_add_epi32(_mm512_add_epi32(logs[0], logs[1]), _mm512_add_epi32(logs[2], logs[3]));
            _mm512_storeu_ps(to.peak_ratios + n, peak_ratios_of(largest, sums, depth - start, [&] {
                __m512i counts = _mm512_setzero_si512();
                for (int64_t i = start; i < depth; ++i) {
                    const __m512i x = magnitude(entry(i));
                    counts = _mm512_mask_add_epi32(counts, _mm512_test_epi32_mask(x, x), counts, _mm512_set1_epi32(1));
                }
                return counts;
            }));
        }
        const __m512 factor = factor_of(largest);
        _mm512_storeu_ps(to.scales + n, scale_of(factor));
        int8_t* tile = to.tiles + n * padded * SLICES;
        if (start == 0 && depth == padded) store_packed_quads(padded, tile, [&](int64_t k) { return split_number(entry(k), factor); });
        else
            store_packed_quads(padded, tile, [&](int64_t k) { return k >= start && k < depth ? split_number(entry(k), factor) : _mm512_setzero_si512(); });
    }
}

// Mask of nonzero numbers whose magnitude bits are below `least`, which must not be 0.
REGARD_INLINE __mmask16 tiny_numbers(__m512 x, __m512i min_magnitude) {
    const __m512i one = _mm512_set1_epi32(1);
    return _mm512_cmplt_epu32_mask(_mm512_sub_epi32(magnitude(x), one), _mm512_sub_epi32(min_magnitude, one));
}

// Implementation of `split_transposed`.
template <bool UNMASKED>
REGARD_INLINE void split_transposed_tiles(const Reader<UNMASKED>& x, float limit, bool relaxed, Int8Split& to) {
    alignas(64) float factors[INT8_TILE_DEPTH];
    alignas(64) int32_t min_magnitude[INT8_TILE_DEPTH];  // bits of the smallest magnitudes that are not tiny
    for (int64_t k = 0; k < INT8_TILE_DEPTH; k += TILE_ROWS) {
        measure<true>(Reader<UNMASKED>{x.from + k * x.row, x.row, x.count - k, x.width}, to.depth_scales + k, factors + k, to.peak_ratios + k, to);
        const __m512 bound = _mm512_div_ps(_mm512_set1_ps(relaxed ? 0 : TINY_LIMIT), _mm512_load_ps(factors + k));
        _mm512_store_si512(min_magnitude + k, _mm512_max_epi32((__m512i)bound, _mm512_set1_epi32(1)));
    }
    to.float_rows = rows_above(to.peak_ratios, SIDE, limit), to.tiny_count = 0;
    for (int64_t k = 0; k < x.count && !relaxed; ++k) {
        const int64_t before = to.tiny_count;
        for (int64_t n = 0; n < x.width; n += INT8_TILE_DEPTH) {
            uint64_t tiny = 0;
#pragma GCC unroll 4
            for (int64_t j = 0; j < INT8_TILE_DEPTH; j += TILE_ROWS) tiny |= uint64_t(tiny_numbers(x(k, n + j), _mm512_set1_epi32(min_magnitude[k]))) << j;
            if (to.float_rows >> k & 1) tiny = 0;
            for (; tiny; tiny &= tiny - 1) {
                const int64_t column = n + __builtin_ctzll(tiny);
                to.tiny[to.tiny_count++] = {uint16_t(k), uint16_t(column), x.from[k * x.row + column]};
            }
        }
        if (TINY_FRACTION * (to.tiny_count - before) > x.width) to.tiny_count = before, to.float_rows |= uint64_t(1) << k;
    }
    for_runs(to.float_rows, [&](int64_t first, int64_t rows) { fill(to.depth_scales + first, rows, 0.0f); });
    alignas(64) int8_t words[SLICES * TILE_BYTES];
    int8_t* tiles = to.tiles;
    for (int64_t n = 0; n < x.width; n += TILE_ROWS) {
        store_packed_quads(INT8_TILE_DEPTH, words, [&](int64_t k) __attribute__((always_inline)) {
            const __m512 numbers = x(k, n);
            const __mmask16 tiny = tiny_numbers(numbers, _mm512_set1_epi32(min_magnitude[k]));
            return split_number(_mm512_mask_mov_ps(numbers, tiny, _mm512_setzero_ps()), _mm512_set1_ps(factors[k]));
        });
        for (int d = 0; d < SLICES; ++d, tiles += TILE_BYTES)
            transpose_square(reinterpret_cast<const float*>(words + d * TILE_BYTES), TILE_ROWS, reinterpret_cast<float*>(tiles), TILE_ROWS);
        _mm512_storeu_ps(to.scales + n, _mm512_set1_ps(1));
    }
}

// Splits the transpose of a matrix (count x width) of up to 64 rows as left operand. Each row is divided by its own largest
// magnitude, so that rows do not affect each other; the right operand's rows must be multiplied by `depth_scales`. Rows with
// peak ratios above `limit`, or with many tiny entries, are left to float products (`float_rows`) and count as 0, as do tiny
// entries.
static void split_transposed(const float* from, int64_t row, int64_t count, int64_t width, float limit, bool relaxed, Int8Split& to) {
    to.finite = true;
    if (count == INT8_TILE_DEPTH && width % INT8_TILE_DEPTH == 0) split_transposed_tiles(Reader<true>{from, row, count, width}, limit, relaxed, to);
    else split_transposed_tiles(Reader<false>{from, row, count, width}, limit, relaxed, to);
}
// Capacity needed for tiny entries: those of the rows that are split, and of one more row.
static int64_t max_tiny(int64_t width) { return SIDE * (width / TINY_FRACTION) + width; }

// Splits a right operand as `split_columns` does, each row divided by a power of two near its largest magnitude, by which the
// left operand must be multiplied; `rows` has the rows' scales and peak ratios. Rows above `limit` are left to float products.
// `room` is as large as the matrix.
static void split_normalized_rows(const float* from, int64_t row, int64_t depth, int64_t columns, const Int8Split& rows, float limit, float* room,
                                  Int8Split& to) {
    constexpr int32_t EXPONENT = 0x7f800000, TWICE_ONE = 0x7f000000;  // exponent bits; and twice the exponent bits of 1
    float inverse[SIDE];
    for (int64_t k = 0; k < depth; k += TILE_ROWS) {
        const __m512i power = _mm512_and_si512(_mm512_loadu_si512(rows.scales + k), _mm512_set1_epi32(EXPONENT));
        _mm512_storeu_si512(to.depth_scales + k, power);
        _mm512_storeu_si512(inverse + k, _mm512_sub_epi32(_mm512_set1_epi32(TWICE_ONE), power));
    }
    to.float_rows = rows_above(rows.peak_ratios, depth, limit);
    if (to.float_rows) {
        std::memcpy(room, from, sizeof(float) * size_t(depth * row));
        for_runs(to.float_rows, [&](int64_t first, int64_t count) {
            fill(room + first * row, count * row, 0.0f);
            fill(to.depth_scales + first, count, 0.0f);
            fill(inverse + first, count, 0.0f);
        });
        from = room;
    }
    split_columns<true, false>(from, row, 0, depth, columns, inverse, to);
}

// Multiplies the slices of a 16 x 16 tile into SUMS tiles of int32 sums, by significance: 2^32, 2^24, 2^16 and 2^8. Unless
// `fresh`, the left operand's first tiles are loaded already.
template <int SUMS>
REGARD_INLINE void multiply_slices(int64_t chunks, const int8_t* left, bool fresh, const int8_t* right) {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    if constexpr (SUMS > 3) _tile_zero(3);
    for (int64_t k = 0; k < chunks; ++k, left += SLICES * TILE_BYTES, right += SLICES * TILE_BYTES) {
        if (fresh) {
            _tile_loadd(4, left, INT8_TILE_DEPTH);
            _tile_loadd(5, left + TILE_BYTES, INT8_TILE_DEPTH);
            _tile_loadd(6, left + 2 * TILE_BYTES, INT8_TILE_DEPTH);
        }
        _tile_loadd(7, right, INT8_TILE_DEPTH);
        _tile_dpbssd(0, 4, 7);
        _tile_dpbssd(1, 5, 7);
        _tile_dpbssd(2, 6, 7);
        _tile_loadd(7, right + TILE_BYTES, INT8_TILE_DEPTH);
        _tile_dpbssd(1, 4, 7);
        _tile_dpbssd(2, 5, 7);
        if constexpr (SUMS > 3) _tile_dpbssd(3, 6, 7);
        _tile_loadd(7, right + 2 * TILE_BYTES, INT8_TILE_DEPTH);
        _tile_dpbssd(2, 4, 7);
        if constexpr (SUMS > 3) _tile_dpbssd(3, 5, 7);
    }
}
// Stores the tiles of sums.
template <int SUMS>
REGARD_INLINE void store_sums(int32_t* sums) {
    _tile_stored(0, sums, INT8_TILE_DEPTH);
    _tile_stored(1, sums + TILE_ROWS * TILE_ROWS, INT8_TILE_DEPTH);
    _tile_stored(2, sums + 2 * TILE_ROWS * TILE_ROWS, INT8_TILE_DEPTH);
    if constexpr (SUMS > 3) _tile_stored(3, sums + 3 * TILE_ROWS * TILE_ROWS, INT8_TILE_DEPTH);
}

// Combines the sums of a row to floats, in units of SPLIT_UNIT times the scales of both operands.
constexpr float SPLIT_UNIT = 0x1p-14f;
template <int SUMS>
REGARD_INLINE __m512 combine_slices(const int32_t* sums) {
    auto part = [&](int i) { return _mm512_cvtepi32_ps(_mm512_load_si512(sums + i * TILE_ROWS * TILE_ROWS)); };
    __m512 total = part(SUMS - 1);
#pragma GCC unroll 3
    for (int i = SUMS - 2; i >= 0; --i) total = _mm512_fmadd_ps(total, _mm512_set1_ps(1.0f / 256), part(i));
    return total;
}

// Calls `use(m, n, all, sums)` for each 16 x 16 tile of the product, where `all = eight(m, n)` asks for the fourth sum, that is
// eight pairs of slices instead of six; `use` overlaps with the next tile's sums. The left operand's `together` rows are reused
// for all columns while in the first-level cache.
template <typename Eight, typename Use>
REGARD_INLINE void for_sums(int64_t rows, int64_t columns, int64_t chunks, int64_t together, const int8_t* left, const int8_t* right,
                            const Eight& eight, const Use& use) {
    alignas(64) int32_t sums[2][4 * TILE_ROWS * TILE_ROWS];
    const int64_t step = chunks * SLICES * TILE_BYTES;
    int64_t before_m = -1, before_n = 0;
    bool before_all = false;
    int turn = 0;
    TileRegisters::written();
    for (int64_t first = 0; first < rows; first += together)
        for (int64_t n = 0; n < columns; n += TILE_ROWS)
            for (int64_t m = first; m < min(first + together, rows); m += TILE_ROWS) {
                const bool fresh = n == 0 || chunks > 1 || together > TILE_ROWS, all = eight(m, n);
                if (all) multiply_slices<4>(chunks, left + m / TILE_ROWS * step, fresh, right + n / TILE_ROWS * step);
                else multiply_slices<3>(chunks, left + m / TILE_ROWS * step, fresh, right + n / TILE_ROWS * step);
                if (before_m >= 0) use(before_m, before_n, before_all, sums[turn ^ 1]);
                if (all) store_sums<4>(sums[turn]);
                else store_sums<3>(sums[turn]);
                turn ^= 1;
                before_m = m, before_n = n, before_all = all;
            }
    if (before_m >= 0) use(before_m, before_n, before_all, sums[turn ^ 1]);
}

#endif

}  // namespace regard::REGARD_ISA
