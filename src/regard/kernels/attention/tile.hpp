// Tiles of scores: 64 keys (rows) by up to 64 queries (vector lanes), and which of their entries the mask hides. With keys as
// rows, keys and values are read in place by broadcasting their numbers, and row max, sum and other row reductions are
// elementwise vector operations.
#pragma once

#include "simd/vector_math.hpp"
#include "simd/memory.hpp"
#include "gemm/matrix_product.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t SIDE = 64;   // queries of a block, keys of a panel: bits of a word
constexpr int64_t STEP = 16;   // granularity, in queries and keys, of the summary of a mixed tile
constexpr int64_t STEPS = SIDE / STEP;
template <int N>
struct Count {};  // compile-time integer

// Whether weights are computed from all scores of a row at once.
REGARD_INLINE bool needs_full_rows(const Problem& p) { return p.normalizer == Normalizer::entmax; }

// Half-open range.
struct Span {
    int64_t start, stop;
    bool operator==(const Span&) const = default;
};

// Range of columns that some row of a block may see.
struct ColumnRange {
    int64_t start, stop;  // columns
    const int32_t* tiles;  // tile kinds of the block, one for each panel; or null
    Span ids;              // smallest and largest document id of the rows
};

enum class TileKind { empty, mixed, full };

// Up to 64 columns with the mask of a block's rows over them.
struct Panel {
    int64_t start = 0, stop = 0;  // columns
    TileKind kind = TileKind::empty;
    bool has_hidden_columns = false;  // some column in between is hidden from all rows
    uint64_t rows[SIDE];  // rows that see each column, if mixed
    int64_t next = 0;     // start of the next panel, possibly beyond the last column
    // If mixed, for each step of columns a bit for each step of rows: whether some pair is visible, and whether all are.
    uint64_t any_visible[STEPS], all_visible[STEPS];
    Span seen[STEPS];  // smallest column range, relative to `start`, that holds all visible columns of each step of rows
};

// Up to 64 query rows of a head.
struct Block {
    int64_t b = 0, h = 0, first = 0, count = 0, padded = 0;  // rows
};

template <typename T>
static Block make_block(const Problem& p, int64_t b, int64_t h, int64_t index) {
    Block block{b, h, index * SIDE, 0, 0};
    block.count = min(SIDE, p.rows - block.first);
    block.padded = round_up(block.count, LANES<T>);
    return block;
}

REGARD_INLINE uint64_t bit_range(int64_t from, int64_t to) {  // bits from <= i < to, clamped to 0..64
    from = max(from, 0), to = min(to, SIDE);
    if (from >= to) return 0;
    return (~uint64_t(0) >> (SIDE - (to - from))) << from;
}

REGARD_INLINE int64_t saturating_add(int64_t x, int64_t by) {  // saturating addition
    int64_t sum;
    if (__builtin_add_overflow(x, by, &sum)) return by > 0 ? INT64_MAX : INT64_MIN;
    return sum;
}

static Span min_max(const int64_t* x, int64_t count) {  // minimum and maximum
    Span range{INT64_MAX, INT64_MIN};
    for (int64_t i = 0; i < count; ++i)
        range.start = x[i] < range.start ? x[i] : range.start, range.stop = x[i] > range.stop ? x[i] : range.stop;
    return range;
}

// Columns that a block of rows may see by band, lengths and tiles.
static ColumnRange column_range(const Problem& p, const Block& block) {
    const Mask& mask = p.mask;
    const int64_t start = mask.starts ? mask.starts[block.b] : mask.start;
    ColumnRange range{0, p.columns, nullptr, {0, 0}};
    if (mask.lengths) range.stop = max(0, min(range.stop, mask.lengths[block.b]));
    range.start = max(range.start, saturating_add(saturating_add(mask.min_offset, start), block.first));
    range.stop = min(range.stop, saturating_add(saturating_add(mask.max_offset, start), block.first + block.count));
    if (mask.tiles) {
        const int64_t panels = (p.columns + SIDE - 1) / SIDE;
        range.tiles = mask.tiles + block.b * mask.tiles_batch + block.h * mask.tiles_head + block.first / SIDE * panels;
    }
    if (mask.query_ids)
        range.ids = min_max(mask.query_ids + block.b * mask.query_ids_batch + block.first, block.count);
    return range;
}

