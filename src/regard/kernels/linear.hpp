// A linear map of a few rows, x W^T + b, as decoding has them: W is read once, where it lies. Both sides are read along the
// features, and a sum's lanes are added at its end; so each number is the same whatever rows stand beside it.
#pragma once

#include "memory.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int DOT_ROWS = 6;  // by 4 outputs: 24 sums, 4 weights and a row's numbers in 32 registers
#else
constexpr int DOT_ROWS = 2;
#endif
constexpr int DOT_OUTPUTS = 4;
constexpr int64_t DOT_DEPTH = 1024;   // features at a time: some rows of both sides stay in the first-level cache
constexpr int64_t DOT_CHUNK = 32;     // outputs that a thread takes at once: their weights stay in its second-level cache

// Adds the products of M rows and N rows of weights to y.
template <int M, int N>
static inline void dot_tile(int64_t depth, const float* __restrict x, int64_t x_row, const float* __restrict w, int64_t w_row,
                            float* __restrict y, int64_t y_row) {
    constexpr int W = LANES<float>;
    constexpr int ALL = (M * N + W - 1) / W * W;
    Vec<float> sum[ALL];
#pragma GCC unroll 32
    for (int i = 0; i < ALL; ++i) sum[i] = Vec<float>{};
    const int64_t whole = depth / W * W;
    for (int64_t k = 0; k < whole; k += W) {
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
            float found[W] = {};
            for (int64_t k = whole; k < depth; ++k) found[k - whole] = from[k];
            return load(found);
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
    float found[ALL];
#pragma GCC unroll 8
    for (int i = 0; i < ALL; i += W) store(found + i, totals<float>(sum + i));
    for (int m = 0; m < M; ++m)
        for (int n = 0; n < N; ++n) y[m * y_row + n] += found[m * N + n];
}

constexpr int at_most(int rows) { return rows < DOT_ROWS ? rows : DOT_ROWS; }

template <int N>
static void dot_rows(int64_t rows, int64_t depth, const float* x, int64_t x_row, const float* w, int64_t w_row, float* y,
                     int64_t y_row) {
    switch (rows) {
        case 1: return dot_tile<1, N>(depth, x, x_row, w, w_row, y, y_row);
        case 2: return dot_tile<2, N>(depth, x, x_row, w, w_row, y, y_row);
        case 3: return dot_tile<at_most(3), N>(depth, x, x_row, w, w_row, y, y_row);
        case 4: return dot_tile<at_most(4), N>(depth, x, x_row, w, w_row, y, y_row);
        case 5: return dot_tile<at_most(5), N>(depth, x, x_row, w, w_row, y, y_row);
        default: return dot_tile<DOT_ROWS, N>(depth, x, x_row, w, w_row, y, y_row);
    }
}

// Some outputs, from `first` to before `last`; meanwhile the weights of `next` outputs come into the second-level cache.
static void linear_chunk(const LinearMap& map, int64_t first, int64_t last, const float* next, int64_t next_rows) {
    constexpr int64_t LINE = 16;  // floats
    const int64_t lines = (map.depth + LINE - 1) / LINE, tiles = (map.rows + DOT_ROWS - 1) / DOT_ROWS;
    const int64_t steps = tiles * ((last - first + DOT_OUTPUTS - 1) / DOT_OUTPUTS) * ((map.depth + DOT_DEPTH - 1) / DOT_DEPTH);
    const int64_t share = (next_rows * lines + steps - 1) / steps;
    int64_t row = 0, line = 0;
    auto fetch = [&] {
        for (int64_t i = 0; i < share && row < next_rows; ++i) {
            __builtin_prefetch(next + row * map.weight_row + line * LINE, 0, 2);
            if (++line == lines) line = 0, ++row;
        }
    };
    for (int64_t m = 0; m < map.rows; ++m)
        for (int64_t n = first; n < last; ++n) map.y[m * map.outputs + n] = map.bias ? map.bias[n] : 0.0f;
    for (int64_t k = 0; k < map.depth; k += DOT_DEPTH)
        for (int64_t m = 0; m < map.rows; m += DOT_ROWS) {
            const int64_t rows = least(DOT_ROWS, map.rows - m), depth = least(DOT_DEPTH, map.depth - k);
            const float* x = map.x + m * map.x_row + k;
            float* y = map.y + m * map.outputs;
            int64_t n = first;
            for (; n + DOT_OUTPUTS <= last; n += DOT_OUTPUTS) {
                fetch();
                dot_rows<DOT_OUTPUTS>(rows, depth, x, map.x_row, map.weight + n * map.weight_row + k, map.weight_row, y + n,
                                      map.outputs);
            }
            for (; n < last; ++n)
                dot_rows<1>(rows, depth, x, map.x_row, map.weight + n * map.weight_row + k, map.weight_row, y + n, map.outputs);
        }
}

// y (rows x outputs) = x (rows x depth) W^T + b; b may be null.
static void linear(const LinearMap& map) {
    struct Shared {
        const LinearMap& map;
        int64_t chunks, next;
    } shared{map, (map.outputs + DOT_CHUNK - 1) / DOT_CHUNK, 0};
    // Waking another thread pays for some tens of thousands of products.
    const int threads = map.rows * map.depth * map.outputs < (1 << 17) ? 1 : int(least(map.threads, shared.chunks));
    parallel(
        threads,
        [](void* data, int, int) {
            Shared& s = *static_cast<Shared*>(data);
            const LinearMap& map = s.map;
            auto take = [&] { return __atomic_fetch_add(&s.next, 1, __ATOMIC_RELAXED); };
            auto end = [&](int64_t chunk) { return least((chunk + 1) * DOT_CHUNK, map.outputs); };
            for (int64_t chunk = take(), next; chunk < s.chunks; chunk = next) {
                next = take();  // a thread knows its next chunk before this one is done
                const int64_t rows = next < s.chunks && map.rows > 1 ? end(next) - next * DOT_CHUNK : 0;
                linear_chunk(map, chunk * DOT_CHUNK, end(chunk), map.weight + next * DOT_CHUNK * map.weight_row, rows);
            }
        },
        &shared);
}

}  // namespace regard::REGARD_ISA
