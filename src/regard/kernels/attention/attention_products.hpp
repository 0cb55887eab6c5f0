// The five matrix products of attention for a panel of keys and values. All product kinds have the same members: `Products`
// multiplies floats, `Bf16Products` bf16 pairs, `Int8SplitProducts` (int8_split_attention.hpp) int8 splits.
#pragma once

#include "gemm/bf16_dot.hpp"

namespace regard::REGARD_ISA {

// Matrix products of a panel in T, with keys and values of type In.
template <typename In, typename T>
struct Products {
    static constexpr bool BF16 = false;
    static constexpr bool ZERO_FILL = false;  // whether products read weights of columns that a step of rows does not see
    const Problem& p;
    T *key_room, *value_room;  // copies of keys and values that cannot be read in place
    // Queries, and output gradients in the backward pass, of a block: transposed, and by rows.
    const T *query = nullptr, *incoming = nullptr, *query_rows = nullptr, *incoming_rows = nullptr;
    Rows<T> key{}, value{};  // of the panel
    PrefetchQueue prefetches;         // matrices to prefetch during the products

    static size_t bytes(const Problem& p) { return sizeof(T) * size_t(SIDE * (p.dim + p.value_dim)) + 128; }

    Products(const Problem& p, Scratch& scratch)
        : p(p), key_room(scratch.take<T>(SIDE * p.dim)), value_room(scratch.take<T>(SIDE * p.value_dim)) {}

    T factor() const { return T(p.scale); }         // scale multiplied into the queries
    void apply_scale_remainder(int64_t, T*) const {}              // remaining factor of the scale, on scores or their gradients

    void take_queries(const Block&, const T* columns, const T* rows) { query = columns, query_rows = rows; }
    void take_incoming(const Block&, const T* columns, const T* rows) { incoming = columns, incoming_rows = rows; }
    void take_keys(int64_t b, int64_t g, const Panel& panel) {
        key = rows_of<In>(p.key, b, g, panel, p.dim, needs_full_rows(p), key_room);
        prefetch<In>(p.key, b, g, panel.next, p.columns, p.dim);
    }
    void take_values(int64_t b, int64_t g, const Panel& panel) {
        value = rows_of<In>(p.value, b, g, panel, p.value_dim, needs_full_rows(p), value_room);
        prefetch<In>(p.value, b, g, panel.next, p.columns, p.value_dim);
    }
    // Queues rows of a tensor, from `first` on, for prefetching.
    template <typename Any>
    void prefetch(const View& x, int64_t b, int64_t h, int64_t first, int64_t count, int64_t width) {
        constexpr int64_t BYTES_OF = int64_t(sizeof(Any));
        if (first < count && x.column == 1)
            prefetches.add({x.at<Any>(b, h) + first * x.row, min(SIDE, count - first), x.row * BYTES_OF, width * BYTES_OF});
    }

    // Scores K Q^T (columns x padded rows), and gradients of the weights V dO^T; entries that no row of a step sees are left
    // unwritten.
    void scores(const Block& block, const Panel& panel, T* to) { by_depth(block, panel, key, p.dim, query, to); }
    void of_weights(const Block& block, const Panel& panel, T* to) {
        by_depth(block, panel, value, p.value_dim, incoming, to);
    }
    // Transposed output += V^T P^T, and gradients of the queries += K^T dS^T.
    void mix(const Block& block, const Panel& panel, const T* weights, T* to) {
        by_columns(block, panel, value, p.value_dim, weights, to);
    }
    void of_queries(const Block& block, const Panel& panel, const T* gradient, T* to) {
        by_columns(block, panel, key, p.dim, gradient, to);
    }
    // Gradients of the values += P^T dO and of the keys += dS^T Q, by rows.
    void of_values(const Block& block, const Panel& panel, const T* weights, T* to, int64_t row) {
        by_rows(block, panel, weights, incoming_rows, to, row);
    }
    void of_keys(const Block& block, const Panel& panel, const T* gradient, T* to, int64_t row) {
        by_rows(block, panel, gradient, query_rows, to, row);
    }

   private:
    void by_depth(const Block& block, const Panel& panel, const Rows<T>& left, int64_t depth, const T* right, T* to) {
        for_steps(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            product<T, false>(seen.stop - seen.start, rows, depth, left.data + seen.start * left.row, left.row, left.column,
                              right + r, SIDE, to + seen.start * SIDE + r, SIDE, &prefetches);
        });
    }
    void by_columns(const Block& block, const Panel& panel, const Rows<T>& left, int64_t width, const T* right, T* to) {
        DepthSegment segments[MAX_SEGMENTS];
        int64_t count = 0;
        bool disjoint = SIDE == WIDE * LANES<T> && block.padded == SIDE;
        for_steps(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            if (count > 0) disjoint &= segments[count - 1].stop <= seen.start;
            segments[count++] = {r, rows, seen.start, seen.stop};
        });
        if (disjoint && count > 1)
            return segmented_product(width, segments, count, left.data, left.column, left.row, right, SIDE, to, SIDE);
        for (int64_t s = 0; s < count; ++s) {
            const auto [r, rows, start, stop] = segments[s];
            product<T, true>(width, rows, stop - start, left.data + start * left.row, left.column, left.row,
                             right + start * SIDE + r, SIDE, to + r, SIDE, &prefetches);
        }
    }
    void by_rows(const Block& block, const Panel& panel, const T* left, const T* right, T* to, int64_t row) {
        for_columns(block, panel, [&](int64_t i, int64_t columns, Span seen) {
            product<T, true>(columns, row, seen.stop - seen.start, left + i * SIDE + seen.start, SIDE, 1,
                             right + seen.start * row, row, to + i * row, row, &prefetches);
        });
    }
};