// Computes the step summaries of a panel: `any_visible`, `all_visible` and `seen`.
static void find_steps(Panel& panel) {
    const int64_t count = panel.stop - panel.start;
    for (int64_t g = 0; g < STEPS; ++g) panel.seen[g] = {0, panel.kind == TileKind::full ? count : 0};
    if (panel.kind == TileKind::full) return;
    for (int64_t i = 0; i < count; i += STEP) {
        const int64_t stop = min(i + STEP, count);
        uint64_t some = 0, every = ~uint64_t(0);
        for (int64_t j = i; j < stop; ++j) some |= panel.rows[j], every &= panel.rows[j];
        uint64_t &step_any = panel.any_visible[i / STEP] = 0, &step_all = panel.all_visible[i / STEP] = 0;
        for (int64_t g = 0; g < STEPS; ++g) {
            const uint64_t rows = bit_range(g * STEP, (g + 1) * STEP);
            step_all |= uint64_t((every & rows) == rows) << g;
            if (!(some & rows)) continue;
            step_any |= uint64_t(1) << g;
            Span& seen = panel.seen[g];
            seen = {seen.stop == 0 ? i : seen.start, stop};
        }
    }
}

// Calls `use(row, rows, columns)` for each half of a block's rows, or once if both see the same columns.
template <typename Use>
REGARD_INLINE void for_rows(const Block& block, const Panel& panel, const Use& use) {
    constexpr int64_t HALF = SIDE / 2;  // fewer rows do not fill a register tile
    Span seen[2];
    for (int64_t half = 0; half < 2; ++half) {
        const Span &a = panel.seen[2 * half], &b = panel.seen[2 * half + 1];
        seen[half] = a.stop == 0 ? b : b.stop == 0 ? a : Span{min(a.start, b.start), max(a.stop, b.stop)};
    }
    const Span all_columns = seen[0];
    if (block.padded <= HALF || all_columns == seen[1]) {
        if (all_columns.start < all_columns.stop) use(int64_t(0), block.padded, all_columns);
        return;
    }
    for (int64_t half = 0; half < 2; ++half)
        if (seen[half].start < seen[half].stop)
            use(half * HALF, half == 0 ? HALF : block.padded - HALF, seen[half]);
}

// Calls `use(row, rows, columns)` for rectangles that together cover all visible pairs, in steps along the edges of a window.
template <typename Use>
REGARD_INLINE void for_steps(const Block& block, const Panel& panel, const Use& use) {
    const int64_t count = panel.stop - panel.start, steps = (count + STEP - 1) / STEP;
    if (panel.kind == TileKind::full) return use(int64_t(0), block.padded, Span{0, count});
    for (int64_t first = 0, next = 1; first < steps; ++next) {
        const uint64_t groups = panel.any_visible[first];
        if (next < steps && panel.any_visible[next] == groups) continue;
        for (int64_t g = 0; g < STEPS; ++g) {  // merges neighboring groups of rows
            const int64_t from = g;
            while (groups >> g & 1) ++g;
            if (g > from)
                use(from * STEP, min(g * STEP, block.padded) - from * STEP, Span{first * STEP, min(next * STEP, count)});
        }
        first = next;
    }
}

// Calls `use(column, columns, rows)` for groups of neighboring columns and the range of rows that see some of them.
template <typename Use>
REGARD_INLINE void for_columns(const Block& block, const Panel& panel, const Use& use) {
    constexpr int64_t TOGETHER = 2 * TALL;
    const int64_t count = panel.stop - panel.start;
    const Span everyone{0, block.count};
    if (panel.kind == TileKind::full) return use(int64_t(0), count, everyone);
    for (int64_t i = 0; i < count; i += TOGETHER) {
        const int64_t columns = min(TOGETHER, count - i);
        uint64_t some = 0;
        for (int64_t j = i; j < i + columns; ++j) some |= panel.rows[j];
        if (some) use(i, columns, Span{__builtin_ctzll(some), SIDE - __builtin_clzll(some)});
    }
}

