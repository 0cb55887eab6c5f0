// The products of attention by whole numbers: those of floats, taken by tiles of digits wherever both sides have them. Weights
// and the gradients of scores below 2^-100 count as far as they have digits.
#pragma once

#include "digits.hpp"
#include "products.hpp"

namespace regard::REGARD_ISA {

#if !defined(REGARD_DIGITS)

constexpr bool HAS_DIGITS = false;
struct DigitProducts {};

#else

constexpr bool HAS_DIGITS = true;
constexpr int SUMS = 4;  // with three, gradients that are long sums went beyond the error of floats now and then

// C (rows x columns) = or += A (rows x depth) B (depth x columns), A's rows from `first` on, as far as the last one's group.
template <bool ADD>
static void product_of_digits(int64_t first, int64_t last, int64_t columns, int64_t depth, const Digits& left, const Digits& right,
                              int64_t right_column, float* c, int64_t c_row) {
    const int64_t chunks = (depth + QUADS - 1) / QUADS, group = chunks * DIGITS * TILE_BYTES, start = first / GROUP * GROUP;
    for_sums<SUMS>(last - start, columns, chunks, GROUP, left.tiles + start / GROUP * group, right.tiles + right_column / GROUP * group,
             [&](int64_t m, int64_t n, const int32_t* sums) {
                 const __m512 of_columns = _mm512_mul_ps(_mm512_loadu_ps(right.scales + right_column + n), _mm512_set1_ps(UNIT));
                 const float* of_rows = left.scales + start + m;
                 const int64_t before = most(0, first - start - m);
                 float* to = c + (start + m + before - first) * c_row + n;
#pragma GCC unroll 4
                 for (int64_t i = before; i < GROUP; ++i, to += c_row) {
                     // Not the scales by each other first: their product may be infinite where this is not.
                     const __m512 found = _mm512_mul_ps(amount<SUMS>(sums + i * GROUP), of_columns), of_row = _mm512_set1_ps(of_rows[i]);
                     _mm512_storeu_ps(to, ADD ? _mm512_fmadd_ps(found, of_row, _mm512_loadu_ps(to)) : _mm512_mul_ps(found, of_row));
                 }
             });
}

// Digits of the panels of a key head, which other blocks of queries need, too: kept by each thread of those it has met.
class Panels {
public:
    // Before any is asked for: forgets what is of another call or head.
    void begin(uint64_t call, int64_t head, int64_t panels, int64_t bytes) {
        if (call == call_ && head == head_) return;
        call_ = call, head_ = head, count_ = least(panels, MOST), bytes_ = round_up(bytes, 64);
        room_.reserve(size_t(count_) * (sizeof(Kept) + size_t(bytes_)) + 64);
        kept_ = room_.take<Kept>(count_);
        tiles_ = room_.take<char>(count_ * bytes_);
        for (int64_t i = 0; i < count_; ++i) kept_[i] = Kept{};
    }
    const Digits* find(int64_t panel) const {  // or null
        const Kept& found = kept_[panel % count_];
        return found.panel == panel ? &found.digits : nullptr;
    }
    char* room(int64_t panel) { return tiles_ + panel % count_ * bytes_; }
    void keep(int64_t panel, const Digits& digits) { kept_[panel % count_] = {panel, digits}; }  // which were made there

private:
    static constexpr int64_t MOST = 512;
    struct Kept {
        int64_t panel = -1;
        Digits digits;
    };
    Scratch room_;
    uint64_t call_ = 0;
    int64_t head_ = -1, count_ = 0, bytes_ = 0;
    Kept* kept_ = nullptr;
    char* tiles_ = nullptr;
};

struct DigitProducts : Products<float, float> {
    static constexpr bool WHOLE = true;
    typedef Products<float, float> Floats;
    enum Side { KEY_ROWS, KEY_COLUMNS, VALUE_ROWS, VALUE_COLUMNS, SIDES };

    // Of a block's queries and incoming gradients, as `Products` has them, and of what is made from scores.
    Digits query_side, query_rows_side, incoming_side, incoming_rows_side, right, left;
    const Digits* sides[SIDES];  // of the panel, as far as they are asked for
    Digits made[SIDES];
    float* room;                 // for keys or values whose numbers are no neighbors
    int64_t b = 0, g = 0;        // of the panel
    TileRegisters registers;

    static size_t bytes(const Problem& p) {
        const int64_t row = round_up(p.dim, GROUP), value_row = round_up(p.value_dim, GROUP);
        return Floats::bytes(p) + Digits::bytes(SIDE, p.dim) + Digits::bytes(row, SIDE) + Digits::bytes(SIDE, p.value_dim) +
               Digits::bytes(value_row, SIDE) + 2 * Digits::bytes(SIDE, SIDE) + sizeof(float) * size_t(SIDE * most(p.dim, p.value_dim)) + 512;
    }

    DigitProducts(const Problem& p, Scratch& scratch) : Floats(p, scratch) {
        const int64_t row = round_up(p.dim, GROUP), value_row = round_up(p.value_dim, GROUP);
        auto take = [&](int64_t rows, int64_t depth) { return Digits(scratch.take<char>(int64_t(Digits::bytes(rows, depth))), rows, depth); };
        query_side = take(SIDE, p.dim), query_rows_side = take(row, SIDE);
        incoming_side = take(SIDE, p.value_dim), incoming_rows_side = take(value_row, SIDE);
        right = take(SIDE, SIDE), left = take(SIDE, SIDE);
        room = scratch.take<float>(SIDE * most(p.dim, p.value_dim));
    }

