// Linear maps of many rows by whole numbers: each row of either side as digits, and their products summed by tiles. A row's
// numbers are the same whatever rows stand beside it, as long as those have digits.
#pragma once

#include "digits.hpp"
#include "linear.hpp"

namespace regard::REGARD_ISA {

#if defined(REGARD_DIGITS)

// A thread makes digits of some rows, which stay in its second-level cache, and reads the weight by some outputs for all of them.
constexpr int64_t LINEAR_ROWS = 256, LEAST_ROWS = 64, LINEAR_BYTES = 1 << 20, LINEAR_OUTPUTS = 64;
constexpr int64_t LINEAR_DEPTH = 256, LINEAR_TOGETHER = 32;  // of sums: two groups of rows and one of outputs stay in the first-level one

constexpr int LINEAR_SUMS = 3;

// One side of a map: digits of LINEAR_DEPTH features at a time, so that a large number is felt by those beside it only.
struct LinearSide {
    char* room;
    int64_t rows, depth;

    static int64_t part(int64_t depth, int64_t k) { return least(LINEAR_DEPTH, depth - k); }
    static size_t bytes(int64_t rows, int64_t depth) {
        size_t found = 0;
        for (int64_t k = 0; k < depth; k += LINEAR_DEPTH) found += Digits::bytes(rows, part(depth, k));
        return found;
    }
    // Features from k on, a multiple of LINEAR_DEPTH, of rows from `row` on, a multiple of GROUP.
    Digits at(int64_t k, int64_t row) const {
        Digits found(room + int64_t(Digits::bytes(rows, LINEAR_DEPTH)) * (k / LINEAR_DEPTH), rows, part(depth, k));
        found.tiles += row * round_up(part(depth, k), QUADS) * DIGITS, found.scales += row;
        return found;
    }
};

// Digits of a group of rows; whether they are all exact.
static bool make_digits(const LinearSide& side, int64_t row, const float* from, int64_t from_row, bool right) {
    const int64_t count = least(GROUP, side.rows - row);
    bool exact = true;
    for (int64_t k = 0; k < side.depth; k += LINEAR_DEPTH) {
        Digits to = side.at(k, row);
        const int64_t width = LinearSide::part(side.depth, k), tiles = (width + QUADS - 1) / QUADS * DIGITS;
        digits_of_rows(from + row * from_row + k, from_row, count, width, to);
        for (int64_t i = 0; right && i < tiles; ++i) {  // words of four for each row of them, side by side
            float* tile = reinterpret_cast<float*>(to.tiles + i * TILE_BYTES);
            transpose_square(tile, GROUP, tile, GROUP);
        }
        exact &= to.exact();
    }
    return exact;
}

// Digits of some outputs of a weight; whether they are exact.
static bool make_weights(const Weights& w, int64_t first, const LinearSide& to, int threads) {
    bool exact = true;
    shared_out((to.rows + GROUP - 1) / GROUP, 4, threads, [&](int64_t i) {
        if (!make_digits(to, i * GROUP, w.weight + first * w.row, w.row, true)) __atomic_store_n(&exact, false, __ATOMIC_RELAXED);
    });
    return exact;
}

// y (+)= x W^T (+ b) for some features, of up to 16 rows and 16 outputs.
REGARD_INLINE void add_amounts(const int32_t* sums, const float* of_rows, const float* of_outputs, const float* bias, bool first, int64_t rows,
                               int64_t outputs, float* y, int64_t y_row) {
    const __mmask16 there = outputs >= GROUP ? 0xffff : __mmask16((1u << outputs) - 1);
    const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(of_outputs), _mm512_set1_ps(UNIT)), start = bias ? _mm512_maskz_loadu_ps(there, bias) : _mm512_setzero_ps();
    for (int64_t r = 0; r < rows; ++r, y += y_row) {
        const __m512 before = first ? start : _mm512_maskz_loadu_ps(there, y);
        const __m512 found = _mm512_mul_ps(amount<LINEAR_SUMS>(sums + r * GROUP), scale);
        _mm512_mask_storeu_ps(y, there, _mm512_fmadd_ps(found, _mm512_set1_ps(of_rows[r]), before));
    }
}

