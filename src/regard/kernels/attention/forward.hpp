// Forward pass of attention for one block of queries. Softmax is computed online, with a running row max and sum (Rabe and Staats
// 2021, arXiv 2112.05682; Dao et al. 2022, arXiv 2205.14135, algorithm 1). Each step of a tile is a function of its own: `score`,
// `normalize_panel`, `rescale_output`, `mix_dense` or `mix_sparse`; `forward_block` calls them in order.
#pragma once

#include "attention/additive.hpp"
#include "attention/sparse_weights.hpp"
#include "attention/entmax_threshold.hpp"

namespace regard::REGARD_ISA {

// Scores of a panel (columns x padded rows) with softcap and bias, before the mask. If `capped` is not null, it receives the
// softcap's tanh, which the backward pass needs.
template <typename ProductKind, typename T>
static void score(const Problem& p, const Block& block, const Panel& panel, ProductKind& products, T* scores, T* capped) {
    constexpr int W = LANES<T>;
    const int64_t count = panel.stop - panel.start;
    if (!p.vector) products.scores(block, panel, scores);
    if constexpr (!ProductKind::BF16)
        if (p.vector) additive(p, block, count, products.key, products.query, scores);
    if (p.softcap != 0) {
        const T inverse = T(1 / p.softcap), cap = T(p.softcap);
        for (int64_t r = 0; r < block.padded; r += W)
            for_chains(count, scores + r, [&]<int N>(Count<N>, int64_t column, Vec<T>* x) {
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) x[j] *= inverse;
                tanh_vectors<N>(x);
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) {
                    if (capped) store(capped + (column + j) * SIDE + r, x[j]);
                    x[j] *= cap;
                }
            });
    }
    add_bias(p, block, panel, scores);
}

// Running state of online softmax for the rows of a block; entmax keeps its anchors here.
template <typename T>
struct OnlineSoftmax {
    T row_max[SIDE];  // largest score so far, or a score at most HEADROOM below it
    T sum[SIDE];      // of exp(score - row_max)
};

// How far a score may exceed `row_max` before `row_max` is raised: sums keep their precision, and rescaling is rare.
constexpr double HEADROOM = 8;

// Online softmax of a panel: scores to exp(score - row_max) in place, hidden entries to 0; updates row max and sum. `rescale`
// receives the factor of each row's earlier sums and outputs. Returns whether any factor differs from 1. Without ZERO_FILL,
// columns that no row of a step sees are left unwritten.
template <bool ZERO_FILL, typename T>
static bool online_softmax(const Block& block, const Panel& panel, T* scores, OnlineSoftmax<T>& run, T* rescale) {
    constexpr int W = LANES<T>;
    bool rescaled = false;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Span seen = panel.seen[r / STEP];
        if (panel.kind == TileKind::mixed) hide_columns(panel, r, seen, T(-INFINITE), scores);
        const Vec<T> before = load(run.row_max + r);
        Vec<T> high[4] = {before, before, before, before};  // four independent chains, to hide latency
        int64_t i = seen.start;
        for (; i + 4 <= seen.stop; i += 4)
            for (int j = 0; j < 4; ++j) high[j] = vec_max<T>(high[j], load(scores + (i + j) * SIDE + r));
        for (; i < seen.stop; ++i) high[0] = vec_max<T>(high[0], load(scores + i * SIDE + r));
        const Vec<T> panel_max = vec_max<T>(vec_max<T>(high[0], high[1]), vec_max<T>(high[2], high[3]));
        const Vec<T> row_max = panel_max > before + T(HEADROOM) ? panel_max : before;
        // Rows that have seen no key yet: shift 0, since -inf - -inf would be NaN.
        const Vec<T> shift = row_max == T(-INFINITE) ? broadcast(T(0)) : row_max;
        Vec<T> sums[4] = {};
        exp2_columns(
            seen.stop - seen.start, scores + seen.start * SIDE + r, [&](Vec<T> score) { return (score - shift) * T(LOG2E); },
            [&](int64_t, int chain, Vec<T> x, Vec<T>) { sums[chain & 3] += x; });
        if constexpr (ZERO_FILL) {
            for (i = 0; i < seen.start; ++i) store(scores + i * SIDE + r, Vec<T>{});
            for (i = seen.stop; i < panel.stop - panel.start; ++i) store(scores + i * SIDE + r, Vec<T>{});
        }
        const Vec<T> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        const Vec<T> factor = exp2_of((before - shift) * T(LOG2E));
        rescaled |= lane_bits<T>(before != row_max) != 0;
        store(rescale + r, factor);
        store(run.sum + r, load(run.sum + r) * factor + sum);
        store(run.row_max + r, row_max);
    }
    return rescaled;
}

