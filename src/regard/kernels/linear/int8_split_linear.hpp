// Linear maps of many rows by int8 splits, and by floats for pairs of rows whose peak ratios do not allow it (peak_ratio.hpp).
// A row's result does not depend on the rows beside it.
#pragma once

#include "gemm/int8_split.hpp"
#include "linear/linear.hpp"

namespace regard::REGARD_ISA {

#if defined(REGARD_INT8_SPLIT)

// A thread splits a block of rows, which stay in its second-level cache, and reads the weight in groups of outputs for all of
// them.
constexpr int64_t LINEAR_ROWS = 256, LEAST_ROWS = 64, LINEAR_BYTES = 1 << 20, LINEAR_OUTPUTS = 64;
constexpr int64_t LINEAR_DEPTH = 256, LINEAR_TOGETHER = 32;  // of sums: two groups of rows and one of outputs stay in the first-level cache

// Limits on the sum of a row's and an output's peak ratios: up to the first, six pairs of slices suffice; up to the second,
// eight. Sums are long, so floats have a larger error than in attention.
constexpr float SIX_KINDS = 2.5f, EIGHT_KINDS = 4.25f;

// Split operand of a map: LINEAR_DEPTH features at a time, so that an outlier affects only the features of its part.
struct SplitOperand {
    char* room;
    int64_t rows, depth;

    static int64_t part(int64_t depth, int64_t k) { return min(LINEAR_DEPTH, depth - k); }
    static size_t bytes(int64_t rows, int64_t depth) {
        size_t total = 0;
        for (int64_t k = 0; k < depth; k += LINEAR_DEPTH) total += Int8Split::bytes(rows, part(depth, k));
        return total;
    }
    // Part with the features from k on, a multiple of LINEAR_DEPTH, of rows from `row` on, a multiple of TILE_ROWS.
    Int8Split at(int64_t k, int64_t row) const {
        Int8Split part_split(room + int64_t(Int8Split::bytes(rows, LINEAR_DEPTH)) * (k / LINEAR_DEPTH), rows, part(depth, k));
        part_split.tiles += row * round_up(part(depth, k), INT8_TILE_DEPTH) * SLICES, part_split.scales += row, part_split.peak_ratios += row;
        return part_split;
    }
};

// Splits a group of rows.
static void make_int8_split(const SplitOperand& side, int64_t row, const float* from, int64_t from_row, bool right) {
    const int64_t count = min(TILE_ROWS, side.rows - row);
    for (int64_t k = 0; k < side.depth; k += LINEAR_DEPTH) {
        Int8Split to = side.at(k, row);
        const int64_t width = SplitOperand::part(side.depth, k), tiles = (width + INT8_TILE_DEPTH - 1) / INT8_TILE_DEPTH * SLICES;
        split_rows(from + row * from_row + k, from_row, count, width, to);
        for (int64_t i = 0; right && i < tiles; ++i) {  // transposes to words of four numbers for each row
            float* tile = reinterpret_cast<float*>(to.tiles + i * TILE_BYTES);
            transpose_square(tile, TILE_ROWS, tile, TILE_ROWS);
        }
    }
}

// Splits some outputs of a weight.
static void split_weight_rows(const Weights& w, int64_t first, const SplitOperand& to, int threads) {
    parallel_for((to.rows + TILE_ROWS - 1) / TILE_ROWS, 4, threads, [&](int64_t i) { make_int8_split(to, i * TILE_ROWS, w.weight + first * w.row, w.row, true); });
}

// Bit set of the (row, output) pairs of a block that are multiplied as floats.
struct FloatPairs {
    alignas(64) __mmask16 bits[LINEAR_ROWS][LINEAR_OUTPUTS / TILE_ROWS];

    uint64_t of(int64_t row) const {
        uint64_t word;
        std::memcpy(&word, bits[row], sizeof(word));
        return word;
    }
};

// 16 x 16 tile of a product over LINEAR_DEPTH features.
struct LinearTile {
    const Int8Split &rows, &outputs;
    int64_t m, n;
    float six, eight;  // limits on peak ratios, for six and for eight pairs of slices