#if defined(__AVX512BF16__)

// Products in bf16 with float32 sums; weights and score gradients are rounded to bf16 first.
struct Bf16Products {
    static constexpr bool BF16 = true, ZERO_FILL = true;
    const Problem& p;
    const int64_t dim, value_dim;  // padded
    float scale_power = 1, scale_remainder = 1;     // the scale as a power of two, which rounds no query, times a remainder
    Bfloat *key_room, *value_room, *left, *right;
    Bfloat *query, *incoming, *query_rows, *incoming_rows;
    Rows<Bfloat> key{}, value{};
    TileRegisters registers;

    static size_t bytes(const Problem& p) {
        const int64_t dim = round_up(p.dim, BF16_TILE_DEPTH), value_dim = round_up(p.value_dim, BF16_TILE_DEPTH);
        return sizeof(Bfloat) * size_t(SIDE * (3 * (dim + value_dim) + max(max(dim, value_dim), SIDE) + SIDE)) + 1024;
    }

    Bf16Products(const Problem& p, Scratch& scratch)
        : p(p), dim(round_up(p.dim, BF16_TILE_DEPTH)), value_dim(round_up(p.value_dim, BF16_TILE_DEPTH)) {
        auto take = [&](int64_t columns) { return scratch.take<Bfloat>(SIDE * columns); };
        key_room = take(dim), value_room = take(value_dim);
        query = take(dim), query_rows = take(dim), incoming = take(value_dim), incoming_rows = take(value_dim);
        left = take(max(max(dim, value_dim), SIDE)), right = take(SIDE);
        int exponent = 0;
        if (frexp(p.scale, &exponent) != 0 && isfinite(p.scale) && exponent > -100 && exponent < 100)
            scale_power = float(ldexp(1.0, exponent - 1));
        scale_remainder = float(p.scale / scale_power);
    }

    float factor() const { return scale_power; }
    void apply_scale_remainder(int64_t count, float* scores) const {
        if (scale_remainder != 1)
            for (int64_t i = 0; i < count * SIDE; ++i) scores[i] *= scale_remainder;
    }

    void take_queries(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.dim, TILE_ROWS);
        to_vnni(columns, SIDE, p.dim, block.padded, query, 2 * SIDE);
        if (rows) to_vnni(rows, row, block.padded, row, query_rows, 2 * dim);
    }
    void take_incoming(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.value_dim, TILE_ROWS);
        to_vnni(columns, SIDE, p.value_dim, block.padded, incoming, 2 * SIDE);
        to_vnni(rows, row, block.padded, row, incoming_rows, 2 * value_dim);
    }
    void take_keys(int64_t b, int64_t g, const Panel& panel) { key = to_bf16(p.key, b, g, panel, p.dim, key_room); }
    void take_values(int64_t b, int64_t g, const Panel& panel) {
        value = to_bf16(p.value, b, g, panel, p.value_dim, value_room);
    }

    void scores(const Block& block, const Panel& panel, float* to) const {
        by_depth(block, panel, key, dim, query, to);
        apply_scale_remainder(panel.stop - panel.start, to);
    }
    void of_weights(const Block& block, const Panel& panel, float* to) const {
        by_depth(block, panel, value, value_dim, incoming, to);
    }
    void mix(const Block& block, const Panel& panel, const float* weights, float* to) const {
        by_columns(block, panel, value, p.value_dim, weights, to);
    }
    void of_queries(const Block& block, const Panel& panel, const float* gradient, float* to) const {
        by_columns(block, panel, key, p.dim, gradient, to);
    }
    void of_values(const Block& block, const Panel& panel, const float* weights, float* to, int64_t row) const {
        by_rows(block, panel, weights, incoming_rows, 2 * value_dim, to, row);
    }
    void of_keys(const Block& block, const Panel& panel, const float* gradient, float* to, int64_t row) const {
        by_rows(block, panel, gradient, query_rows, 2 * dim, to, row);
    }

   private:
    static void by_depth(const Block& block, const Panel& panel, const Rows<Bfloat>& left, int64_t depth, const Bfloat* right,
                         float* to) {
        for_rows(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            const int64_t first = seen.start / TILE_ROWS * TILE_ROWS;
            bf16_product<false>(round_up(seen.stop - first, TILE_ROWS), rows, depth, left.data + first * left.row, left.row,
                                    right + 2 * r, 2 * SIDE, to + first * SIDE + r, SIDE);
        });
    }
    void by_columns(const Block& block, const Panel& panel, const Rows<Bfloat>& rows, int64_t width, const float* with,
                    float* to) const {
        const int64_t count = panel.stop - panel.start;
        to_vnni(with, SIDE, count, block.padded, right, 2 * SIDE);
        turned(rows, count, width, left);
        bf16_product<true>(round_up(width, TILE_ROWS), block.padded, round_up(count, BF16_TILE_DEPTH), left, SIDE, right, 2 * SIDE, to,
                               SIDE);
    }
    void by_rows(const Block& block, const Panel& panel, const float* from, const Bfloat* vnni, int64_t vnni_row, float* to,
                 int64_t row) const {
        const int64_t count = panel.stop - panel.start;
        to_bf16(from, count, block.padded, left);
        bf16_product<true>(round_up(count, TILE_ROWS), row, round_up(block.padded, BF16_TILE_DEPTH), left, SIDE, vnni, vnni_row, to,
                               row);
    }
};

#else

struct Bf16Products {};

#endif

}  // namespace regard::REGARD_ISA
