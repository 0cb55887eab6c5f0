// Products with sparse weights, as sparsemax and entmax produce them: entry by entry over the nonzeros. Sums add the same
// numbers in the same order as dense products, so results are bitwise equal; only `sparse_dots` add in another order.
#pragma once

#include "attention/tile.hpp"

namespace regard::REGARD_ISA {

// At most one in MIN_SPARSITY visible weights of a row may be nonzero for sparse products to be faster.
constexpr int64_t MIN_SPARSITY = 8;

// Bit set of the rows with a nonzero in a column.
template <typename T>
REGARD_INLINE uint64_t nonzero_rows(const Block& block, const T* column) {
    uint64_t rows = 0;
    for (int64_t r = 0; r < block.padded; r += LANES<T>) rows |= lane_bits<T>(load(column + r) != T(0)) << r;
    return rows & bit_range(0, block.count);
}

// Positions of a panel's nonzeros, column by column.
struct Nonzeros {
    int64_t count;
    uint16_t indices[SIDE * SIDE];

    template <typename T>
    const Nonzeros& find(const Block& block, const Panel& panel, const T* columns, uint64_t rows = ~uint64_t(0)) {
        count = 0;
        for (int64_t i = 0; i < panel.stop - panel.start; ++i)
            for (uint64_t bits = nonzero_rows(block, columns + i * SIDE) & rows; bits; bits &= bits - 1)
                indices[count++] = uint16_t(i * SIDE + __builtin_ctzll(bits));
        return *this;
    }
    int64_t column(int64_t n) const { return indices[n] / SIDE; }
    int64_t row(int64_t n) const { return indices[n] % SIDE; }
};

// to += factor * from.
template <typename T>
REGARD_INLINE void add_scaled(T* to, const T* from, int64_t count, T factor) {
    constexpr int W = LANES<T>;
    int64_t i = 0;
    for (; i + W <= count; i += W) store(to + i, load(to + i) + factor * load(from + i));
    for (; i < count; ++i) to[i] += factor * from[i];
}

// Rows of `to` += each listed number times its row of keys or values.
template <typename T>
static void add_sparse_product(const Nonzeros& positions, const T* numbers, const Rows<T>& from, int64_t count, T* to, int64_t row) {
    for (int64_t n = 0; n < positions.count; ++n)
        add_scaled(to + positions.row(n) * row, from.data + positions.column(n) * from.row, count, numbers[positions.indices[n]]);
}

// Calls `put(n, product)` with the dot product of the column and the row (`count` numbers each) of each position.
template <typename T, typename Positions, typename Put>
static void sparse_dots(const Positions& positions, const Rows<T>& columns, const T* rows, int64_t row, int64_t count, const Put& put) {
    constexpr int W = LANES<T>;
    const int64_t whole = count / W * W;
    for (int64_t n = 0; n < positions.count; n += W) {
        const int64_t some = min(W, positions.count - n);
        Vec<T> sums[W] = {};
        T rest[W] = {};
        for (int64_t j = 0; j < some; ++j) {
            const T *a = columns.data + positions.column(n + j) * columns.row, *b = rows + positions.row(n + j) * row;
            Vec<T> sum{};
            for (int64_t k = 0; k < whole; k += W) sum += load(a + k) * load(b + k);
            for (int64_t k = whole; k < count; ++k) rest[j] += a[k] * b[k];
            sums[j] = sum;
        }
        T products[W];
        store(products, lane_sums<T>(sums) + load(rest));
        for (int64_t j = 0; j < some; ++j) put(n + j, products[j]);
    }
}

// Counts, for each row of a block, of its visible columns and of its nonzero weights.
template <typename T>
struct SupportCount {
    T visible_count[SIDE] = {}, nonzero_count[SIDE] = {};

    void add(const Block& block, const Panel& panel, const T* weights) {
        for (int64_t r = 0; r < block.padded; r += LANES<T>) {
            Vec<T> visible_sum = load(visible_count + r), nonzero_sum = load(nonzero_count + r);
            for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
                const Ints<T> visible = panel.kind == TileKind::full ? Ints<T>{} == 0 : mask_from_bits<T>(panel.rows[i] >> r);
                visible_sum += visible ? broadcast(T(1)) : Vec<T>{};
                nonzero_sum += load(weights + i * SIDE + r) != T(0) ? broadcast(T(1)) : Vec<T>{};
            }
            store(visible_count + r, visible_sum), store(nonzero_count + r, nonzero_sum);
        }
    }

    // Whether a row is sparse depends on that row alone, so results do not depend on the rows beside it.
    uint64_t sparse_rows() const {  // bit set of sparse rows
        uint64_t rows = 0;
        for (int64_t r = 0; r < SIDE; ++r) rows |= uint64_t(nonzero_count[r] * MIN_SPARSITY <= visible_count[r]) << r;
        return rows;
    }
    bool all_sparse(const Block& block) const { return !(~sparse_rows() & bit_range(0, block.count)); }
};

}  // namespace regard::REGARD_ISA
