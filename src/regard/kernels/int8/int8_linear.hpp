// Linear maps in int8 (W8A8): weights with a scale for each output, rows of x quantized in each call with a scale for each row.
// Sums of products are exact, so a row's result does not depend on the rows beside it, on the kernel or on the instruction set;
// this file is compiled without contraction to fused multiply-adds for the same reason.
#pragma once

#include "int8/dot_products.hpp"
#include "linear/activation.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

constexpr float MAX_CODE = 127;
constexpr float SMALLEST = 1e-30f;       // rows of smaller numbers only have the codes 0
constexpr int64_t CHUNK_BLOCKS = 16;      // blocks of outputs that a thread takes at a time, at most
constexpr int64_t TILE_LEAST_ROWS = 5;   // from here on AMX tiles are faster than dot products
constexpr int64_t ROW_GROUP_BYTES = 1 << 19;  // rows of codes that stay in the second-level cache
constexpr int64_t GROUP_ROWS = 256;           // at most
constexpr int64_t TILE_PAIR_ROWS = 32, TILE_PAIR_OUTPUTS = 32;
constexpr int64_t PART_DEPTH = 1024;  // features at a time: two blocks of outputs stay in the first-level cache

// Rows of x as codes plus X_OFFSET, and their scales.
struct QuantizedRows {
    int8_t* codes;
    float* scales;
    int64_t row;  // stride

    // Stride of rows of codes: not a multiple of 512, since rows at such a distance share few sets of the first-level cache.
    static int64_t stride(int64_t depth) {
        const int64_t padded = round_up(depth, DEPTH_STEP);
        return padded % 512 == 0 ? padded + LINE : padded;
    }
};

// Quantizes a row: codes round(x * (127 / max)), scale max / 127; a row with a non-finite number has the scale NaN.
static void quantize_row(const float* x, int64_t depth, int8_t* codes, float* scale) {
    constexpr int W = LANES<float>;
    constexpr float ROUND = 12582912.0f;  // 1.5 * 2^23: adding it rounds to the nearest integer
    constexpr int32_t ROUND_BITS = 0x4b400000, MAGNITUDE = 0x7fffffff, INFINITE_BITS = 0x7f800000;
    typedef int8_t Bytes __attribute__((vector_size(W), may_alias, aligned(1)));
    const int64_t whole = depth / W * W;
    Vec<float> rest{};
    std::memcpy(&rest, x + whole, size_t(depth - whole) * sizeof(float));
    Ints<float> high = (Ints<float>)rest & MAGNITUDE;  // the bits of magnitudes are ordered as these are, NaN last
    for (int64_t k = 0; k < whole; k += W) {
        const Ints<float> next = (Ints<float>)load(x + k) & MAGNITUDE;
        high = high > next ? high : next;
    }
    int32_t bits = 0;
    for (int i = 0; i < W; ++i) bits = high[i] > bits ? high[i] : bits;
    float largest;
    std::memcpy(&largest, &bits, sizeof(largest));
    *scale = bits < INFINITE_BITS ? largest / MAX_CODE : __builtin_nanf("");
    const float factor = MAX_CODE / (largest > SMALLEST ? largest : INFINITE);
    auto quantized = [&](Vec<float> v) __attribute__((always_inline)) {
        return __builtin_convertvector((Ints<float>)(v * factor + ROUND) - (ROUND_BITS - X_OFFSET), Bytes);
    };
    for (int64_t k = 0; k < whole; k += W) *reinterpret_cast<Bytes*>(codes + k) = quantized(load(x + k));
    const Bytes last = quantized(rest);
    std::memcpy(codes + whole, &last, size_t(depth - whole));
    std::memset(codes + depth, 0, size_t(round_up(depth, DEPTH_STEP) - depth));  // the weight's codes are 0 there
}

