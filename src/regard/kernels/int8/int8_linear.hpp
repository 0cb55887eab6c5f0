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
constexpr int64_t CHUNK_BLOCKS = 8;      // blocks of outputs that a thread takes at a time, at most
constexpr int64_t TILE_LEAST_ROWS = 5;   // from here on AMX tiles are faster than dot products
constexpr int64_t ROW_GROUP_BYTES = 1 << 19;  // rows of codes that stay in the second-level cache

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

// Outputs of some blocks from block `first` on, of rows [row, row + count).
static void int8_chunk(const LinearMap& map, const QuantizedRows& x, int64_t row, int64_t count, int64_t first, int64_t blocks) {
    const Weights& w = map.of;
    const int64_t depth = round_up(w.depth, DEPTH_STEP), output = first * BLOCK_OUTPUTS;
    const int64_t outputs = min(blocks * BLOCK_OUTPUTS, w.outputs - output);
    const OutputScales of(w, output, outputs);
    const int8_t* weight = w.codes + output * depth;
    auto finish_rows = [&](int64_t from, int64_t rows, int64_t at, int64_t width, const int32_t* sums, int64_t sums_row) {
        for (int64_t r = 0; r < rows; ++r) {
            const int64_t place = (from + r) * w.outputs + output + at;
            finish(map, sums + r * sums_row, x.scales[from + r], of, at, width, map.y + place, map.added ? map.added + place : nullptr);
        }
    };
#if defined(__AMX_INT8__)
    if (count >= TILE_LEAST_ROWS) {
        const TileRegisters registers;
        alignas(64) int32_t sums[2 * TILE_ROWS * 2 * BLOCK_OUTPUTS];
        constexpr int64_t SUMS_ROW = 2 * BLOCK_OUTPUTS;
        for (int64_t b = 0; b < blocks; b += 2)
            for (int64_t m = row; m < row + count; m += 2 * TILE_ROWS) {
                const int64_t rows = min(2 * TILE_ROWS, row + count - m), at = b * BLOCK_OUTPUTS;
                const bool tall = rows > TILE_ROWS, wide = b + 1 < blocks;
                const int8_t *left = x.codes + m * x.row, *right = weight + at * depth;
                if (tall && wide) tile_products<2, 2>(depth, left, x.row, right, sums, SUMS_ROW);
                else if (tall) tile_products<2, 1>(depth, left, x.row, right, sums, SUMS_ROW);
                else if (wide) tile_products<1, 2>(depth, left, x.row, right, sums, SUMS_ROW);
                else tile_products<1, 1>(depth, left, x.row, right, sums, SUMS_ROW);
                finish_rows(m, rows, at, min(2 * BLOCK_OUTPUTS, outputs - at), sums, SUMS_ROW);
            }
        return;
    }
#endif
    alignas(64) int32_t sums[ROWS * CHUNK_BLOCKS * BLOCK_OUTPUTS];
    for (int64_t m = row; m < row + count; m += ROWS) {
        const int64_t rows = min(ROWS, row + count - m);
        dot_products(rows, blocks, depth, x.codes + m * x.row, x.row, weight, sums, blocks * BLOCK_OUTPUTS);
        finish_rows(m, rows, 0, outputs, sums, blocks * BLOCK_OUTPUTS);
    }
}

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
    const int64_t group = max(32, min(round_up((rows + threads - 1) / threads, 32), ROW_GROUP_BYTES / stride / 32 * 32));
    const int64_t groups = (rows + group - 1) / group;
    const int64_t share = (outputs / BLOCK_OUTPUTS * groups) / (4 * threads), chunk = max(2, min(CHUNK_BLOCKS, share / 2 * 2));
    auto blocks_of = [](const LinearMap& map) { return (map.of.outputs + BLOCK_OUTPUTS - 1) / BLOCK_OUTPUTS; };
    int64_t chunks = 0;
    for (int i = 0; i < count; ++i) chunks += (blocks_of(maps[i]) + chunk - 1) / chunk;
    parallel_for(groups * chunks, 1, threads, [&](int64_t piece) {
        const int64_t row = piece / chunks * group;
        int64_t index = piece % chunks;
        for (int i = 0; i < count; ++i) {
            const int64_t blocks = blocks_of(maps[i]), of_map = (blocks + chunk - 1) / chunk;
            if (index < of_map) return int8_chunk(maps[i], x, row, min(group, rows - row), index * chunk, min(chunk, blocks - index * chunk));
            index -= of_map;
        }
    });
}

}  // namespace regard::REGARD_ISA
