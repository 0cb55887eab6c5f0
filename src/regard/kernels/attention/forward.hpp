// Attention of a block of queries. Softmax goes with a running maximum and sum (Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv
// 2205.14135, algorithm 1).
#pragma once

#include "attention/additive.hpp"
#include "attention/sparse_weights.hpp"
#include "attention/entmax_threshold.hpp"

namespace regard::REGARD_ISA {

// Scores of a panel (columns x padded rows), before the mask. `capped` receives the softcap's tanh, if it is wanted.
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

template <typename T>
struct OnlineSoftmax {  // of the rows of a block
    T row_max[SIDE];    // the largest score so far, or one that is not far below it
    T sum[SIDE];  // of the exponentials relative to it
};

// How far a score may lie above `row_max`: sums keep their precision, and what is summed need not be scaled for each new one.
constexpr double HEADROOM = 8;

// Scores to exponentials, in place, those that a row does not see to 0; what was summed before is scaled by `rescale` from
// now on. True if any fade is not 1. Without WHOLE, where no rows of a step see a column nothing need be written.
template <bool WHOLE, typename T>
static bool online_softmax(const Block& block, const Panel& panel, T* scores, OnlineSoftmax<T>& run, T* rescale) {
    constexpr int W = LANES<T>;
    bool rescaled = false;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Span seen = panel.seen[r / STEP];
        if (panel.kind == TileKind::mixed) hide_columns(panel, r, seen, T(-INFINITE), scores);
        const Vec<T> before = load(run.row_max + r);
        Vec<T> high[4] = {before, before, before, before};  // chains, so that a maximum does not wait for the one before
        int64_t i = seen.start;
        for (; i + 4 <= seen.stop; i += 4)
            for (int j = 0; j < 4; ++j) high[j] = vec_max<T>(high[j], load(scores + (i + j) * SIDE + r));
        for (; i < seen.stop; ++i) high[0] = vec_max<T>(high[0], load(scores + i * SIDE + r));
        const Vec<T> panel_max = vec_max<T>(vec_max<T>(high[0], high[1]), vec_max<T>(high[2], high[3]));
        const Vec<T> row_max = panel_max > before + T(HEADROOM) ? panel_max : before;
        // A row that has seen nothing yet is shifted by nothing.
        const Vec<T> shift = row_max == T(-INFINITE) ? broadcast(T(0)) : row_max;
        Vec<T> sums[4] = {};
        exp2_columns(
            seen.stop - seen.start, scores + seen.start * SIDE + r, [&](Vec<T> score) { return (score - shift) * T(LOG2E); },
            [&](int64_t, int chain, Vec<T> x, Vec<T>) { sums[chain & 3] += x; });
        if constexpr (WHOLE) {
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

// Sigmoid weighs each key by itself: scores to weights, in place (Ramapuram et al. 2024, arXiv 2409.04431, section 2).
template <typename T>
static void sigmoid_weights(const Block& block, int64_t count, T offset, T* scores) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>)
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> x = (load(scores + i * SIDE + r) + offset) * T(-LOG2E);
            const Vec<T> weight = reciprocal<T>(1 + exp2_of(vec_min<T>(broadcast(MAX_EXPONENT<T>), x)));
            store(scores + i * SIDE + r, x == T(INFINITE) ? Vec<T>{} : weight);  // a bias may hide a key
        }
}

