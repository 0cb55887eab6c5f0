// The products of attention by whole numbers: those of floats, taken by tiles of digits where the crests of both sides allow it
// (crest.hpp), and as floats elsewhere. Which way a number goes depends on its own two rows row_limit: a score on its query and its
// key, what a sum over keys or queries adds on the key or query. So no bit depends on what a row does not see. Weights and the
// gradients of scores below 2^-100 count as far as they have digits.
#pragma once

#include "digits.hpp"
#include "products.hpp"
#include "support.hpp"

namespace regard::REGARD_ISA {

#if !defined(REGARD_DIGITS)

constexpr bool HAS_DIGITS = false;
struct DigitProducts {};

#else

constexpr bool HAS_DIGITS = true;

// C (rows x columns) = or += A (rows x depth) B (depth x columns), A's rows from `first` on, as far as the last one's group.
template <bool ADD>
static void product_of_digits(int64_t first, int64_t last, int64_t columns, int64_t depth, const Digits& left, const Digits& right,
                              int64_t right_column, float* c, int64_t c_row) {
    const int64_t chunks = (depth + QUADS - 1) / QUADS, group = chunks * DIGITS * TILE_BYTES, start = first / GROUP * GROUP;
    // With six kinds, gradients that are long sums went beyond the error of floats now and then.
    const auto eight = [](int64_t, int64_t) { return true; };
    for_sums(last - start, columns, chunks, GROUP, left.tiles + start / GROUP * group, right.tiles + right_column / GROUP * group, eight,
             [&](int64_t m, int64_t n, bool, const int32_t* sums) {
                 const __m512 of_columns = _mm512_mul_ps(_mm512_loadu_ps(right.scales + right_column + n), _mm512_set1_ps(UNIT));
                 const float* of_rows = left.scales + start + m;
                 const int64_t before = most(0, first - start - m);
                 float* to = c + (start + m + before - first) * c_row + n;
#pragma GCC unroll 4
                 for (int64_t i = before; i < GROUP; ++i, to += c_row) {
                     // Not the scales by each other first: their product may be infinite where this is not.
                     const __m512 found = _mm512_mul_ps(amount<4>(sums + i * GROUP), of_columns), of_row = _mm512_set1_ps(of_rows[i]);
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
    float* room;                 // for copies of rows
    float* floats;               // of scores that are no products of digits
    const float row_limit, score_limit, weight_limit;  // on crests
    Crests query_crests, incoming_crests;              // of the block's rows
    int64_t b = 0, g = 0;        // of the panel
    TileRegisters registers;

    static size_t bytes(const Problem& p) {
        const int64_t row = round_up(p.dim, GROUP), value_row = round_up(p.value_dim, GROUP);
        return Floats::bytes(p) + Digits::bytes(SIDE, p.dim) + Digits::bytes(row, SIDE) + Digits::bytes(SIDE, p.value_dim) +
               Digits::bytes(value_row, SIDE) + 2 * Digits::bytes(SIDE, SIDE) +
               sizeof(float) * size_t(SIDE * (most(row, value_row) + SIDE + 2)) + 1024;
    }

    DigitProducts(const Problem& p, Scratch& scratch)
        : Floats(p, scratch), row_limit(p.relaxed ? NO_LIMIT : ROW_LIMIT), score_limit(limit(p.dim, PAIR_LIMIT, p.relaxed)),
          weight_limit(limit(p.value_dim, PAIR_LIMIT, p.relaxed)) {
        const int64_t row = round_up(p.dim, GROUP), value_row = round_up(p.value_dim, GROUP);
        auto take = [&](int64_t rows, int64_t depth) { return Digits(scratch.take<char>(int64_t(Digits::bytes(rows, depth))), rows, depth); };
        query_side = take(SIDE, p.dim), query_rows_side = take(row, SIDE);
        incoming_side = take(SIDE, p.value_dim), incoming_rows_side = take(value_row, SIDE);
        right = take(SIDE, SIDE), left = take(SIDE, SIDE);
        query_rows_side.along = scratch.take<float>(SIDE), incoming_rows_side.along = scratch.take<float>(SIDE);
        room = scratch.take<float>(SIDE * most(row, value_row));
        floats = scratch.take<float>(SIDE * SIDE);
    }

    void take_queries(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.dim, GROUP);
        Floats::take_queries(block, columns, rows);
        digits_of_columns<false, true>(columns, SIDE, 0, p.dim, block.padded, nullptr, query_side);
        query_crests = Crests::of(query_side.crests, block.count);
        if (rows) digits_of_scaled_rows(rows, row, block.padded, row, query_side, row_limit, room, query_rows_side);
    }
    void take_incoming(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.value_dim, GROUP);
        Floats::take_incoming(block, columns, rows);
        digits_of_columns<false, true>(columns, SIDE, 0, p.value_dim, block.padded, nullptr, incoming_side);
        incoming_crests = Crests::of(incoming_side.crests, block.count);
        digits_of_scaled_rows(rows, row, block.padded, row, incoming_side, row_limit, room, incoming_rows_side);
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
        auto keys = [&]() -> const Rows<float>& { return Floats::take_keys(b, g, panel), key; };
        if (!by_depth(block, panel, side<KEY_ROWS>(panel), query_side, query_crests, p.dim, score_limit, keys, query, to)) {
            keys();
            Floats::scores(block, panel, to);
        }
    }
    void of_weights(const Block& block, const Panel& panel, float* to) {
        auto values = [&]() -> const Rows<float>& { return Floats::take_values(b, g, panel), value; };
        if (!by_depth(block, panel, side<VALUE_ROWS>(panel), incoming_side, incoming_crests, p.value_dim, weight_limit, values, incoming, to)) {
            values();
            Floats::of_weights(block, panel, to);
        }
    }
    void mix(const Block& block, const Panel& panel, const float* weights, float* to) {
        auto values = [&]() -> const Rows<float>& { return Floats::take_values(b, g, panel), value; };
        if (!by_columns(block, panel, side<VALUE_COLUMNS>(panel), p.value_dim, values, weights, to)) {
            values();
            Floats::mix(block, panel, weights, to);
        }
    }
    void of_queries(const Block& block, const Panel& panel, const float* gradient, float* to) {
        auto keys = [&]() -> const Rows<float>& { return Floats::take_keys(b, g, panel), key; };
        if (!by_columns(block, panel, side<KEY_COLUMNS>(panel), p.dim, keys, gradient, to)) {
            keys();
            Floats::of_queries(block, panel, gradient, to);
        }
    }
    void of_values(const Block& block, const Panel& panel, const float* weights, float* to, int64_t row) {
        if (!by_rows(block, panel, weights, incoming_rows_side, incoming_rows, to, row))
            Floats::of_values(block, panel, weights, to, row);
    }
    void of_keys(const Block& block, const Panel& panel, const float* gradient, float* to, int64_t row) {
        if (!by_rows(block, panel, gradient, query_rows_side, query_rows, to, row)) Floats::of_keys(block, panel, gradient, to, row);
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
        const int64_t more = ROWS ? 0 : 2 * SIDE * int64_t(sizeof(float)) + most_faint(width) * int64_t(sizeof(Faint));
        kept.begin(p.call, b * p.groups + g, (p.columns + SIDE - 1) / SIDE, int64_t(Digits::bytes(rows, depth)) + more);
        if (const Digits* found = kept.find(index)) return *(sides[OF] = found);
        const View& view = OF_KEYS ? p.key : p.value;
        const float* from = view.at<float>(b, g) + first * view.row;
        int64_t row = view.row;
        if (view.column != 1) copy_in(from, row, view.column, count, width, room, width), from = room, row = width;
        Digits& to = made[OF] = Digits(kept.room(index), rows, depth);
        if constexpr (ROWS) {
            digits_of_rows(from, row, count, width, to);
        } else {
            to.along = to.crests + round_up(rows, GROUP), to.crests = to.along + SIDE;
            to.faint = reinterpret_cast<Faint*>(to.crests + SIDE);
            digits_of_turned(from, row, count, width, row_limit, p.relaxed, to);
        }
        kept.keep(index, to);
        return *(sides[OF] = &to);
    }

    // False, and nothing done, where no product is by digits.
    template <typename Take>
    bool by_depth(const Block& block, const Panel& panel, const Digits& left, const Digits& right, const Crests& of_columns, int64_t depth, float limit,
                  const Take& take, const float* columns, float* to) {
        constexpr float ROUNDING = 1e-3f;  // no less than that of a sum of crests: a row too many does no harm
        const int64_t count = panel.stop - panel.start;
        const float* crests = left.crests + offset(panel);
        const uint64_t all_rows = ones(0, count), apart = beyond(crests, count, limit - of_columns.most - ROUNDING);
        if (apart == all_rows && beyond(crests, count, limit - of_columns.least + ROUNDING) == all_rows) return false;
        for_rows(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            product_of_digits<false>(offset(panel) + seen.start, offset(panel) + seen.stop, rows, depth, left, right, r,
                                     to + seen.start * SIDE + r, SIDE);
        });
        if (!apart) return true;
        const Rows<float>& rows = take();
        for_runs(apart, [&](int64_t first, int64_t some) {
            product<float, false>(some, block.padded, depth, rows.data + first * rows.row, rows.row, rows.column, columns, SIDE, floats, SIDE);
            for (int64_t i = 0; i < some; ++i)
                for (int64_t r = 0; r < block.padded; r += GROUP) {
                    const __m512 both = _mm512_add_ps(_mm512_set1_ps(crests[first + i]), _mm512_loadu_ps(right.crests + r));
                    _mm512_mask_storeu_ps(to + (first + i) * SIDE + r, _mm512_cmp_ps_mask(both, _mm512_set1_ps(limit), _CMP_GT_OQ),
                                          _mm512_loadu_ps(floats + i * SIDE + r));
                }
        });
        return true;
    }
    // These make digits of what they are given, but for what is apart. False, and nothing done, where that is all.
    template <typename Take>
    bool by_columns(const Block& block, const Panel& panel, const Digits& turned, int64_t width, const Take& take, const float* with, float* to) {
        const int64_t start = offset(panel), count = panel.stop - panel.start;
        const uint64_t apart = turned.apart >> start & ones(0, count);
        if (apart == ones(0, count)) return false;
        digits_of_columns<true, false>(with - start * SIDE, SIDE, start, start + count, block.padded, turned.along, right);
        if (!right.finite) return false;
        product_of_digits<true>(0, width, block.padded, SIDE, turned, right, 0, to, SIDE);
        for (int64_t i = 0; i < turned.faint_count; ++i) {
            const Faint& x = turned.faint[i];
            if (x.row < start || x.row >= start + count) continue;
            float* sums = to + x.column * SIDE;
            const float* numbers = with + (x.row - start) * SIDE;
            if (block.padded == SIDE) add_scaled(sums, numbers, SIDE, x.number);
            else add_scaled(sums, numbers, block.padded, x.number);
        }
        if (!apart) return true;
        const Rows<float>& rows = take();
        for_runs(apart, [&](int64_t first, int64_t some) {
            product<float, true>(width, block.padded, some, rows.data + first * rows.row, rows.column, rows.row, with + first * SIDE, SIDE, to, SIDE);
        });
        return true;
    }
    bool by_rows(const Block& block, const Panel& panel, const float* from, const Digits& with, const float* rows, float* to, int64_t row) {
        const int64_t count = panel.stop - panel.start;
        const uint64_t everyone = ones(0, block.count), apart = with.apart & everyone;
        if (apart == everyone) return false;
        digits_of_weighed_rows(from, SIDE, count, block.padded, with.along, left);
        if (!left.finite) return false;
        product_of_digits<true>(0, count, row, block.padded, left, with, 0, to, row);
        for_runs(apart, [&](int64_t first, int64_t some) {
            product<float, true>(count, row, some, from + first, SIDE, 1, rows + first * row, row, to, row);
        });
        return true;
    }
};

#endif

}  // namespace regard::REGARD_ISA
