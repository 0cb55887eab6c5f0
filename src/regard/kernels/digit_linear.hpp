// Linear maps of many rows by whole numbers: each row of either side as digits, and their products summed by tiles; as floats
// where the crests of both do not allow it (crest.hpp). A row's numbers are the same whatever rows stand beside it.
#pragma once

#include "digits.hpp"
#include "linear.hpp"

namespace regard::REGARD_ISA {

#if defined(REGARD_DIGITS)

// A thread makes digits of some rows, which stay in its second-level cache, and reads the weight by some outputs for all of them.
constexpr int64_t LINEAR_ROWS = 256, LEAST_ROWS = 64, LINEAR_BYTES = 1 << 20, LINEAR_OUTPUTS = 64;
constexpr int64_t LINEAR_DEPTH = 256, LINEAR_TOGETHER = 32;  // of sums: two groups of rows and one of outputs stay in the first-level one

// Limits on the crests of a row and an output: up to the first six kinds of products of digits do, up to the second eight. Sums
// are long, so that floats have a larger error than in attention.
constexpr float SIX_KINDS = 2.5f, EIGHT_KINDS = 4.25f;

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
        found.tiles += row * round_up(part(depth, k), QUADS) * DIGITS, found.scales += row, found.crests += row;
        return found;
    }
};

// Digits of a group of rows.
static void make_digits(const LinearSide& side, int64_t row, const float* from, int64_t from_row, bool right) {
    const int64_t count = least(GROUP, side.rows - row);
    for (int64_t k = 0; k < side.depth; k += LINEAR_DEPTH) {
        Digits to = side.at(k, row);
        const int64_t width = LinearSide::part(side.depth, k), tiles = (width + QUADS - 1) / QUADS * DIGITS;
        digits_of_rows(from + row * from_row + k, from_row, count, width, to);
        for (int64_t i = 0; right && i < tiles; ++i) {  // words of four for each row of them, side by side
            float* tile = reinterpret_cast<float*>(to.tiles + i * TILE_BYTES);
            transpose_square(tile, GROUP, tile, GROUP);
        }
    }
}

// Digits of some outputs of a weight.
static void make_weights(const Weights& w, int64_t first, const LinearSide& to, int threads) {
    shared_out((to.rows + GROUP - 1) / GROUP, 4, threads, [&](int64_t i) { make_digits(to, i * GROUP, w.weight + first * w.row, w.row, true); });
}

// Some rows of a block and LINEAR_OUTPUTS outputs: a bit for each pair.
struct LinearPairs {
    alignas(64) __mmask16 bits[LINEAR_ROWS][LINEAR_OUTPUTS / GROUP];

    uint64_t of(int64_t row) const {
        uint64_t found;
        std::memcpy(&found, bits[row], sizeof(found));
        return found;
    }
};

// 16 x 16 of the products of a row's and an output's digits, of LINEAR_DEPTH features.
struct LinearTile {
    const Digits &rows, &outputs;
    int64_t m, n;
    float six, eight;  // limits on crests, for six kinds of products and for eight

    // y (+)= the products (+ b), of `count` rows; `all`: some may be of eight kinds, and `pairs` of those that are beyond.
    __attribute__((always_inline)) void add(const int32_t* sums, bool all, const float* bias, bool first, int64_t count, int64_t width, float* y,
                                            int64_t y_row, LinearPairs& pairs) const {
        const __mmask16 there = __mmask16(ones(0, least(GROUP, width)));
        const __m512 scale = _mm512_mul_ps(_mm512_loadu_ps(outputs.scales + n), _mm512_set1_ps(UNIT)), crests = _mm512_loadu_ps(outputs.crests + n);
        const __m512 start = bias ? _mm512_maskz_loadu_ps(there, bias) : _mm512_setzero_ps();
        for (int64_t r = 0; r < count; ++r, y += y_row, sums += GROUP) {
            const __m512 before = first ? start : _mm512_maskz_loadu_ps(there, y);
            __m512 whole = amount<3>(sums);
            if (all) {
                const __m512 both = _mm512_add_ps(_mm512_set1_ps(rows.crests[m + r]), crests);
                whole = _mm512_mask_mov_ps(whole, _mm512_cmp_ps_mask(both, _mm512_set1_ps(six), _CMP_GT_OQ), amount<4>(sums));
                pairs.bits[m + r][n / GROUP] |= there & _mm512_cmp_ps_mask(both, _mm512_set1_ps(eight), _CMP_GT_OQ);
            }
            _mm512_mask_storeu_ps(y, there, _mm512_fmadd_ps(_mm512_mul_ps(whole, scale), _mm512_set1_ps(rows.scales[m + r]), before));
        }
    }
};