    // y = or += the products (+ bias) of `count` rows. `all`: some entries use eight pairs of slices; `pairs` collects those
    // beyond that limit.
    __attribute__((always_inline)) void add(const int32_t* sums, bool all, const float* bias, bool first, int64_t count, int64_t width, float* y,
                                            int64_t y_row, FloatPairs& pairs) const {
        const __mmask16 there = __mmask16(bit_range(0, min(TILE_ROWS, width)));
        const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(outputs.scales + n), _mm512_set1_ps(SPLIT_UNIT)), peak_ratios = _mm512_loadu_ps(outputs.peak_ratios + n);
        const __m512 start = bias ? _mm512_maskz_loadu_ps(there, bias) : _mm512_setzero_ps();
        for (int64_t r = 0; r < count; ++r, y += y_row, sums += TILE_ROWS) {
            const __m512 before = first ? start : _mm512_maskz_loadu_ps(there, y);
            __m512 whole = combine_slices<3>(sums);
            if (all) {
                const __m512 both = _mm512_add_ps(_mm512_set1_ps(rows.peak_ratios[m + r]), peak_ratios);
                whole = _mm512_mask_mov_ps(whole, _mm512_cmp_ps_mask(both, _mm512_set1_ps(six), _CMP_GT_OQ), combine_slices<4>(sums));
                pairs.bits[m + r][n / TILE_ROWS] |= there & _mm512_cmp_ps_mask(both, _mm512_set1_ps(eight), _CMP_GT_OQ);
            }
            _mm512_mask_storeu_ps(y, there, _mm512_fmadd_ps(_mm512_mul_ps(whole, scale), _mm512_set1_ps(rows.scales[m + r]), before));
        }
    }
};

// Recomputes the listed pairs of `count` rows from `row` and of the outputs from `first` as floats.
static void multiply_as_floats(const LinearMap& map, int64_t row, int64_t count, int64_t first, int64_t outputs, const FloatPairs& pairs) {
    auto floats = [&](int64_t m, int64_t rows, int64_t from, int64_t to) {
        LinearMap part = map;
        part.rows = rows;
        part.x += (row + m) * map.x_row, part.y += (row + m) * map.of.outputs;
        linear_chunk(part, first + from, first + to, Prefetch());
    };
    auto of = [&](int64_t m) { return pairs.of(m) & bit_range(0, outputs); };
    for (int64_t m = 0, stop; m < count; m = stop) {
        const uint64_t some = of(m);
        for (stop = m + 1; stop < count && of(stop) == some;) ++stop;
        for_runs(some, [&](int64_t from, int64_t run) { floats(m, stop - m, from, from + run); });
    }
}

// Range of peak ratios of each group of rows, for each LINEAR_DEPTH features.
struct LinearPeakRatios {
    PeakRatioRange* ranges;
    int64_t groups;

    static size_t bytes(int64_t rows, int64_t depth) {
        return sizeof(PeakRatioRange) * size_t(((rows + TILE_ROWS - 1) / TILE_ROWS) * ((depth + LINEAR_DEPTH - 1) / LINEAR_DEPTH));
    }
    PeakRatioRange& at(int64_t k, int64_t row) const { return ranges[k / LINEAR_DEPTH * groups + row / TILE_ROWS]; }
    void measure(const SplitOperand& side, int64_t row) const {
        for (int64_t k = 0; k < side.depth; k += LINEAR_DEPTH) at(k, row) = PeakRatioRange::of(side.at(k, row).peak_ratios, min(TILE_ROWS, side.rows - row));
    }
};