// Classifies the tile at column `at` as empty, mixed or full, and finds which rows see which columns.
static void classify(const Problem& p, const Block& block, const ColumnRange& range, int64_t at, Panel& panel) {
    const Mask& mask = p.mask;
    panel.start = max(at, range.start), panel.stop = min(at + SIDE, range.stop);
    panel.has_hidden_columns = false;
    const int32_t tile = range.tiles ? range.tiles[at / SIDE] : Mask::FULL;
    if (panel.start >= panel.stop || tile == Mask::EMPTY) {
        panel.kind = TileKind::empty;
        return;
    }
    const int64_t start = mask.starts ? mask.starts[block.b] : mask.start;
    const int64_t low = saturating_add(mask.min_offset, start), high = saturating_add(mask.max_offset, start);
    const bool banded = panel.start - (block.first + block.count - 1) < low || panel.stop - 1 - block.first > high;
    const int64_t* query_ids = mask.query_ids ? mask.query_ids + block.b * mask.query_ids_batch + block.first : nullptr;
    const int64_t* key_ids = mask.key_ids ? mask.key_ids + block.b * mask.key_ids_batch : nullptr;
    if (query_ids) {
        const Span ids = min_max(key_ids + panel.start, panel.stop - panel.start);
        if (ids.stop < range.ids.start || ids.start > range.ids.stop) {
            panel.kind = TileKind::empty;
            return;
        }
        if (ids == range.ids && ids.start == ids.stop) query_ids = nullptr;  // one document: all visible
    }
    if (!banded && tile == Mask::FULL && !query_ids) {
        panel.kind = TileKind::full;
        find_steps(panel);
        return;
    }
    const uint64_t everyone = bit_range(0, block.count);
    if (tile == Mask::FULL && !query_ids && low <= high) {  // only a band: every column in range is visible to some row
        constexpr int64_t FAR = int64_t(1) << 60;  // bounds beyond this are infinite
        const int64_t first = panel.start - block.first - min(high, FAR), last = panel.start - block.first - max(low, -FAR);
        for (int64_t i = 0; i < panel.stop - panel.start; ++i)
            panel.rows[i] = everyone & ~uint64_t(0) << max(first + i, 0) & ~uint64_t(0) >> (SIDE - 1 - min(last + i, SIDE - 1));
        panel.kind = TileKind::mixed;
        find_steps(panel);
        return;
    }
    uint64_t some = 0, every = everyone, same = 0;
    int64_t first = SIDE, last = 0, last_id = 0;
    bool known = false;
    for (int64_t c = panel.start; c < panel.stop; ++c) {
        uint64_t rows = everyone;
        if (banded)  // low <= c - row <= high
            rows &= bit_range(saturating_add(c - block.first, high == INT64_MAX ? INT64_MIN : -high),
                         low == INT64_MIN ? SIDE : saturating_add(c - block.first + 1, -low));
        if (tile >= 0) rows &= mask.bits[int64_t(tile) * SIDE + (c - at)];
        if (query_ids) {
            if (!known || key_ids[c] != last_id) {
                last_id = key_ids[c], known = true, same = 0;
                for (int64_t r = 0; r < block.count; ++r) same |= uint64_t(query_ids[r] == last_id) << r;
            }
            rows &= same;
        }
        panel.rows[c - panel.start] = rows;
        some |= rows, every &= rows;
        if (rows) first = min(first, c - at), last = c - at + 1;
        panel.has_hidden_columns |= rows == 0;
    }
    if (!some) {
        panel.kind = TileKind::empty;
        return;
    }
    const int64_t skipped = at + first - panel.start;  // trim leading hidden columns
    if (skipped > 0)
        for (int64_t i = 0; i + skipped < panel.stop - panel.start; ++i) panel.rows[i] = panel.rows[i + skipped];
    panel.start += skipped, panel.stop = at + last;
    if (panel.has_hidden_columns) {
        panel.has_hidden_columns = false;
        for (int64_t i = 0; i < panel.stop - panel.start; ++i) panel.has_hidden_columns |= panel.rows[i] == 0;
    }
    panel.kind = every == everyone ? TileKind::full : TileKind::mixed;
    find_steps(panel);
}