// Rows of a block from `row` of the map on and outputs from `first` on, as far as there are bits of them, as floats.
static void float_pairs(const LinearMap& map, int64_t row, int64_t count, int64_t first, int64_t outputs, const LinearPairs& pairs) {
    auto floats = [&](int64_t m, int64_t rows, int64_t from, int64_t to) {
        LinearMap part = map;
        part.rows = rows;
        part.x += (row + m) * map.x_row, part.y += (row + m) * map.of.outputs;
        linear_chunk(part, first + from, first + to, Ahead());
    };
    auto of = [&](int64_t m) { return pairs.of(m) & ones(0, outputs); };
    for (int64_t m = 0, stop; m < count; m = stop) {
        const uint64_t some = of(m);
        for (stop = m + 1; stop < count && of(stop) == some;) ++stop;
        for_runs(some, [&](int64_t from, int64_t run) { floats(m, stop - m, from, from + run); });
    }
}

// Crests of the digits of some rows: the least and the largest of each group of them, for each LINEAR_DEPTH features.
struct LinearCrests {
    Crests* found;
    int64_t groups;

    static size_t bytes(int64_t rows, int64_t depth) {
        return sizeof(Crests) * size_t(((rows + GROUP - 1) / GROUP) * ((depth + LINEAR_DEPTH - 1) / LINEAR_DEPTH));
    }
    Crests& at(int64_t k, int64_t row) const { return found[k / LINEAR_DEPTH * groups + row / GROUP]; }
    void measure(const LinearSide& side, int64_t row) const {
        for (int64_t k = 0; k < side.depth; k += LINEAR_DEPTH) at(k, row) = Crests::of(side.at(k, row).crests, least(GROUP, side.rows - row));
    }
};