// Outputs from `first` on, as many as `weights` holds.
static void int8_split_outputs(const LinearMap& map, int64_t first, const SplitOperand& weights, int threads) {
    const Weights& w = map.of;
    const float six = limit(w.depth, SIX_KINDS, map.relaxed), eight = limit(w.depth, EIGHT_KINDS, map.relaxed);
    const int64_t fit = max(LEAST_ROWS, min(LINEAR_ROWS, LINEAR_BYTES / (SLICES * round_up(w.depth, INT8_TILE_DEPTH))));
    const int64_t share = max(LEAST_ROWS, (map.rows + 2 * threads - 1) / (2 * threads));
    const int64_t rows = round_up(min(fit, share), LINEAR_TOGETHER), blocks = (map.rows + rows - 1) / rows;
    const int64_t ranges = (threads + blocks - 1) / blocks, range = round_up((weights.rows + ranges - 1) / ranges, LINEAR_OUTPUTS);
    parallel_for(blocks * ranges, 1, threads, [&](int64_t i) {
        static thread_local Scratch scratch;
        const int64_t row = i / ranges * rows, count = min(rows, map.rows - row);
        const int64_t start = i % ranges * range, stop = min(start + range, weights.rows);
        const size_t bytes = SplitOperand::bytes(count, w.depth);
        scratch.reserve(bytes + LinearPeakRatios::bytes(count, w.depth) + 64);
        const SplitOperand some{scratch.take<char>(int64_t(bytes)), count, w.depth};
        const LinearPeakRatios peak_ratios{scratch.take<PeakRatioRange>(int64_t(LinearPeakRatios::bytes(count, w.depth) / sizeof(PeakRatioRange))), (count + TILE_ROWS - 1) / TILE_ROWS};
        for (int64_t m = 0; m < count; m += TILE_ROWS) {
            make_int8_split(some, m, map.x + row * map.x_row, map.x_row, false);
            peak_ratios.measure(some, m);
        }
        const TileRegisters registers;
        FloatPairs floats;
        for (int64_t output = start; output < stop; output += LINEAR_OUTPUTS) {
            const int64_t outputs = min(LINEAR_OUTPUTS, stop - output);
            bool any = false, every = false;  // some pairs, or all, exceed the limit
            for (int64_t k = 0; k < w.depth && !every; k += LINEAR_DEPTH) {
                const PeakRatioRange of_outputs = PeakRatioRange::of(weights.at(k, output).peak_ratios, outputs);
                every = true;
                for (int64_t m = 0; m < count; m += TILE_ROWS) {
                    any |= peak_ratios.at(k, m).max + of_outputs.max > eight;
                    every &= peak_ratios.at(k, m).min + of_outputs.min > eight;
                }
            }
            if (any) std::memset(&floats, every ? 0xff : 0, sizeof(floats));
            for (int64_t k = 0; k < w.depth && !every; k += LINEAR_DEPTH) {
                const Int8Split left = some.at(k, 0), right = weights.at(k, output);
                const int64_t chunks = (SplitOperand::part(w.depth, k) + INT8_TILE_DEPTH - 1) / INT8_TILE_DEPTH;
                float largest[LINEAR_OUTPUTS / TILE_ROWS];
                for (int64_t n = 0; n < outputs; n += TILE_ROWS) largest[n / TILE_ROWS] = PeakRatioRange::of(right.peak_ratios + n, min(TILE_ROWS, outputs - n)).max;
                for_sums(
                    count, outputs, chunks, LINEAR_TOGETHER, left.tiles, right.tiles,
                    [&](int64_t m, int64_t n) { return peak_ratios.at(k, m).max + largest[n / TILE_ROWS] > six; },
                    [&](int64_t m, int64_t n, bool all, const int32_t* sums) {
                        const int64_t at = first + output + n;
                        LinearTile{left, right, m, n, six, eight}.add(sums, all, w.bias ? w.bias + at : nullptr, k == 0, min(TILE_ROWS, count - m),
                                                                      outputs - n, map.y + (row + m) * w.outputs + at, w.outputs, floats);
                    });
            }
            if (any) multiply_as_floats(map, row, count, first + output, outputs, floats);
        }
    });
}

// Bytes of a split weight.
static int64_t int8_split_bytes(int64_t outputs, int64_t depth) { return int64_t(SplitOperand::bytes(outputs, depth)); }

// Splits a weight; returns whether the split is useful.
static bool make_int8_split(const Weights& w, void* to, int threads) {
    const SplitOperand side{static_cast<char*>(to), w.outputs, w.depth};
    split_weight_rows(w, 0, side, threads);
    // Useful unless most outputs have large peak ratios, and would be multiplied as floats with most rows.
    constexpr float LITTLE = 2;  // peak ratio of a row of normal numbers, at least
    const float max_ratio = limit(w.depth, EIGHT_KINDS, false) - LITTLE;
    int64_t splittable = 0;
    for (int64_t n = 0; n < w.outputs; ++n) {
        bool all = true;
        for (int64_t k = 0; k < w.depth; k += LINEAR_DEPTH) all &= side.at(k, n / TILE_ROWS * TILE_ROWS).peak_ratios[n % TILE_ROWS] <= max_ratio;
        splittable += all;
    }
    return 2 * splittable >= w.outputs;
}

// y = x W^T + b with a split weight, or null to split it in this call; rows of y are `w.outputs` apart.
static void int8_split_linear(const LinearMap& map, const void* split, int threads) {
    const Weights& w = map.of;
    if (split) return int8_split_outputs(map, 0, {static_cast<char*>(const_cast<void*>(split)), w.outputs, w.depth}, threads);
    static thread_local Scratch scratch;
    const int64_t some = max(LINEAR_OUTPUTS, (8 << 20) / (SLICES * round_up(w.depth, INT8_TILE_DEPTH)) / LINEAR_OUTPUTS * LINEAR_OUTPUTS);
    for (int64_t first = 0; first < w.outputs; first += some) {
        const int64_t count = min(some, w.outputs - first), bytes = int64_t(SplitOperand::bytes(count, w.depth));
        scratch.reserve(size_t(bytes));
        const SplitOperand weights{scratch.take<char>(bytes), count, w.depth};
        split_weight_rows(w, first, weights, threads);
        int8_split_outputs(map, first, weights, threads);
    }
}

#else

constexpr int64_t (*int8_split_bytes)(int64_t, int64_t) = nullptr;
constexpr bool (*make_int8_split)(const Weights&, void*, int) = nullptr;
constexpr void (*int8_split_linear)(const LinearMap&, const void*, int) = nullptr;

#endif

}  // namespace regard::REGARD_ISA
