// Linear maps x W^T + b for a few rows, as in decoding: W is read once, in place. Both operands are read along the features,
// and vector lanes are summed at the end, so a row's result does not depend on the rows beside it.
#pragma once

#include "kernel_table.hpp"
#include "linear/activation.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int DOT_ROWS = 6;  // by 4 outputs: 24 sums, 4 weights and 1 row vector in 32 registers
#else
constexpr int DOT_ROWS = 2;
#endif
constexpr int DOT_OUTPUTS = 4;
constexpr int64_t DOT_DEPTH = 1024;   // features at a time: a few rows of both operands stay in the first-level cache
constexpr int64_t DOT_BLOCK = 2 * DOT_ROWS;  // rows that reuse weights from the first-level cache

// Outputs of a thread's chunk: their weights stay in the second-level cache, and whole cache lines of each row are written.
static int64_t chunk_of(const Weights& w) { return w.depth > DOT_DEPTH ? 16 : 32; }

// Adds the products of M rows of x and N rows of weights to y. PREFETCH: prefetches `lines` cache lines per vector along the
// depth; more at once would delay current loads.
template <int M, int N, bool PREFETCH>
static inline void dot_tile(int64_t depth, const float* __restrict x, int64_t x_row, const float* __restrict w, int64_t w_row,
                            float* __restrict y, int64_t y_row, Prefetch& prefetch, int64_t lines) {
    constexpr int W = LANES<float>;
    constexpr int ALL = (M * N + W - 1) / W * W;
    Vec<float> sum[ALL];
#pragma GCC unroll 32
    for (int i = 0; i < ALL; ++i) sum[i] = Vec<float>{};
    const int64_t whole = depth / W * W;
    for (int64_t k = 0; k < whole; k += W) {
        if constexpr (PREFETCH) prefetch.fetch(lines);
        Vec<float> right[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) right[n] = load(w + n * w_row + k);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Vec<float> left = load(x + m * x_row + k);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[m * N + n] += left * right[n];
        }
    }
    if (whole < depth) {
        auto rest = [&](const float* from) {
            float padded[W] = {};
            for (int64_t k = whole; k < depth; ++k) padded[k - whole] = from[k];
            return load(padded);
        };
        Vec<float> right[N];
#pragma GCC unroll 8
        for (int n = 0; n < N; ++n) right[n] = rest(w + n * w_row);
#pragma GCC unroll 8
        for (int m = 0; m < M; ++m) {
            const Vec<float> left = rest(x + m * x_row);
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[m * N + n] += left * right[n];
        }
    }
    float products[ALL];
#pragma GCC unroll 8
    for (int i = 0; i < ALL; i += W) store(products + i, lane_sums<float>(sum + i));
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) y[m * y_row + n] += products[m * N + n];
}

constexpr int at_most(int rows) { return rows < DOT_ROWS ? rows : DOT_ROWS; }

// Dot tile of up to DOT_ROWS rows.
template <int N, bool PREFETCH>
static void dot_rows(int64_t rows, int64_t depth, const float* x, int64_t x_row, const float* w, int64_t w_row, float* y,
                     int64_t y_row, Prefetch& prefetch, int64_t lines) {
    switch (rows) {
        case 1: return dot_tile<1, N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
        case 2: return dot_tile<2, N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
        case 3: return dot_tile<at_most(3), N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
        case 4: return dot_tile<at_most(4), N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
        case 5: return dot_tile<at_most(5), N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
        default: return dot_tile<DOT_ROWS, N, PREFETCH>(depth, x, x_row, w, w_row, y, y_row, prefetch, lines);
    }
}

// Prefetch of the weights of outputs [first, last).
static Prefetch weight_rows(const Weights& w, int64_t first, int64_t last) {
    return {w.weight + first * w.row, last - first, w.row * int64_t(sizeof(float)), w.depth * int64_t(sizeof(float))};
}