// Sigmoid attention: scores to weights, elementwise and in place (Ramapuram et al. 2024, arXiv 2409.04431, section 2).
template <typename T>
static void sigmoid_weights(const Block& block, int64_t count, T offset, T* scores) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>)
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> x = (load(scores + i * SIDE + r) + offset) * T(-LOG2E);
            const Vec<T> weight = reciprocal<T>(1 + exp2_of(vec_min<T>(broadcast(MAX_EXPONENT<T>), x)));
            store(scores + i * SIDE + r, x == T(INFINITE) ? Vec<T>{} : weight);  // a bias of -inf hides a key
        }
}

// Normalizer policy of a panel: scores to weights in place, unnormalized for softmax. Entmax only masks them here; its weights need
// full rows. Returns whether earlier outputs must be multiplied by `rescale`.
template <bool ZERO_FILL, typename T>
REGARD_INLINE bool normalize_panel(const Problem& p, const Block& block, const Panel& panel, T* scores, OnlineSoftmax<T>& run, T* rescale) {
    if (p.normalizer == Normalizer::softmax) return online_softmax<ZERO_FILL>(block, panel, scores, run, rescale);
    if (p.normalizer == Normalizer::sigmoid) {
        sigmoid_weights(block, panel.stop - panel.start, offset_of<T>(p, block.h), scores);
        hide(block, panel, T(0), scores);
    } else {
        hide(block, panel, T(-INFINITE), scores);
    }
    return false;
}

// Multiplies the transposed output (width x padded rows) by a factor for each row.
template <typename T>
REGARD_INLINE void rescale_output(const Block& block, int64_t width, const T* rescale, T* output) {
    for (int64_t v = 0; v < width; ++v)
        for (int64_t r = 0; r < block.padded; r += LANES<T>)
            store(output + v * SIDE + r, load(output + v * SIDE + r) * load(rescale + r));
}

// Dense mix policy: transposed output += V^T P^T by matrix products.
template <typename ProductKind, typename T>
REGARD_INLINE void mix_dense(const Block& block, int64_t g, const Panel& panel, ProductKind& products, const T* weights, T* output) {
    products.take_values(block.b, g, panel);
    products.mix(block, panel, weights, output);
}

// Sparse mix policy: rows of output += weight * value for each nonzero weight, which is also appended to `list` unless that is null.
template <typename ProductKind, typename T>
REGARD_INLINE void mix_sparse(const Problem& p, const Block& block, int64_t g, const Panel& panel, ProductKind& products, const T* weights,
                              Nonzeros& nonzeros, SparseWeights* list, T* rows, int64_t row) {
    products.take_values(block.b, g, panel);
    add_sparse_product(nonzeros.find(block, panel, weights), weights, products.value, p.value_dim, rows, row);
    if (list) append(*list, panel, nonzeros, weights);
}

// Adds the rows of the block that see some column of the panel to a bit set.
REGARD_INLINE void add_visible_rows(const Panel& panel, uint64_t& rows) {
    if (panel.kind == TileKind::full) rows = bit_range(0, SIDE);
    for (int64_t i = 0; rows != bit_range(0, SIDE) && i < panel.stop - panel.start; ++i) rows |= panel.rows[i];
}

// Factors that normalize the output: 1 / sum for softmax, else 1; 0 for rows that see nothing.
template <typename T>
REGARD_INLINE void output_factors(const Problem& p, const Block& block, const OnlineSoftmax<T>& run, T* factors) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>) {
        const Vec<T> sum = p.normalizer == Normalizer::softmax ? load(run.sum + r) : broadcast(T(1));
        store(factors + r, sum > T(0) ? 1 / sum : broadcast(T(0)));
    }
}

// Stores row max and log-sum of each row (`Problem::row_max_log_sum`), which backward pass and summaries read.
template <typename T>
REGARD_INLINE void store_row_max_log_sum(const Problem& p, const Block& block, const OnlineSoftmax<T>& run, uint64_t visible_rows) {
    const bool sigmoid = p.normalizer == Normalizer::sigmoid, softmax = p.normalizer == Normalizer::softmax;
    T* to = p.row_max_log_sum.at<T>(block.b, block.h) + block.first * p.row_max_log_sum.row;
    for (int64_t r = 0; r < block.count; ++r) {
        const bool any = softmax ? run.sum[r] > 0 : visible_rows >> r & 1;
        to[0] = any && !sigmoid ? run.row_max[r] : T(0);
        to[1] = !any      ? T(-INFINITE)
                : sigmoid ? T(0)
                : softmax ? T(::log(double(run.sum[r])))
                          : run.sum[r];
        to += p.row_max_log_sum.row;
    }
}