// `saved_scores` receives the scores of what the block sees before they are masked, panel by panel, if it is not null.
template <typename In, typename T, typename ProductKind>
static void forward_block(const Problem& p, const Block& block, Scratch& scratch, T* saved_scores = nullptr) {
    constexpr int W = LANES<T>;
    const int64_t g = block.h / (p.heads / p.groups), row = round_up(p.dim, W), value_row = round_up(p.value_dim, W);
    const int64_t wide = needs_full_rows(p) ? p.columns : SIDE;
    scratch.reserve(sizeof(T) * size_t(SIDE * (2 * row + 2 * value_row + wide + TILE_ROWS + 8)) + ProductKind::bytes(p) + 4096);
    T* rows = scratch.take<T>(SIDE * max(row, value_row));
    T* query = scratch.take<T>(p.dim * SIDE);
    T* scores = scratch.take<T>((wide + TILE_ROWS) * SIDE);
    T* output = scratch.take<T>(value_row * SIDE);  // its columns as rows
    ProductKind products(p, scratch);
    T* rescale = scratch.take<T>(SIDE);
    OnlineSoftmax<T> run;
    fill(run.row_max, SIDE, T(-INFINITE));
    fill(run.sum, SIDE, T(0));
    fill(output, value_row * SIDE, T(0));
    load_query_columns<In>(p.query, block, p.dim, T(products.factor()), rows, row, query);
    products.take_queries(block, query, nullptr);
    if constexpr (!ProductKind::BF16) {  // what the end of this block and the beginning of the next one wait for
        products.template prefetch<In>(p.output, block.b, block.h, block.first, p.rows, p.value_dim);
        products.template prefetch<In>(p.query, block.b, block.h, block.first + SIDE, p.rows, p.dim);
    }

    const bool sigmoid = p.normalizer == Normalizer::sigmoid, softmax = p.normalizer == Normalizer::softmax;
    const PriorRows<T> prior_rows = prior_rows_of<T>(p, block);
    uint64_t seen = 0;  // rows that see something
    Panel panel;
    const ColumnRange range = column_range(p, block);
    int64_t columns = 0;  // of the strip so far
    bool has_output = false;   // something is in the output
    bool is_sparse = false;     // weights that are not 0: `rows` takes the output, as rows
    Nonzeros nonzeros;
    SparseWeights* list = sparse_weights_of(p, block);  // or null
    auto score_panel = [&](T* to) {
        products.take_keys(block.b, g, panel);
        score(p, block, panel, products, to, (T*)nullptr);
        if (panel.kind == TileKind::full) seen = bit_range(0, SIDE);
        for (int64_t i = 0; seen != bit_range(0, SIDE) && i < panel.stop - panel.start; ++i) seen |= panel.rows[i];
    };
    auto mix_panel = [&](T* weights) {
        if (has_prior_or_dropout(p)) apply_prior_and_dropout(p, block, panel, prior_rows, weights);
        products.take_values(block.b, g, panel);
        if constexpr (!ProductKind::BF16)
            if (is_sparse) {
                add_sparse_product(nonzeros.find(block, panel, weights), weights, products.value, p.value_dim, rows, value_row);
                if (list) append(*list, panel, nonzeros, weights);
                return;
            }
        products.mix(block, panel, weights, output);
    };
    for_panels(p, block, range, panel, [&] {
        const int64_t count = panel.stop - panel.start;
        T* here = needs_full_rows(p) ? scores + columns * SIDE : scores;
        score_panel(here);
        if (saved_scores) std::memcpy(saved_scores + columns * SIDE, here, sizeof(T) * size_t(count * SIDE));
        columns += count;
        if (sigmoid) sigmoid_weights(block, count, offset_of<T>(p, block.h), scores);
        if (!softmax) hide(block, panel, sigmoid ? T(0) : T(-INFINITE), here);
        if (softmax && online_softmax<ProductKind::WHOLE>(block, panel, scores, run, rescale) && has_output)
            for (int64_t v = 0; v < p.value_dim; ++v)
                for (int64_t r = 0; r < block.padded; r += W)
                    store(output + v * SIDE + r, load(output + v * SIDE + r) * load(rescale + r));
        if (!needs_full_rows(p)) mix_panel(scores);
        has_output = true;
    });
    if (needs_full_rows(p)) {
        with_entmax<T>(p, block.h, [&](const auto& kind) {
            entmax_weights(block, columns, kind, scores, run.row_max, run.sum);
        });
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

    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> sum = softmax ? load(run.sum + r) : broadcast(T(1));
        store(rescale + r, sum > T(0) ? 1 / sum : broadcast(T(0)));
    }
    if (is_sparse)
        copy_out(rows, value_row, block.count, p.value_dim, T(1),
                 p.output.at<In>(block.b, block.h) + block.first * p.output.row, p.output.row, p.output.column);
    else
        store_transposed<In>(output, block, p.value_dim, rescale, rows, value_row, p.output);
    if (p.row_max_log_sum.data) {  // the largest score, and the logarithm of the sum relative to it
        T* to = p.row_max_log_sum.at<T>(block.b, block.h) + block.first * p.row_max_log_sum.row;
        for (int64_t r = 0; r < block.count; ++r) {
            const bool some = softmax ? run.sum[r] > 0 : seen >> r & 1;
            to[0] = some && !sigmoid ? run.row_max[r] : T(0);
            to[1] = !some     ? T(-INFINITE)
                    : sigmoid ? T(0)
                    : softmax ? T(::log(double(run.sum[r])))
                              : run.sum[r];
            to += p.row_max_log_sum.row;
        }
    }
}

}  // namespace regard::REGARD_ISA