// Outputs [first, last) of a map.
static void linear_chunk(const LinearMap& map, int64_t first, int64_t last, Prefetch prefetch) {
    const Weights& w = map.of;
    const int64_t tiles = (map.rows + DOT_ROWS - 1) / DOT_ROWS;
    const int64_t steps = tiles * ((last - first + DOT_OUTPUTS - 1) / DOT_OUTPUTS) * ((w.depth + DOT_DEPTH - 1) / DOT_DEPTH);
    const int64_t vectors = max(1, min(DOT_DEPTH, w.depth) / LANES<float>);
    const int64_t share = (prefetch.lines() + steps - 1) / steps, lines = (share + vectors - 1) / vectors;
    const bool spread_out = 4 * share > vectors;
    for (int64_t m = 0; m < map.rows; ++m) {
        float* y = map.y + m * w.outputs;
        const float* added = map.added ? map.added + m * w.outputs : nullptr;
        for (int64_t n = first; n < last; ++n) y[n] = (w.bias ? w.bias[n] : 0.0f) + (added ? added[n] : 0.0f);
    }
    for (int64_t k = 0; k < w.depth; k += DOT_DEPTH)
        for (int64_t block = 0; block < map.rows; block += DOT_BLOCK) {
            const int64_t depth = min(DOT_DEPTH, w.depth - k), end = min(block + DOT_BLOCK, map.rows);
            for (int64_t n = first; n < last;) {
                const float* weight = w.weight + n * w.row + k;
                const bool whole = n + DOT_OUTPUTS <= last;
                for (int64_t m = block; m < end; m += DOT_ROWS) {
                    const float* x = map.x + m * map.x_row + k;
                    float* y = map.y + m * w.outputs + n;
                    if (!spread_out) prefetch.fetch(share);
                    const auto rows = !whole   ? dot_rows<1, false>
                                      : spread_out ? dot_rows<DOT_OUTPUTS, true>
                                               : dot_rows<DOT_OUTPUTS, false>;
                    rows(end - m, depth, x, map.x_row, weight, w.row, y, w.outputs, prefetch, lines);
                }
                n += whole ? DOT_OUTPUTS : 1;
            }
        }
    if (map.activation != LinearActivation::none)
        for (int64_t m = 0; m < map.rows; ++m) apply(map.activation, map.y + m * w.outputs + first, last - first);
}

static int64_t chunks_of(const Weights& w) { return (w.outputs + chunk_of(w) - 1) / chunk_of(w); }

// Independent linear maps in float32, in one parallel region.
static void float_linear(const LinearMap* maps, int count, int threads) {
    struct Shared {
        const LinearMap* maps;
        int count;
        int64_t next;
    } shared{maps, count, 0};
    int64_t products = 0, chunks = 0;
    for (int i = 0; i < count; ++i) {
        products += maps[i].rows * maps[i].of.depth * maps[i].of.outputs;
        chunks += chunks_of(maps[i].of);
    }
    // Starting another thread pays from some hundred thousand multiplications on.
    threads = products < (1 << 17) ? 1 : int(min(threads, chunks));
    parallel(
        threads,
        [](void* data, int, int) {
            Shared& s = *static_cast<Shared*>(data);
            struct Piece {
                const LinearMap* map;  // null: none left
                int64_t first, last;
            };
            auto take = [&] {
                int64_t chunk = __atomic_fetch_add(&s.next, 1, __ATOMIC_RELAXED);
                for (int i = 0; i < s.count; ++i) {
                    const Weights& w = s.maps[i].of;
                    const int64_t some = chunk_of(w), chunks = chunks_of(w);
                    if (chunk < chunks) return Piece{s.maps + i, chunk * some, min((chunk + 1) * some, w.outputs)};
                    chunk -= chunks;
                }
                return Piece{};
            };
            for (Piece piece = take(), next; piece.map; piece = next) {
                next = take();  // takes the next piece first, to prefetch its weights
                Prefetch prefetch;
                if (next.map && next.map->rows > 1) prefetch = weight_rows(next.map->of, next.first, next.last);
                linear_chunk(*piece.map, piece.first, piece.last, prefetch);
            }
        },
        &shared);
}

// At most MAX_MAPS linear maps of the same rows.
constexpr int MAX_MAPS = 3;
static void linear(const LinearMap* maps, int count, int threads) {
    LinearMap floats[MAX_MAPS], ints[MAX_MAPS];
    int float_count = 0, int_count = 0;
    for (int i = 0; i < count; ++i) (maps[i].of.codes ? ints[int_count++] : floats[float_count++]) = maps[i];
    if (float_count) float_linear(floats, float_count, threads);
    if (int_count) int8_table().linear(ints, int_count, threads);
}

}  // namespace regard::REGARD_ISA