    void take_queries(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.dim, GROUP);
        Floats::take_queries(block, columns, rows);
        digits_of_columns<false>(columns, SIDE, 0, p.dim, block.padded, nullptr, query_side);
        if (rows) digits_of_columns<false>(rows, row, 0, block.padded, row, nullptr, query_rows_side);
    }
    void take_incoming(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.value_dim, GROUP);
        Floats::take_incoming(block, columns, rows);
        digits_of_columns<false>(columns, SIDE, 0, p.value_dim, block.padded, nullptr, incoming_side);
        digits_of_columns<false>(rows, row, 0, block.padded, row, nullptr, incoming_rows_side);
    }
    void take_keys(int64_t batch, int64_t group, const Panel& panel) {
        b = batch, g = group, sides[KEY_ROWS] = sides[KEY_COLUMNS] = nullptr;
        if (whole_rows(p)) Floats::take_keys(b, g, panel);  // which may be asked for by the number
    }
    void take_values(int64_t batch, int64_t group, const Panel& panel) {
        b = batch, g = group, sides[VALUE_ROWS] = sides[VALUE_COLUMNS] = nullptr;
        if (whole_rows(p)) Floats::take_values(b, g, panel);
    }

    void scores(const Block& block, const Panel& panel, float* to) {
        const Digits& keys = side<KEY_ROWS>(panel);
        if (keys.exact() && query_side.exact()) return by_depth(block, panel, keys, p.dim, query_side, to);
        Floats::take_keys(b, g, panel);
        Floats::scores(block, panel, to);
    }
    void of_weights(const Block& block, const Panel& panel, float* to) {
        const Digits& values = side<VALUE_ROWS>(panel);
        if (values.exact() && incoming_side.exact()) return by_depth(block, panel, values, p.value_dim, incoming_side, to);
        Floats::take_values(b, g, panel);
        Floats::of_weights(block, panel, to);
    }
    void mix(const Block& block, const Panel& panel, const float* weights, float* to) {
        if (by_columns(block, panel, side<VALUE_COLUMNS>(panel), p.value_dim, weights, to)) return;
        Floats::take_values(b, g, panel);
        Floats::mix(block, panel, weights, to);
    }
    void of_queries(const Block& block, const Panel& panel, const float* gradient, float* to) {
        if (by_columns(block, panel, side<KEY_COLUMNS>(panel), p.dim, gradient, to)) return;
        Floats::take_keys(b, g, panel);
        Floats::of_queries(block, panel, gradient, to);
    }
    void of_values(const Block& block, const Panel& panel, const float* weights, float* to, int64_t row) {
        if (!by_rows(block, panel, weights, incoming_rows_side, to, row)) Floats::of_values(block, panel, weights, to, row);
    }
    void of_keys(const Block& block, const Panel& panel, const float* gradient, float* to, int64_t row) {
        if (!by_rows(block, panel, gradient, query_rows_side, to, row)) Floats::of_keys(block, panel, gradient, to, row);
    }

   private:
    static int64_t offset(const Panel& panel) { return panel.start % SIDE; }  // in its digits, which are of all that a tile may see

    template <Side OF>
    const Digits& side(const Panel& panel) {
        if (sides[OF]) return *sides[OF];
        constexpr bool OF_KEYS = OF == KEY_ROWS || OF == KEY_COLUMNS, ROWS = OF == KEY_ROWS || OF == VALUE_ROWS;
        static thread_local Panels kept;
        const int64_t index = panel.start / SIDE, first = index * SIDE, count = least(SIDE, p.columns - first);
        const int64_t width = OF_KEYS ? p.dim : p.value_dim, rows = ROWS ? SIDE : width, depth = ROWS ? width : SIDE;
        kept.begin(p.call, b * p.groups + g, (p.columns + SIDE - 1) / SIDE, int64_t(Digits::bytes(rows, depth)) + SIDE * int64_t(sizeof(float)));
        if (const Digits* found = kept.find(index)) return *(sides[OF] = found);
        const View& view = OF_KEYS ? p.key : p.value;
        const float* from = view.at<float>(b, g) + first * view.row;
        int64_t row = view.row;
        if (view.column != 1) copy_in(from, row, view.column, count, width, room, width), from = room, row = width;
        Digits& to = made[OF] = Digits(kept.room(index), rows, depth);
        if constexpr (ROWS) {
            digits_of_rows(from, row, count, width, to);
        } else {
            to.along = to.scales + round_up(rows, GROUP);
            digits_of_turned(from, row, count, width, to);
        }
        kept.keep(index, to);
        return *(sides[OF] = &to);
    }

    static void by_depth(const Block& block, const Panel& panel, const Digits& left, int64_t depth, const Digits& right, float* to) {
        for_rows(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            product_of_digits<false>(offset(panel) + seen.start, offset(panel) + seen.stop, rows, depth, left, right, r,
                                     to + seen.start * SIDE + r, SIDE);
        });
    }
    // These make digits of what they are given; false where they can't.
    bool by_columns(const Block& block, const Panel& panel, const Digits& turned, int64_t width, const float* with, float* to) {
        if (!turned.exact()) return false;
        const int64_t start = offset(panel), stop = start + panel.stop - panel.start;
        digits_of_columns<true>(with - start * SIDE, SIDE, start, stop, block.padded, turned.along, right);
        if (!right.finite) return false;
        product_of_digits<true>(0, width, block.padded, SIDE, turned, right, 0, to, SIDE);
        return true;
    }
    bool by_rows(const Block& block, const Panel& panel, const float* from, const Digits& with, float* to, int64_t row) {
        if (!with.exact()) return false;
        const int64_t count = panel.stop - panel.start;
        digits_of_rows(from, SIDE, count, block.padded, left);
        if (!left.finite) return false;
        product_of_digits<true>(0, count, row, block.padded, left, with, 0, to, row);
        return true;
    }
};

#endif

}  // namespace regard::REGARD_ISA
