// The matrix products of attention by int8 splits, where the peak ratios of both operands allow it (peak_ratio.hpp), and by
// floats elsewhere. The choice for a number depends only on its own two rows: for a score on its query and its key, for the
// terms of a sum over keys or queries on the key or query. So no bit depends on entries that a row does not see. Weights and
// score gradients below 2^-100 keep only the bits that their slices hold.
#pragma once

#include "gemm/int8_split.hpp"
#include "attention/attention_products.hpp"
#include "attention/sparse_rows.hpp"

namespace regard::REGARD_ISA {

#if !defined(REGARD_INT8_SPLIT)

constexpr bool HAS_INT8_SPLIT = false;
struct Int8SplitProducts {};

#else

constexpr bool HAS_INT8_SPLIT = true;

// C (rows x columns) = or += A (rows x depth) B (depth x columns), for rows [first, last) of A.
template <bool ADD>
static void int8_split_product(int64_t first, int64_t last, int64_t columns, int64_t depth, const Int8Split& left, const Int8Split& right,
                              int64_t right_column, float* c, int64_t c_row) {
    const int64_t chunks = (depth + INT8_TILE_DEPTH - 1) / INT8_TILE_DEPTH, group = chunks * SLICES * TILE_BYTES, start = first / TILE_ROWS * TILE_ROWS;
    // With six pairs of slices, gradients that are long sums sometimes exceeded the error of floats.
    const auto eight = [](int64_t, int64_t) { return true; };
    for_sums(last - start, columns, chunks, TILE_ROWS, left.tiles + start / TILE_ROWS * group, right.tiles + right_column / TILE_ROWS * group, eight,
             [&](int64_t m, int64_t n, bool, const int32_t* sums) {
                 const __m512 of_columns = _mm512_mul_ps(_mm512_loadu_ps(right.scales + right_column + n), _mm512_set1_ps(SPLIT_UNIT));
                 const float* of_rows = left.scales + start + m;
                 const int64_t before = max(0, first - start - m);
                 float* to = c + (start + m + before - first) * c_row + n;
#pragma GCC unroll 4
                 for (int64_t i = before; i < TILE_ROWS; ++i, to += c_row) {
                     // The scales are not multiplied by each other first: their product may overflow.
                     const __m512 product = _mm512_mul_ps(combine_slices<4>(sums + i * TILE_ROWS), of_columns), of_row = _mm512_set1_ps(of_rows[i]);
                     _mm512_storeu_ps(to, ADD ? _mm512_fmadd_ps(product, of_row, _mm512_loadu_ps(to)) : _mm512_mul_ps(product, of_row));
                 }
             });
}

// Per-thread cache of the splits of a key head's panels, which other blocks of queries reuse.
class SplitCache {
public:
    // Starts a call and head; drops the entries of others.
    void begin(uint64_t call, int64_t head, int64_t panels, int64_t bytes) {
        if (call == call_ && head == head_) return;
        call_ = call, head_ = head, count_ = min(panels, CAPACITY), bytes_ = round_up(bytes, 64);
        scratch_.reserve(size_t(count_) * (sizeof(Entry) + size_t(bytes_)) + 64);
        entries_ = scratch_.take<Entry>(count_);
        tiles_ = scratch_.take<char>(count_ * bytes_);
        for (int64_t i = 0; i < count_; ++i) entries_[i] = Entry{};
    }
    const Int8Split* find(int64_t panel) const {  // or null
        const Entry& entry = entries_[panel % count_];
        return entry.panel == panel ? &entry.split : nullptr;
    }
    char* room(int64_t panel) { return tiles_ + panel % count_ * bytes_; }
    void insert(int64_t panel, const Int8Split& split) { entries_[panel % count_] = {panel, split}; }  // splits in the memory that `room` returned

private:
    static constexpr int64_t CAPACITY = 512;
    struct Entry {
        int64_t panel = -1;
        Int8Split split;
    };
    Scratch scratch_;
    uint64_t call_ = 0;
    int64_t head_ = -1, count_ = 0, bytes_ = 0;
    Entry* entries_ = nullptr;
    char* tiles_ = nullptr;
};

// Matrix products of a panel by int8 splits, with floats where the limits on peak ratios are exceeded.
struct Int8SplitProducts : Products<float, float> {
    static constexpr bool ZERO_FILL = true;
    typedef Products<float, float> Floats;
    enum Operand { KEY_ROWS, KEY_COLUMNS, VALUE_ROWS, VALUE_COLUMNS, NUM_OPERANDS };