// The outputs from `first` on, as many as there are digits of.
static void digit_outputs(const LinearMap& map, int64_t first, const LinearSide& weights, int threads) {
    const Weights& w = map.of;
    const int64_t fit = most(LEAST_ROWS, least(LINEAR_ROWS, LINEAR_BYTES / (DIGITS * round_up(w.depth, QUADS))));
    const int64_t share = most(LEAST_ROWS, (map.rows + 2 * threads - 1) / (2 * threads));
    const int64_t rows = round_up(least(fit, share), LINEAR_TOGETHER), blocks = (map.rows + rows - 1) / rows;
    const int64_t ranges = (threads + blocks - 1) / blocks, range = round_up((weights.rows + ranges - 1) / ranges, LINEAR_OUTPUTS);
    shared_out(blocks * ranges, 1, threads, [&](int64_t i) {
        static thread_local Scratch scratch;
        const int64_t row = i / ranges * rows, count = least(rows, map.rows - row);
        const int64_t start = i % ranges * range, stop = least(start + range, weights.rows);
        const size_t bytes = LinearSide::bytes(count, w.depth);
        scratch.reserve(bytes);
        const LinearSide some{scratch.take<char>(int64_t(bytes)), count, w.depth};
        uint64_t inexact = 0;  // groups of rows
        for (int64_t m = 0; m < count; m += GROUP)
            inexact |= uint64_t(!make_digits(some, m, map.x + row * map.x_row, map.x_row, false)) << m / GROUP;
        const TileRegisters registers;
        for (int64_t output = start; output < stop; output += LINEAR_OUTPUTS)
            for (int64_t k = 0; k < w.depth; k += LINEAR_DEPTH) {
                const Digits left = some.at(k, 0), right = weights.at(k, output);
                const int64_t outputs = least(LINEAR_OUTPUTS, stop - output), chunks = (LinearSide::part(w.depth, k) + QUADS - 1) / QUADS;
                const float* bias = w.bias ? w.bias + first + output : nullptr;
                float* y = map.y + row * w.outputs + first + output;
                for_sums<LINEAR_SUMS>(count, outputs, chunks, LINEAR_TOGETHER, left.tiles, right.tiles, [&](int64_t m, int64_t n, const int32_t* sums) {
                    add_amounts(sums, left.scales + m, right.scales + n, bias ? bias + n : nullptr, k == 0, least(GROUP, count - m),
                                outputs - n, y + m * w.outputs + n, w.outputs);
                });
            }
        for (int64_t m = 0; m < count; m += GROUP)  // by the number
            if (inexact >> m / GROUP & 1) {
                LinearMap group = map;
                group.rows = least(GROUP, count - m);
                group.x += (row + m) * map.x_row, group.y += (row + m) * w.outputs;
                linear_chunk(group, first + start, first + stop, Ahead());
            }
    });
}

static int64_t digits_bytes(int64_t outputs, int64_t depth) { return int64_t(LinearSide::bytes(outputs, depth)); }

static bool make_digits(const Weights& w, void* to, int threads) {
    return make_weights(w, 0, {static_cast<char*>(to), w.outputs, w.depth}, threads);
}

// y = x W^T + b by the digits of W, or by some that are made for it; the rows of y are `w.outputs` apart. False, and nothing
// that counts, if W has none that are exact.
static bool digit_linear(const LinearMap& map, const void* digits, int threads) {
    const Weights& w = map.of;
    if (digits) {
        digit_outputs(map, 0, {static_cast<char*>(const_cast<void*>(digits)), w.outputs, w.depth}, threads);
        return true;
    }
    static thread_local Scratch scratch;
    const int64_t some = most(LINEAR_OUTPUTS, (8 << 20) / (DIGITS * round_up(w.depth, QUADS)) / LINEAR_OUTPUTS * LINEAR_OUTPUTS);
    for (int64_t first = 0; first < w.outputs; first += some) {
        const int64_t count = least(some, w.outputs - first), bytes = digits_bytes(count, w.depth);
        scratch.reserve(size_t(bytes));
        const LinearSide weights{scratch.take<char>(bytes), count, w.depth};
        if (!make_weights(w, first, weights, threads)) return false;
        digit_outputs(map, first, weights, threads);
    }
    return true;
}

#else

constexpr int64_t (*digits_bytes)(int64_t, int64_t) = nullptr;
constexpr bool (*make_digits)(const Weights&, void*, int) = nullptr;
constexpr bool (*digit_linear)(const LinearMap&, const void*, int) = nullptr;

#endif

}  // namespace regard::REGARD_ISA