// Scales, biases and compensations of some outputs, padded to whole blocks.
struct OutputScales {
    alignas(64) float scales[CHUNK_BLOCKS * BLOCK_OUTPUTS], biases[CHUNK_BLOCKS * BLOCK_OUTPUTS];
    alignas(64) int32_t compensations[CHUNK_BLOCKS * BLOCK_OUTPUTS];

    OutputScales(const Weights& w, int64_t first, int64_t count) {
        for (int64_t n = 0; n < round_up(count, BLOCK_OUTPUTS); ++n) {
            const bool there = n < count;
            scales[n] = there ? w.scales[first + n] : 0;
            biases[n] = there && w.bias ? w.bias[first + n] : 0;
            compensations[n] = there ? X_OFFSET * w.sums[first + n] : 0;
        }
    }
};

// y = activation(sums * scale + bias + added) of one row and `count` outputs.
REGARD_INLINE void finish(const LinearMap& map, const int32_t* sums, float x_scale, const OutputScales& of, int64_t at, int64_t count, float* y,
                          const float* added) {
    constexpr int W = LANES<float>;
    auto values = [&](int64_t n) __attribute__((always_inline)) {
        Ints<float> whole, compensation;
        std::memcpy(&whole, sums + n, sizeof(whole));
        std::memcpy(&compensation, of.compensations + at + n, sizeof(compensation));
        return __builtin_convertvector(whole - compensation, Vec<float>) * (x_scale * load(of.scales + at + n)) + load(of.biases + at + n);
    };
    int64_t n = 0;
    for (; n + W <= count; n += W) store(y + n, added ? values(n) + load(added + n) : values(n));
    if (n < count) {
        const Vec<float> last = values(n);
        for (int i = 0; n < count; ++n, ++i) y[n] = added ? last[i] + added[n] : last[i];
    }
    apply(map.activation, y, count);
}

// Rows [row, row + rows) and outputs of `blocks` blocks from block `first` on. `more`: the next blocks come next.
struct Int8Chunk {
    const LinearMap& map;
    const QuantizedRows& x;
    int64_t row, rows, first, blocks;
    bool more;

    int64_t depth() const { return round_up(map.of.depth, DEPTH_STEP); }
    int64_t output() const { return first * BLOCK_OUTPUTS; }
    int64_t outputs() const { return min(blocks * BLOCK_OUTPUTS, map.of.outputs - output()); }
    const int8_t* weight() const { return map.of.codes + output() * depth(); }

    // Finishes `count` rows from `from` on and `width` outputs from the chunk's output `at` on.
    void finish_rows(const OutputScales& of, int64_t from, int64_t count, int64_t at, int64_t width, const int32_t* sums, int64_t sums_row) const {
        for (int64_t r = 0; r < count; ++r) {
            const int64_t place = (from + r) * map.of.outputs + output() + at;
            finish(map, sums + r * sums_row, x.scales[from + r], of, at, width, map.y + place, map.added ? map.added + place : nullptr);
        }
    }