    // Splits of a block's queries and output gradients, in the forms of `Products`, and of operands computed from scores.
    Int8Split query_split, query_rows_split, incoming_split, incoming_rows_split, right, left;
    const Int8Split* operands[NUM_OPERANDS];  // of the panel, once requested
    Int8Split fresh[NUM_OPERANDS];
    float* room;                 // for copies of rows
    float* floats;               // scores computed as floats
    const float row_limit, score_limit, weight_limit;  // limits on peak ratios
    PeakRatioRange query_peak_ratios, incoming_peak_ratios;              // of the rows of the block
    int64_t b = 0, g = 0;        // of the panel
    TileRegisters registers;

    static size_t bytes(const Problem& p) {
        const int64_t row = round_up(p.dim, TILE_ROWS), value_row = round_up(p.value_dim, TILE_ROWS);
        return Floats::bytes(p) + Int8Split::bytes(SIDE, p.dim) + Int8Split::bytes(row, SIDE) + Int8Split::bytes(SIDE, p.value_dim) +
               Int8Split::bytes(value_row, SIDE) + 2 * Int8Split::bytes(SIDE, SIDE) +
               sizeof(float) * size_t(SIDE * (max(row, value_row) + SIDE + 2)) + 1024;
    }

    Int8SplitProducts(const Problem& p, Scratch& scratch)
        : Floats(p, scratch), row_limit(p.relaxed ? NO_LIMIT : ROW_LIMIT), score_limit(limit(p.dim, PAIR_LIMIT, p.relaxed)),
          weight_limit(limit(p.value_dim, PAIR_LIMIT, p.relaxed)) {
        const int64_t row = round_up(p.dim, TILE_ROWS), value_row = round_up(p.value_dim, TILE_ROWS);
        auto allocate = [&](int64_t rows, int64_t depth) { return Int8Split(scratch.take<char>(int64_t(Int8Split::bytes(rows, depth))), rows, depth); };
        query_split = allocate(SIDE, p.dim), query_rows_split = allocate(row, SIDE);
        incoming_split = allocate(SIDE, p.value_dim), incoming_rows_split = allocate(value_row, SIDE);
        right = allocate(SIDE, SIDE), left = allocate(SIDE, SIDE);
        query_rows_split.depth_scales = scratch.take<float>(SIDE), incoming_rows_split.depth_scales = scratch.take<float>(SIDE);
        room = scratch.take<float>(SIDE * max(row, value_row));
        floats = scratch.take<float>(SIDE * SIDE);
    }

    void take_queries(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.dim, TILE_ROWS);
        Floats::take_queries(block, columns, rows);
        split_columns<false, true>(columns, SIDE, 0, p.dim, block.padded, nullptr, query_split);
        query_peak_ratios = PeakRatioRange::of(query_split.peak_ratios, block.count);
        if (rows) split_normalized_rows(rows, row, block.padded, row, query_split, row_limit, room, query_rows_split);
    }
    void take_incoming(const Block& block, const float* columns, const float* rows) {
        const int64_t row = round_up(p.value_dim, TILE_ROWS);
        Floats::take_incoming(block, columns, rows);
        split_columns<false, true>(columns, SIDE, 0, p.value_dim, block.padded, nullptr, incoming_split);
        incoming_peak_ratios = PeakRatioRange::of(incoming_split.peak_ratios, block.count);
        split_normalized_rows(rows, row, block.padded, row, incoming_split, row_limit, room, incoming_rows_split);
    }
    void take_keys(int64_t batch, int64_t group, const Panel& panel) {
        b = batch, g = group, operands[KEY_ROWS] = operands[KEY_COLUMNS] = nullptr;
        if (needs_full_rows(p)) Floats::take_keys(b, g, panel);  // sparse products read single rows
    }
    void take_values(int64_t batch, int64_t group, const Panel& panel) {
        b = batch, g = group, operands[VALUE_ROWS] = operands[VALUE_COLUMNS] = nullptr;
        if (needs_full_rows(p)) Floats::take_values(b, g, panel);
    }