// Output, and row max and log-sum, of a block of queries. If `saved_scores` is not null, it receives the unmasked scores, panel after
// panel, for the summaries.
template <typename In, typename T, typename ProductKind>
static void forward_block(const Problem& p, const Block& block, Scratch& scratch, T* saved_scores = nullptr) {
    constexpr int W = LANES<T>;
    const bool full_rows = needs_full_rows(p);
    const int64_t g = block.h / (p.heads / p.groups), row = round_up(p.dim, W), value_row = round_up(p.value_dim, W);
    const int64_t strip_columns = full_rows ? p.columns : SIDE;
    scratch.reserve(sizeof(T) * size_t(SIDE * (2 * row + 2 * value_row + strip_columns + TILE_ROWS + 8)) + ProductKind::bytes(p) + 4096);
    T* rows = scratch.take<T>(SIDE * max(row, value_row));
    T* query = scratch.take<T>(p.dim * SIDE);
    T* scores = scratch.take<T>((strip_columns + TILE_ROWS) * SIDE);
    T* output = scratch.take<T>(value_row * SIDE);  // transposed
    ProductKind products(p, scratch);
    T* rescale = scratch.take<T>(SIDE);
    OnlineSoftmax<T> run;
    fill(run.row_max, SIDE, T(-INFINITE));
    fill(run.sum, SIDE, T(0));
    fill(output, value_row * SIDE, T(0));
    load_query_columns<In>(p.query, block, p.dim, T(products.factor()), rows, row, query);
    products.take_queries(block, query, nullptr);
    if constexpr (!ProductKind::BF16) {  // needed at the end of this block and the start of the next
        products.template prefetch<In>(p.output, block.b, block.h, block.first, p.rows, p.value_dim);
        products.template prefetch<In>(p.query, block.b, block.h, block.first + SIDE, p.rows, p.dim);
    }

    const PriorRows<T> prior_rows = prior_rows_of<T>(p, block);
    const ColumnRange range = column_range(p, block);
    SparseWeights* list = sparse_weights_of(p, block);  // or null
    Nonzeros nonzeros;
    Panel panel;
    uint64_t visible_rows = 0;
    int64_t columns = 0;      // of the strip so far
    bool has_output = false;
    bool is_sparse = false;   // weights are mixed one by one: `rows` takes the output, row by row
    auto mix_panel = [&](T* weights) {
        if (has_prior_or_dropout(p)) apply_prior_and_dropout(p, block, panel, prior_rows, weights);
        if constexpr (!ProductKind::BF16)
            if (is_sparse) return mix_sparse(p, block, g, panel, products, weights, nonzeros, list, rows, value_row);
        mix_dense(block, g, panel, products, weights, output);
    };
    for_panels(p, block, range, panel, [&] {
        const int64_t count = panel.stop - panel.start;
        T* panel_scores = full_rows ? scores + columns * SIDE : scores;
        products.take_keys(block.b, g, panel);
        score(p, block, panel, products, panel_scores, (T*)nullptr);
        add_visible_rows(panel, visible_rows);
        if (saved_scores) std::memcpy(saved_scores + columns * SIDE, panel_scores, sizeof(T) * size_t(count * SIDE));
        columns += count;
        if (normalize_panel<ProductKind::ZERO_FILL>(p, block, panel, panel_scores, run, rescale) && has_output)
            rescale_output(block, p.value_dim, rescale, output);
        if (!full_rows) mix_panel(panel_scores);
        has_output = true;
    });
    if (full_rows) {
        with_entmax<T>(p, block.h, [&](const auto& kind) { entmax_weights(block, columns, kind, scores, run.row_max, run.sum); });
        auto for_strip = [&](const auto& use) {
            columns = 0;
            for_panels(p, block, range, panel, [&] { use(scores + columns * SIDE), columns += panel.stop - panel.start; });
        };
        if constexpr (!ProductKind::BF16) {
            SupportCount<T> support;
            for_strip([&](const T* weights) { support.add(block, panel, weights); });
            is_sparse = support.all_sparse(block);
        }
        if (is_sparse) fill(rows, SIDE * value_row, T(0));
        if (list) list->count = is_sparse && can_list<In, T>(p) ? 0 : -1;
        for_strip(mix_panel);
        if (list) pad_list(*list);
    }

    if (is_sparse) {
        copy_out(rows, value_row, block.count, p.value_dim, T(1),
                 p.output.at<In>(block.b, block.h) + block.first * p.output.row, p.output.row, p.output.column);
    } else {
        output_factors(p, block, run, rescale);
        store_transposed<In>(output, block, p.value_dim, rescale, rows, value_row, p.output);
    }
    if (p.row_max_log_sum.data) store_row_max_log_sum(p, block, run, visible_rows);
}

}  // namespace regard::REGARD_ISA