    void by_dot_products() const {
        alignas(64) int32_t sums[ROWS * CHUNK_BLOCKS * BLOCK_OUTPUTS];
        const OutputScales of(map.of, output(), outputs());
        for (int64_t m = row; m < row + rows; m += ROWS) {
            const int64_t count = min(ROWS, row + rows - m), width = blocks * BLOCK_OUTPUTS;
            dot_products(count, blocks, depth(), x.codes + m * x.row, x.row, weight(), more, sums, width);
            finish_rows(of, m, count, 0, outputs(), sums, width);
        }
    }

#if defined(__AMX_INT8__)
    // While the tiles of a pair of blocks and rows are multiplied, the sums of the pair before are finished.
    void by_tiles() const {
        constexpr int64_t PAIR = TILE_PAIR_ROWS * TILE_PAIR_OUTPUTS;
        alignas(64) int32_t sums[CHUNK_BLOCKS / 2][PAIR];
        const OutputScales of(map.of, output(), outputs());
        const TileRegisters registers;
        const int64_t whole = depth();
        int64_t done_row = -1, done_at = 0;
        const int32_t* done = nullptr;
        auto finish_done = [&] {
            if (done) finish_rows(of, done_row, min(TILE_PAIR_ROWS, row + rows - done_row), done_at, min(TILE_PAIR_OUTPUTS, outputs() - done_at), done, TILE_PAIR_OUTPUTS);
        };
        int64_t turn = 0;
        for (int64_t m = row; m < row + rows; m += TILE_PAIR_ROWS)
            for (int64_t from = 0; from < whole; from += PART_DEPTH)
                for (int64_t b = 0; b < blocks; b += 2) {
                    const int64_t to = min(from + PART_DEPTH, whole), at = b * BLOCK_OUTPUTS;
                    const TileProduct product{x.codes + m * x.row, weight() + at * whole, x.row, whole, row + rows - m > TILE_ROWS, b + 1 < blocks};
                    int32_t* target = sums[whole > PART_DEPTH ? b / 2 : turn ^= 1];
                    product.multiply(from, to, from ? target : nullptr, TILE_PAIR_OUTPUTS, m == row && (more || b + 4 <= blocks) ? 2 * BLOCK_OUTPUTS * whole : 0);
                    finish_done();
                    done = nullptr;
                    product.store(target, TILE_PAIR_OUTPUTS);
                    if (to == whole) done = target, done_row = m, done_at = at;
                }
        finish_done();
    }
#endif

    void compute() const {
#if defined(__AMX_INT8__)
        if (rows >= TILE_LEAST_ROWS) return by_tiles();
#endif
        by_dot_products();
    }
};

// Linear maps of the same rows, which are quantized once.
static void int8_linear(const LinearMap* maps, int count, int threads) {
    static thread_local Scratch scratch;
    const int64_t rows = maps->rows, depth = maps->of.depth, stride = QuantizedRows::stride(depth), padded = round_up(rows, 2 * 16);
    scratch.reserve(size_t(padded) * size_t(stride + int64_t(sizeof(float))) + 2 * 64);
    const QuantizedRows x{scratch.take<int8_t>(padded * stride), scratch.take<float>(padded), stride};
    int64_t outputs = 0;
    for (int i = 0; i < count; ++i) outputs += maps[i].of.outputs;
    if (rows * depth * outputs < (1 << 17)) threads = 1;  // starting another thread would take longer
    parallel_for(rows, 8, 64, rows * depth < (1 << 14) ? 1 : threads,
                 [&](int64_t r) { quantize_row(maps->x + r * maps->x_row, depth, x.codes + r * stride, x.scales + r); });

    // A piece: a group of rows and a chunk of outputs.
    const int64_t group = max(32, min(min(round_up((rows + threads - 1) / threads, 32), GROUP_ROWS), ROW_GROUP_BYTES / stride / 32 * 32));
    const int64_t groups = (rows + group - 1) / group;
    const int64_t share = (outputs / BLOCK_OUTPUTS * groups) / (2 * threads), chunk = max(2, min(CHUNK_BLOCKS, share / 2 * 2));
    auto blocks_of = [](const LinearMap& map) { return (map.of.outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS; };
    int64_t chunks = 0;
    for (int i = 0; i < count; ++i) chunks += (blocks_of(maps[i]) + chunk - 1) / chunk;
    parallel_for(groups * chunks, 1, threads, [&](int64_t piece) {
        const int64_t row = piece / chunks * group;
        int64_t index = piece % chunks;
        for (int i = 0; i < count; ++i) {
            const int64_t blocks = blocks_of(maps[i]), of_map = (blocks + chunk - 1) / chunk;
            if (index < of_map) {
                const bool more = threads == 1 && index + 1 < of_map;
                return Int8Chunk{maps[i], x, row, min(group, rows - row), index * chunk, min(chunk, blocks - index * chunk), more}.compute();
            }
            index -= of_map;
        }
    });
}

}  // namespace regard::REGARD_ISA