    void scores(const Block& block, const Panel& panel, float* to) {
        auto keys = [&]() -> const Rows<float>& { return Floats::take_keys(b, g, panel), key; };
        if (!by_depth(block, panel, operand<KEY_ROWS>(panel), query_split, query_peak_ratios, p.dim, score_limit, keys, query, to)) {
            keys();
            Floats::scores(block, panel, to);
        }
    }
    void of_weights(const Block& block, const Panel& panel, float* to) {
        auto values = [&]() -> const Rows<float>& { return Floats::take_values(b, g, panel), value; };
        if (!by_depth(block, panel, operand<VALUE_ROWS>(panel), incoming_split, incoming_peak_ratios, p.value_dim, weight_limit, values, incoming, to)) {
            values();
            Floats::of_weights(block, panel, to);
        }
    }
    void mix(const Block& block, const Panel& panel, const float* weights, float* to) {
        auto values = [&]() -> const Rows<float>& { return Floats::take_values(b, g, panel), value; };
        if (!by_columns(block, panel, operand<VALUE_COLUMNS>(panel), p.value_dim, values, weights, to)) {
            values();
            Floats::mix(block, panel, weights, to);
        }
    }
    void of_queries(const Block& block, const Panel& panel, const float* gradient, float* to) {
        auto keys = [&]() -> const Rows<float>& { return Floats::take_keys(b, g, panel), key; };
        if (!by_columns(block, panel, operand<KEY_COLUMNS>(panel), p.dim, keys, gradient, to)) {
            keys();
            Floats::of_queries(block, panel, gradient, to);
        }
    }
    void of_values(const Block& block, const Panel& panel, const float* weights, float* to, int64_t row) {
        if (!by_rows(block, panel, weights, incoming_rows_split, incoming_rows, to, row))
            Floats::of_values(block, panel, weights, to, row);
    }
    void of_keys(const Block& block, const Panel& panel, const float* gradient, float* to, int64_t row) {
        if (!by_rows(block, panel, gradient, query_rows_split, query_rows, to, row)) Floats::of_keys(block, panel, gradient, to, row);
    }

   private:
    static int64_t offset(const Panel& panel) { return panel.start % SIDE; }  // in its split, which covers the full tile

    template <Operand OF>
    const Int8Split& operand(const Panel& panel) {
        if (operands[OF]) return *operands[OF];
        constexpr bool OF_KEYS = OF == KEY_ROWS || OF == KEY_COLUMNS, ROWS = OF == KEY_ROWS || OF == VALUE_ROWS;
        static thread_local SplitCache cache;
        const int64_t index = panel.start / SIDE, first = index * SIDE, count = min(SIDE, p.columns - first);
        const int64_t width = OF_KEYS ? p.dim : p.value_dim, rows = ROWS ? SIDE : width, depth = ROWS ? width : SIDE;
        const int64_t more = ROWS ? 0 : 2 * SIDE * int64_t(sizeof(float)) + max_tiny(width) * int64_t(sizeof(TinyEntry));
        cache.begin(p.call, b * p.groups + g, (p.columns + SIDE - 1) / SIDE, int64_t(Int8Split::bytes(rows, depth)) + more);
        if (const Int8Split* cached = cache.find(index)) return *(operands[OF] = cached);
        const View& view = OF_KEYS ? p.key : p.value;
        const float* from = view.at<float>(b, g) + first * view.row;
        int64_t row = view.row;
        if (view.column != 1) copy_in(from, row, view.column, count, width, room, width), from = room, row = width;
        Int8Split& to = fresh[OF] = Int8Split(cache.room(index), rows, depth);
        if constexpr (ROWS) {
            split_rows(from, row, count, width, to);
        } else {
            to.depth_scales = to.peak_ratios + round_up(rows, TILE_ROWS), to.peak_ratios = to.depth_scales + SIDE;
            to.tiny = reinterpret_cast<TinyEntry*>(to.peak_ratios + SIDE);
            split_transposed(from, row, count, width, row_limit, p.relaxed, to);
        }
        cache.insert(index, to);
        return *(operands[OF] = &to);
    }