// Calls `use()` for each panel of columns that is not empty, after classifying it.
template <typename Use>
REGARD_INLINE void for_panels(const Problem& p, const Block& block, const ColumnRange& range, Panel& panel, const Use& use) {
    for (int64_t at = range.start / SIDE * SIDE; at < range.stop; at = panel.next) {
        panel.next = at + SIDE;
        while (range.tiles && panel.next < range.stop && range.tiles[panel.next / SIDE] == Mask::EMPTY) panel.next += SIDE;
        classify(p, block, range, at, panel);
        if (panel.kind != TileKind::empty) use();
    }
}

// Keys or values of a panel as T: in place where possible, else a copy with zeros for hidden columns.
template <typename T>
struct Rows {
    const T* data;
    int64_t row, column;
};

// `together`: the numbers of a row must be contiguous.
template <typename In, typename T>
static Rows<T> rows_of(const View& from, int64_t b, int64_t g, const Panel& panel, int64_t width, bool together, T* buffer) {
    const In* source = from.at<In>(b, g) + panel.start * from.row;
    const int64_t count = panel.stop - panel.start;
    if constexpr (Same<In, T>::value) {
        if (!panel.has_hidden_columns && (from.column == 1 || !together)) return {source, from.row, from.column};
    }
    copy_in(source, from.row, from.column, count, width, buffer, width);
    if (panel.has_hidden_columns)
        for (int64_t i = 0; i < count; ++i)
            if (panel.rows[i] == 0) fill(buffer + i * width, width, T(0));
    return {buffer, width, 1};
}

// Loads a block's rows times a factor, zero-padded, both row by row and transposed.
template <typename In, typename T>
static void load_queries(const View& from, const Block& block, int64_t width, T factor, T* rows, int64_t row, T* columns) {
    copy_in(from.at<In>(block.b, block.h) + block.first * from.row, from.row, from.column, block.count, width, rows,
            row);
    for (int64_t r = 0; r < block.count; ++r) {
        T* __restrict x = rows + r * row;
        if (factor != T(1))
            for (int64_t c = 0; c < width; ++c) x[c] *= factor;
        for (int64_t c = width; c < row; ++c) x[c] = 0;
    }
    for (int64_t r = block.count; r < block.padded; ++r) fill(rows + r * row, row, T(0));
    transpose(rows, row, block.padded, width, columns, SIDE);
}

// Whether a block's rows of a tensor can be transposed in place of a copy.
template <typename In, typename T>
static bool can_transpose_in_place(const View& x, const Block& block, int64_t width) {
    return Same<In, T>::value && x.column == 1 && block.count == block.padded && width % LANES<T> == 0;
}

// Loads a block's rows times a factor, transposed only. `room` is a buffer for rows with stride `row`.
template <typename In, typename T>
static void load_query_columns(const View& from, const Block& block, int64_t width, T factor, T* room, int64_t row, T* columns) {
    if (!can_transpose_in_place<In, T>(from, block, width)) return load_queries<In>(from, block, width, factor, room, row, columns);
    const T* source = from.at<T>(block.b, block.h) + block.first * from.row;
    for (int64_t r = 0; r < block.count; r += LANES<T>)
        for (int64_t c = 0; c < width; c += LANES<T>)
            transpose_square(source + r * from.row + c, from.row, columns + c * SIDE + r, SIDE, broadcast(factor));
}

// Stores transposed rows to a block's rows of a tensor, each times its factor. `columns` may be overwritten.
template <typename Out, typename T>
static void store_transposed(T* columns, const Block& block, int64_t width, const T* factors, T* room, int64_t row, const View& to) {
    constexpr int W = LANES<T>;
    const bool in_place = can_transpose_in_place<Out, T>(to, block, width);
    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> factor = load(factors + r);
        if (in_place) {
            T* target = to.at<T>(block.b, block.h) + (block.first + r) * to.row;
            for (int64_t c = 0; c < width; c += W) transpose_square(columns + c * SIDE + r, SIDE, target + c, to.row, factor);
        } else {
            for (int64_t c = 0; c < width; ++c) store(columns + c * SIDE + r, load(columns + c * SIDE + r) * factor);
        }
    }
    if (in_place) return;
    transpose(columns, SIDE, width, block.padded, room, row);
    copy_out(room, row, block.count, width, T(1), to.at<Out>(block.b, block.h) + block.first * to.row, to.row, to.column);
}