// The outputs from `first` on, as many as there are digits of.
static void digit_outputs(const LinearMap& map, int64_t first, const LinearSide& weights, int threads) {
    const Weights& w = map.of;
    const float six = limit(w.depth, SIX_KINDS, map.relaxed), eight = limit(w.depth, EIGHT_KINDS, map.relaxed);
    const int64_t fit = most(LEAST_ROWS, least(LINEAR_ROWS, LINEAR_BYTES / (DIGITS * round_up(w.depth, QUADS))));
    const int64_t share = most(LEAST_ROWS, (map.rows + 2 * threads - 1) / (2 * threads));
    const int64_t rows = round_up(least(fit, share), LINEAR_TOGETHER), blocks = (map.rows + rows - 1) / rows;
    const int64_t ranges = (threads + blocks - 1) / blocks, range = round_up((weights.rows + ranges - 1) / ranges, LINEAR_OUTPUTS);
    shared_out(blocks * ranges, 1, threads, [&](int64_t i) {
        static thread_local Scratch scratch;
        const int64_t row = i / ranges * rows, count = least(rows, map.rows - row);
        const int64_t start = i % ranges * range, stop = least(start + range, weights.rows);
        const size_t bytes = LinearSide::bytes(count, w.depth);
        scratch.reserve(bytes + LinearCrests::bytes(count, w.depth) + 64);
        const LinearSide some{scratch.take<char>(int64_t(bytes)), count, w.depth};
        const LinearCrests crests{scratch.take<Crests>(int64_t(LinearCrests::bytes(count, w.depth) / sizeof(Crests))), (count + GROUP - 1) / GROUP};
        for (int64_t m = 0; m < count; m += GROUP) {
            make_digits(some, m, map.x + row * map.x_row, map.x_row, false);
            crests.measure(some, m);
        }
        const TileRegisters registers;
        LinearPairs floats;
        for (int64_t output = start; output < stop; output += LINEAR_OUTPUTS) {
            const int64_t outputs = least(LINEAR_OUTPUTS, stop - output);
            bool any = false, every = false;  // pairs are beyond the limits of digits
            for (int64_t k = 0; k < w.depth && !every; k += LINEAR_DEPTH) {
                const Crests of_outputs = Crests::of(weights.at(k, output).crests, outputs);
                every = true;
                for (int64_t m = 0; m < count; m += GROUP) {
                    any |= crests.at(k, m).most + of_outputs.most > eight;
                    every &= crests.at(k, m).least + of_outputs.least > eight;
                }
            }
            if (any) std::memset(&floats, every ? 0xff : 0, sizeof(floats));
            for (int64_t k = 0; k < w.depth && !every; k += LINEAR_DEPTH) {
                const Digits left = some.at(k, 0), right = weights.at(k, output);
                const int64_t chunks = (LinearSide::part(w.depth, k) + QUADS - 1) / QUADS;
                float largest[LINEAR_OUTPUTS / GROUP];
                for (int64_t n = 0; n < outputs; n += GROUP) largest[n / GROUP] = Crests::of(right.crests + n, least(GROUP, outputs - n)).most;
                for_sums(
                    count, outputs, chunks, LINEAR_TOGETHER, left.tiles, right.tiles,
                    [&](int64_t m, int64_t n) { return crests.at(k, m).most + largest[n / GROUP] > six; },
                    [&](int64_t m, int64_t n, bool all, const int32_t* sums) {
                        const int64_t at = first + output + n;
                        LinearTile{left, right, m, n, six, eight}.add(sums, all, w.bias ? w.bias + at : nullptr, k == 0, least(GROUP, count - m),
                                                                      outputs - n, map.y + (row + m) * w.outputs + at, w.outputs, floats);
                    });
            }
            if (any) float_pairs(map, row, count, first + output, outputs, floats);
        }
    });
}

static int64_t digits_bytes(int64_t outputs, int64_t depth) { return int64_t(LinearSide::bytes(outputs, depth)); }

static bool make_digits(const Weights& w, void* to, int threads) {
    const LinearSide side{static_cast<char*>(to), w.outputs, w.depth};
    make_weights(w, 0, side, threads);
    // Outputs of large crests would be multiplied as floats with most rows.
    constexpr float LITTLE = 2;  // the crest of a row of normal numbers, at least
    const float most = limit(w.depth, EIGHT_KINDS, false) - LITTLE;
    int64_t good = 0;
    for (int64_t n = 0; n < w.outputs; ++n) {
        bool all = true;
        for (int64_t k = 0; k < w.depth; k += LINEAR_DEPTH) all &= side.at(k, n / GROUP * GROUP).crests[n % GROUP] <= most;
        good += all;
    }
    return 2 * good >= w.outputs;
}

// y = x W^T + b by the digits of W, or by some that are made for it; the rows of y are `w.outputs` apart.
static void digit_linear(const LinearMap& map, const void* digits, int threads) {
    const Weights& w = map.of;
    if (digits) return digit_outputs(map, 0, {static_cast<char*>(const_cast<void*>(digits)), w.outputs, w.depth}, threads);
    static thread_local Scratch scratch;
    const int64_t some = most(LINEAR_OUTPUTS, (8 << 20) / (DIGITS * round_up(w.depth, QUADS)) / LINEAR_OUTPUTS * LINEAR_OUTPUTS);
    for (int64_t first = 0; first < w.outputs; first += some) {
        const int64_t count = least(some, w.outputs - first), bytes = int64_t(LinearSide::bytes(count, w.depth));
        scratch.reserve(size_t(bytes));
        const LinearSide weights{scratch.take<char>(bytes), count, w.depth};
        make_weights(w, first, weights, threads);
        digit_outputs(map, first, weights, threads);
    }
}

#else

constexpr int64_t (*digits_bytes)(int64_t, int64_t) = nullptr;
constexpr bool (*make_digits)(const Weights&, void*, int) = nullptr;
constexpr void (*digit_linear)(const LinearMap&, const void*, int) = nullptr;

#endif

}  // namespace regard::REGARD_ISA