    // Returns false, without any effect, if no product can be taken by int8 splits.
    template <typename Take>
    bool by_depth(const Block& block, const Panel& panel, const Int8Split& left, const Int8Split& right, const PeakRatioRange& of_columns, int64_t depth, float limit,
                  const Take& load_rows, const float* columns, float* to) {
        constexpr float ROUNDING = 1e-3f;  // at least the rounding of a sum of ratios: an extra row does no harm
        const int64_t count = panel.stop - panel.start;
        const float* peak_ratios = left.peak_ratios + offset(panel);
        const uint64_t all_rows = bit_range(0, count), float_rows = rows_above(peak_ratios, count, limit - of_columns.max - ROUNDING);
        if (float_rows == all_rows && rows_above(peak_ratios, count, limit - of_columns.min + ROUNDING) == all_rows) return false;
        for_rows(block, panel, [&](int64_t r, int64_t rows, Span seen) {
            int8_split_product<false>(offset(panel) + seen.start, offset(panel) + seen.stop, rows, depth, left, right, r,
                                     to + seen.start * SIDE + r, SIDE);
        });
        if (!float_rows) return true;
        const Rows<float>& rows = load_rows();
        for_runs(float_rows, [&](int64_t first, int64_t some) {
            product<float, false>(some, block.padded, depth, rows.data + first * rows.row, rows.row, rows.column, columns, SIDE, floats, SIDE);
            for (int64_t i = 0; i < some; ++i)
                for (int64_t r = 0; r < block.padded; r += TILE_ROWS) {
                    const __m512 both = _mm512_add_ps(_mm512_set1_ps(peak_ratios[first + i]), _mm512_loadu_ps(right.peak_ratios + r));
                    _mm512_mask_storeu_ps(to + (first + i) * SIDE + r, _mm512_cmp_ps_mask(both, _mm512_set1_ps(limit), _CMP_GT_OQ),
                                          _mm512_loadu_ps(floats + i * SIDE + r));
                }
        });
        return true;
    }
    // These split their argument, except for float rows; false, without any effect, if all rows are float rows.
    template <typename Take>
    bool by_columns(const Block& block, const Panel& panel, const Int8Split& transposed, int64_t width, const Take& load_rows, const float* with, float* to) {
        const int64_t start = offset(panel), count = panel.stop - panel.start;
        const uint64_t float_rows = transposed.float_rows >> start & bit_range(0, count);
        if (float_rows == bit_range(0, count)) return false;
        split_columns<true, false>(with - start * SIDE, SIDE, start, start + count, block.padded, transposed.depth_scales, right);
        if (!right.finite) return false;
        int8_split_product<true>(0, width, block.padded, SIDE, transposed, right, 0, to, SIDE);
        for (int64_t i = 0; i < transposed.tiny_count; ++i) {
            const TinyEntry& x = transposed.tiny[i];
            if (x.row < start || x.row >= start + count) continue;
            float* sums = to + x.column * SIDE;
            const float* numbers = with + (x.row - start) * SIDE;
            if (block.padded == SIDE) add_scaled(sums, numbers, SIDE, x.number);
            else add_scaled(sums, numbers, block.padded, x.number);
        }
        if (!float_rows) return true;
        const Rows<float>& rows = load_rows();
        for_runs(float_rows, [&](int64_t first, int64_t some) {
            product<float, true>(width, block.padded, some, rows.data + first * rows.row, rows.column, rows.row, with + first * SIDE, SIDE, to, SIDE);
        });
        return true;
    }
    bool by_rows(const Block& block, const Panel& panel, const float* from, const Int8Split& with, const float* rows, float* to, int64_t row) {
        const int64_t count = panel.stop - panel.start;
        const uint64_t everyone = bit_range(0, block.count), float_rows = with.float_rows & everyone;
        if (float_rows == everyone) return false;
        split_weighted_rows(from, SIDE, count, block.padded, with.depth_scales, left);
        if (!left.finite) return false;
        int8_split_product<true>(0, count, row, block.padded, left, with, 0, to, row);
        for_runs(float_rows, [&](int64_t first, int64_t some) {
            product<float, true>(count, row, some, from + first, SIDE, 1, rows + first * row, row, to, row);
        });
        return true;
    }
};

#endif

}  // namespace regard::REGARD_ISA
