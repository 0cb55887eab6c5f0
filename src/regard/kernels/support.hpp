// Products with a panel's weights where almost all are 0, as sparsemax and entmax leave them: number by number of those that
// are not. Sums come out as those of the whole product, which adds zeros in between; only `dots` add in another order.
#pragma once

#include "tile.hpp"

namespace regard::REGARD_ISA {

// One in so many weights of a row may be above 0, for these products to be faster.
constexpr int64_t SCARCE = 8;

// The rows of a block whose numbers in a column are not 0, a bit each.
template <typename T>
REGARD_INLINE uint64_t support_of(const Block& block, const T* column) {
    uint64_t found = 0;
    for (int64_t r = 0; r < block.padded; r += LANES<T>) found |= bits_of<T>(load(column + r) != T(0)) << r;
    return found & ones(0, block.count);
}

// Where a panel's numbers are not 0, column by column.
struct Nonzeros {
    int64_t count;
    uint16_t at[SIDE * SIDE];

    template <typename T>
    const Nonzeros& find(const Block& block, const Panel& panel, const T* columns, uint64_t rows = ~uint64_t(0)) {
        count = 0;
        for (int64_t i = 0; i < panel.stop - panel.start; ++i)
            for (uint64_t found = support_of(block, columns + i * SIDE) & rows; found; found &= found - 1)
                at[count++] = uint16_t(i * SIDE + __builtin_ctzll(found));
        return *this;
    }
    int64_t column(int64_t n) const { return at[n] / SIDE; }
    int64_t row(int64_t n) const { return at[n] % SIDE; }
};

template <typename T>
REGARD_INLINE void add_scaled(T* to, const T* from, int64_t count, T factor) {
    constexpr int W = LANES<T>;
    int64_t i = 0;
    for (; i + W <= count; i += W) store(to + i, load(to + i) + factor * load(from + i));
    for (; i < count; ++i) to[i] += factor * from[i];
}

// Rows `to` += the numbers at these places times rows of keys or values.
template <typename T>
static void add_scarce(const Nonzeros& places, const T* numbers, const Rows<T>& from, int64_t count, T* to, int64_t row) {
    for (int64_t n = 0; n < places.count; ++n)
        add_scaled(to + places.row(n) * row, from.data + places.column(n) * from.row, count, numbers[places.at[n]]);
}

// Gives `put` the number of each place, and the product of its column and its row (of `count` numbers).
template <typename T, typename Places, typename Put>
static void dots(const Places& places, const Rows<T>& columns, const T* rows, int64_t row, int64_t count, const Put& put) {
    constexpr int W = LANES<T>;
    const int64_t whole = count / W * W;
    for (int64_t n = 0; n < places.count; n += W) {
        const int64_t some = least(W, places.count - n);
        Vec<T> sums[W] = {};
        T rest[W] = {};
        for (int64_t j = 0; j < some; ++j) {
            const T *a = columns.data + places.column(n + j) * columns.row, *b = rows + places.row(n + j) * row;
            Vec<T> sum{};
            for (int64_t k = 0; k < whole; k += W) sum += load(a + k) * load(b + k);
            for (int64_t k = whole; k < count; ++k) rest[j] += a[k] * b[k];
            sums[j] = sum;
        }
        T found[W];
        store(found, totals<T>(sums) + load(rest));
        for (int64_t j = 0; j < some; ++j) put(n + j, found[j]);
    }
}

// How many columns each row of a block sees, and how many of them it weighs.
template <typename T>
struct Support {
    T seen[SIDE] = {}, weighed[SIDE] = {};

    void add(const Block& block, const Panel& panel, const T* weights) {
        for (int64_t r = 0; r < block.padded; r += LANES<T>) {
            Vec<T> sees = load(seen + r), weighs = load(weighed + r);
            for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
                const Ints<T> visible = panel.sight == Sight::full ? Ints<T>{} == 0 : spread<T>(panel.rows[i] >> r);
                sees += visible ? all(T(1)) : Vec<T>{};
                weighs += load(weights + i * SIDE + r) != T(0) ? all(T(1)) : Vec<T>{};
            }
            store(seen + r, sees), store(weighed + r, weighs);
        }
    }

    // A row is one of these or not by itself, so that it does not notice those beside it.
    uint64_t scarce() const {  // the rows that weigh few
        uint64_t found = 0;
        for (int64_t r = 0; r < SIDE; ++r) found |= uint64_t(weighed[r] * SCARCE <= seen[r]) << r;
        return found;
    }
    bool all_scarce(const Block& block) const { return !(~scarce() & ones(0, block.count)); }
};

}  // namespace regard::REGARD_ISA