// Adds dense and distance biases to a panel's scores.
template <typename T>
static void add_bias(const Problem& p, const Block& block, const Panel& panel, T* scores) {
    const View &diagonals = p.bias.by_distance, &dense = p.bias.dense;
    if (!diagonals.data && !dense.data) return;
    for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
        T* __restrict s = scores + i * SIDE;
        const int64_t column = panel.start + i;
        if (diagonals.data) {
            const T* __restrict added = diagonals.at<T>(block.b, block.h) + (block.first - column + p.columns - 1);
            if (block.count == SIDE)
                for (int64_t r = 0; r < SIDE; r += LANES<T>) store(s + r, load(s + r) + load(added + r));
            else
                for (int64_t r = 0; r < block.count; ++r) s[r] += added[r];
        }
        if (dense.data) {
            const T* __restrict added = dense.at<T>(block.b, block.h) + block.first * dense.row + column * dense.column;
            for (int64_t r = 0; r < block.count; ++r) s[r] += added[r * dense.row];
        }
    }
}

// Sigmoid offset of a head.
template <typename T>
REGARD_INLINE T offset_of(const Problem& p, int64_t h) {
    return p.offsets ? static_cast<const T*>(p.offsets)[h] : T(0);
}

// Masks a vector of rows: `other` where a row does not see the column. Columns start at the beginning of a step.
template <typename T>
REGARD_INLINE void hide_columns(const Panel& panel, int64_t r, Span columns, T other, T* x) {
    for (int64_t start = columns.start; start < columns.stop; start += STEP)
        if (!(panel.all_visible[start / STEP] >> (r / STEP) & 1))
            for (int64_t i = start; i < min(start + STEP, columns.stop); ++i)
                store(x + i * SIDE + r, select<T>(panel.rows[i] >> r, load(x + i * SIDE + r), broadcast(other)));
}

// Masks a panel: `other` where a row does not see a column.
template <typename T>
static void hide(const Block& block, const Panel& panel, T other, T* x) {
    for (int64_t r = 0; panel.kind == TileKind::mixed && r < block.padded; r += LANES<T>)
        hide_columns(panel, r, Span{0, panel.stop - panel.start}, other, x);
}

// Applies `work` to columns of scores, CHAINS at a time to hide latency. `work` receives their compile-time number, the first
// column, and the vectors.
template <typename T, typename Work>
REGARD_INLINE void for_chains(int64_t count, T* scores, const Work& work) {
    Vec<T> x[CHAINS];
    int64_t i = 0;
    auto some = [&]<int N>(Count<N> number) {
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) x[j] = load(scores + (i + j) * SIDE);
        work(number, i, x);
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) store(scores + (i + j) * SIDE, x[j]);
    };
    for (; i + CHAINS <= count; i += CHAINS) some(Count<CHAINS>());
    for (; i < count; ++i) some(Count<1>());
}

// Columns of scores to 2^exponent(score), in place. `use` receives each column's number, its compile-time index among those in
// flight, the power and its exponent.
template <typename T, typename Exponent, typename Use>
REGARD_INLINE void exp2_columns(int64_t count, T* scores, const Exponent& exponent, const Use& use) {
    for_chains(count, scores, [&]<int N>(Count<N>, int64_t column, Vec<T>* x) {
        Vec<T> exponents[N];
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) exponents[j] = x[j] = exponent(x[j]);
        exp2_vectors<N>(x);
#pragma GCC unroll 8
        for (int j = 0; j < N; ++j) use(column + j, j, x[j], exponents[j]);
    });
}

}  // namespace regard::REGARD_ISA
