// Backward pass of attention: recomputes each tile's weights from row max and log-sum (Dao et al. 2022, arXiv 2205.14135,
// algorithm 4). One thread processes all queries of a key head in order, so no two threads add to one number.
#pragma once

#include "attention/forward.hpp"

namespace regard::REGARD_ISA {

// Row values from which the weights of a block and their gradients are computed.
template <typename T>
struct RowState {
    T row_max[SIDE], log_sum[SIDE];  // of each row; row_max is +inf, so that weights are 0, in rows that see nothing and in padding
    T d_log_sum[SIDE];            // gradient of the log-sum
    T delta[SIDE];               // dO . O - d_log_sum, subtracted from the gradients of softmax's weights
};

// Loads the row values of a block; `incoming` is its output gradient, by rows.
template <typename In, typename T>
static void load_row_state(const Problem& p, const Gradients& grad, const Block& block, const T* incoming, int64_t row,
                    RowState<T>& state) {
    const T* row_max_log_sum = p.row_max_log_sum.at<T>(block.b, block.h) + block.first * p.row_max_log_sum.row;
    const T* more = grad.log_sum.data ? grad.log_sum.at<T>(block.b, block.h) + block.first * grad.log_sum.row : nullptr;
    const In* output = p.output.at<In>(block.b, block.h) + block.first * p.output.row;
    for (int64_t r = 0; r < SIDE; ++r) {
        state.row_max[r] = T(INFINITE), state.log_sum[r] = 1;
        state.d_log_sum[r] = state.delta[r] = 0;
        if (r >= block.count || row_max_log_sum[r * p.row_max_log_sum.row + 1] == T(-INFINITE)) continue;
        state.d_log_sum[r] = more ? more[r * grad.log_sum.row] : T(0);
        T sum = 0;
        for (int64_t c = 0; c < p.value_dim; ++c)
            sum += incoming[r * row + c] * convert<T>(output[r * p.output.row + c * p.output.column]);
        state.row_max[r] = row_max_log_sum[r * p.row_max_log_sum.row], state.log_sum[r] = row_max_log_sum[r * p.row_max_log_sum.row + 1];
        state.delta[r] = sum - state.d_log_sum[r];
    }
}

// Backward pass through prior and dropout: `gradient` from that of the dropped weights to that of the normalizer's weights;
// `mixed` receives the weights that multiplied the values. Adds to the gradients of center and sigma.
template <typename T>
static void prior_dropout_backward(const Problem& p, const Block& block, const Panel& panel, const PriorRows<T>& prior_rows,
                            const T* weights, T* gradient, T* mixed, T* center, T* sigma) {
    T prior[SIDE], keep[SIDE];
    for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
        const int64_t column = panel.start + i;
        prior_and_dropout(p, block, column, prior_rows, prior, keep);
        for (int64_t r = 0; r < block.padded; ++r) {
            T& y = gradient[i * SIDE + r];
            const T w = weights[i * SIDE + r];
            mixed[i * SIDE + r] = w * prior[r] * keep[r];
            if (center && w != 0 && r < block.count) {  // d log prior = distance / sigma^2, distance^2 / sigma^3
                const T distance = (T(column + p.prior.shift) - prior_rows.center[r]) / prior_rows.sigma;
                const T part = mixed[i * SIDE + r] * y * distance / prior_rows.sigma;
                center[r] += part;
                sigma[r] += part * distance;
            }
            y *= prior[r] * keep[r];
        }
    }
}

// Recomputes the weights of a panel from its scores, in place.
template <typename T>
static void recompute_weights(const Problem& p, const Block& block, const Panel& panel, const RowState<T>& row, T* scores) {
    constexpr int W = LANES<T>;
    const int64_t count = panel.stop - panel.start;
    if (p.normalizer == Normalizer::sigmoid) {
        sigmoid_weights(block, count, offset_of<T>(p, block.h), scores);
    } else if (needs_full_rows(p)) {
        with_entmax<T>(p, block.h, [&](const auto& kind) {
            recompute_entmax_weights(block, count, kind, row.row_max, row.log_sum, scores);
        });
    } else {
        for (int64_t r = 0; r < block.padded; r += W) {
            const Vec<T> row_max = load(row.row_max + r), log_sum = load(row.log_sum + r);
            const Span seen = panel.seen[r / STEP];
            exp2_columns(
                seen.stop - seen.start, scores + seen.start * SIDE + r, [&](Vec<T> score) { return (score - row_max - log_sum) * T(LOG2E); }, [](int64_t, int, Vec<T>, Vec<T>) {});
        }
    }
    hide(block, panel, T(0), scores);
}

// Gradients of softmax or sigmoid weights to gradients of the scores, in place.
template <typename T>
static void differentiate(const Problem& p, const Block& block, const Panel& panel, const RowState<T>& row,
                          const T* weights, T* gradient) {
    constexpr int W = LANES<T>;
    const bool sigmoid = p.normalizer == Normalizer::sigmoid;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> delta = load(row.delta + r);
        for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
            const Vec<T> x = load(weights + i * SIDE + r), y = load(gradient + i * SIDE + r);
            store(gradient + i * SIDE + r, sigmoid ? x * (1 - x) * y : x * (y - delta));
        }
    }
}

// Backward pass through the softcap: times 1 - tanh^2. Hidden entries stay 0.
template <typename T>
static void uncap(const Block& block, const Panel& panel, const T* capped, T* gradient) {
    for (int64_t i = 0; i < (panel.stop - panel.start) * SIDE; i += LANES<T>) {
        const Vec<T> t = load(capped + i), y = load(gradient + i);
        store(gradient + i, y == T(0) ? y : y * (T(1) - t * t));
    }
}

// Adds a panel's score gradients to the gradients of bias and offset.
template <typename T>
static void add_to_bias(const Problem& p, const Gradients& grad, const Block& block, const Panel& panel, const T* y) {
    T* offset = grad.offsets ? static_cast<T*>(grad.offsets) + block.b * p.heads + block.h : nullptr;
    for (int64_t i = 0; i < panel.stop - panel.start; ++i, y += SIDE) {
        const int64_t column = panel.start + i;
        if (grad.by_distance.data) {
            T* __restrict to = grad.by_distance.at<T>(block.b, block.h) + (block.first - column + p.columns - 1);
            for (int64_t r = 0; r < block.count; ++r) to[r] += y[r];
        }
        if (grad.dense.data) {
            T* to = grad.dense.at<T>(block.b, block.h) + block.first * grad.dense.row + column * grad.dense.column;
            for (int64_t r = 0; r < block.count; ++r) to[r * grad.dense.row] += y[r];
        }
        if (offset)
            for (int64_t r = 0; r < block.count; ++r) *offset += y[r];
    }
}

// Gradients from all queries of key head g of sequence b.
template <typename In, typename T, typename ProductKind>
static void backward_plane(const Problem& p, const Gradients& grad, int64_t b, int64_t g, Scratch& scratch) {
    constexpr int W = LANES<T>;
    const int64_t row = round_up(p.dim, W), value_row = round_up(p.value_dim, W), share = p.heads / p.groups;
    const int64_t columns = round_up(p.columns, SIDE), blocks = (p.rows + SIDE - 1) / SIDE;
    const int64_t wide = needs_full_rows(p) ? p.columns : SIDE;
    const int64_t strips = 2 + (p.softcap != 0) + has_prior_or_dropout(p), list_count = needs_full_rows(p) && !ProductKind::BF16 ? columns / SIDE : 0;
    scratch.reserve(sizeof(T) * size_t((columns + TILE_ROWS) * (row + value_row) +
                                       SIDE * (6 * (row + value_row) + strips * (wide + TILE_ROWS))) +
                    sizeof(Nonzeros) * size_t(list_count) + ProductKind::bytes(p) + 8192);
    T* key_sum = scratch.take<T>((columns + TILE_ROWS) * row);
    T* value_sum = scratch.take<T>((columns + TILE_ROWS) * value_row);
    T* queries_by_row = scratch.take<T>(SIDE * row);
    T* query = scratch.take<T>(SIDE * row);
    T* incoming_by_row = scratch.take<T>(SIDE * value_row);
    T* incoming = scratch.take<T>(SIDE * value_row);
    T* query_sum = scratch.take<T>(SIDE * row);
    T* scores = scratch.take<T>((wide + TILE_ROWS) * SIDE);
    T* gradient = scratch.take<T>((wide + TILE_ROWS) * SIDE);
    T* capped = p.softcap != 0 ? scratch.take<T>(wide * SIDE) : nullptr;
    T* mixed = has_prior_or_dropout(p) ? scratch.take<T>(wide * SIDE) : nullptr;
    Nonzeros* nonzeros = scratch.take<Nonzeros>(list_count);  // nonzeros of each panel
    ProductKind products(p, scratch);
    T* query_rows_sum = scratch.take<T>(SIDE * row);
    fill(key_sum, columns * row, T(0));
    fill(value_sum, columns * value_row, T(0));
    RowState<T> row_state;
    Panel panel;
    for (int64_t h = g * share; h < (g + 1) * share; ++h)
        for (int64_t index = 0; index < blocks; ++index) {
            const Block block = make_block<T>(p, b, h, index);
            const T scale = products.factor();
            load_queries<In>(p.query, block, p.dim, scale, queries_by_row, row, query);
            load_queries<In>(grad.output, block, p.value_dim, T(1), incoming_by_row, value_row, incoming);
            load_row_state<In>(p, grad, block, incoming_by_row, value_row, row_state);
            for (int64_t r = 0; r < block.count; ++r)  // rows that see nothing may hold any numbers, even NaN
                if (row_state.row_max[r] == T(INFINITE)) {
                    fill(queries_by_row + r * row, row, T(0));
                    fill(incoming_by_row + r * value_row, value_row, T(0));
                    for (int64_t e = 0; e < p.dim; ++e) query[e * SIDE + r] = 0;
                }
            products.take_queries(block, query, queries_by_row);
            products.take_incoming(block, incoming, incoming_by_row);
            if constexpr (!ProductKind::BF16) {
                products.template prefetch<In>(p.query, b, h, block.first + SIDE, p.rows, p.dim);
                products.template prefetch<In>(grad.output, b, h, block.first + SIDE, p.rows, p.value_dim);
                products.template prefetch<In>(p.output, b, h, block.first + SIDE, p.rows, p.value_dim);
                products.template prefetch<In>(grad.query, b, h, block.first, p.rows, p.dim);
            }
            fill(query_sum, SIDE * row, T(0));
            const PriorRows<T> prior_rows = prior_rows_of<T>(p, block);
            T center[SIDE] = {}, sigma[SIDE] = {};
            const ColumnRange range = column_range(p, block);
            uint64_t sparse_rows = 0;  // bit set of sparse rows; entmax only
            bool is_sparse = false;     // all rows are sparse: products take the nonzeros only
            // Recomputes scores and weights of the panel into the strip.
            auto weigh_panel = [&](int64_t strip_column) {
                products.take_keys(b, g, panel);
                T* s = scores + strip_column * SIDE;
                score(p, block, panel, products, s, p.softcap != 0 ? capped + strip_column * SIDE : nullptr);
                recompute_weights(p, block, panel, row_state, s);
            };
            // Gradients of the weights.
            auto differentiate_weights = [&](int64_t strip_column) {
                products.take_values(b, g, panel);
                T *s = scores + strip_column * SIDE, *y = gradient + strip_column * SIDE;
                if (!is_sparse) products.of_weights(block, panel, y);
                if (needs_full_rows(p) && !is_sparse) hide(block, panel, T(0), y);  // all columns are summed over next
                if constexpr (!ProductKind::BF16)
                    if (sparse_rows) {
                        const Nonzeros& nonzero = nonzeros[panel.start / SIDE].find(block, panel, s, sparse_rows);
                        sparse_dots(nonzero, products.value, (const T*)incoming_by_row, value_row, p.value_dim,
                             [&](int64_t n, T product) { y[nonzero.indices[n]] = product; });
                    }
                if (has_prior_or_dropout(p))
                    prior_dropout_backward(p, block, panel, prior_rows, s, y, mixed + strip_column * SIDE, grad.center ? center : nullptr,
                                    sigma);
            };
            // Adds the contributions of the panel's score gradients to all input gradients.
            auto add_panel = [&](int64_t strip_column) {
                const int64_t count = panel.stop - panel.start;
                if (needs_full_rows(p)) products.take_keys(b, g, panel);
                T *s = (has_prior_or_dropout(p) ? mixed : scores) + strip_column * SIDE, *y = gradient + strip_column * SIDE;
                hide(block, panel, T(0), y);
                add_to_bias(p, grad, block, panel, y);
                if (p.softcap != 0) uncap(block, panel, capped + strip_column * SIDE, y);
                T *of_keys = key_sum + panel.start * row, *of_values = value_sum + panel.start * value_row;
                if constexpr (!ProductKind::BF16) {
                    if (is_sparse) {
                        const Nonzeros& nonzero = nonzeros[panel.start / SIDE];
                        for (int64_t n = 0; n < nonzero.count; ++n) {
                            const int64_t i = nonzero.column(n), r = nonzero.row(n);
                            add_scaled(of_values + i * value_row, incoming_by_row + r * value_row, value_row, s[nonzero.indices[n]]);
                            add_scaled(of_keys + i * row, queries_by_row + r * row, row, y[nonzero.indices[n]]);
                        }
                        return add_sparse_product(nonzero, y, products.key, p.dim, query_rows_sum, row);
                    }
                }
                products.of_values(block, panel, s, of_values, value_row);
                if constexpr (!ProductKind::BF16)
                    if (p.vector) {
                        T* vector = grad.vector ? static_cast<T*>(grad.vector) + (b * p.heads + h) * p.dim : nullptr;
                        differentiate_additive<T>(p, block, count, products.key, (const T*)query, (const T*)y, query_sum,
                                                  of_keys, row, vector);
                        return;
                    }
                products.apply_scale_remainder(count, y);
                products.of_keys(block, panel, y, of_keys, row);
                products.of_queries(block, panel, y, query_sum);
            };
            auto for_strip = [&](const auto& use) {  // `use(strip_column)`
                int64_t strip_column = 0;
                for_panels(p, block, range, panel, [&] { use(strip_column), strip_column += panel.stop - panel.start; });
            };
            const SparseWeights* list = sparse_weights_of(p, block);
            if (list && list->count >= 0) {
                is_sparse = true;
                fill(query_rows_sum, SIDE * row, T(0));
                if constexpr (Same<In, float>::value)
                    with_entmax<float>(p, h, [&](const auto& kind) {
                        sparse_backward(p, grad, block, g, *list, kind, row_state.log_sum, queries_by_row, row,
                                           incoming_by_row, value_row, key_sum, value_sum, query_rows_sum, gradient);
                    });
            } else if (!needs_full_rows(p)) {
                for_panels(p, block, range, panel, [&] {
                    weigh_panel(0);
                    differentiate_weights(0);
                    differentiate(p, block, panel, row_state, scores, gradient);
                    add_panel(0);
                });
            } else {
                SupportCount<T> support;
                for_strip([&](int64_t strip_column) {
                    weigh_panel(strip_column);
                    if (!ProductKind::BF16) support.add(block, panel, scores + strip_column * SIDE);
                });
                if (!ProductKind::BF16) sparse_rows = support.sparse_rows() & bit_range(0, block.count);
                is_sparse = !ProductKind::BF16 && !p.vector && support.all_sparse(block);
                if (is_sparse) fill(query_rows_sum, SIDE * row, T(0));
                with_entmax<T>(p, h, [&]<Power P>(const Entmax<T, P>& kind) {
                    RowSums<T> sums;
                    auto add = [&](int64_t strip_column, bool alpha) {
                        add_to_sums(block, panel.stop - panel.start, kind, alpha, row_state.log_sum, scores + strip_column * SIDE,
                                    gradient + strip_column * SIDE, sums);
                    };
                    const bool alpha = grad.alphas != nullptr;
                    for_strip([&](int64_t strip_column) {
                        differentiate_weights(strip_column);
                        if constexpr (P == Power::steep)
                            find_origin(block, panel.stop - panel.start, scores + strip_column * SIDE, gradient + strip_column * SIDE, sums);
                        else
                            add(strip_column, alpha);
                    });
                    if constexpr (P == Power::steep) {
                        if (alpha) for_strip([&](int64_t strip_column) { add(strip_column, false); }), sums.center();
                        for_strip([&](int64_t strip_column) { add(strip_column, alpha); });
                    }
                    for_strip([&](int64_t strip_column) {
                        entmax_score_gradient(block, panel.stop - panel.start, kind, sums, scores + strip_column * SIDE, gradient + strip_column * SIDE);
                        add_panel(strip_column);
                    });
                    if (grad.alphas) static_cast<T*>(grad.alphas)[b * p.heads + h] += alpha_gradient(block, sums);
                });
            }
            if (grad.center) {
                const int64_t at = (b * p.heads + h) * p.rows + block.first;
                copy_out(center, 0, 1, block.count, T(1), static_cast<T*>(grad.center) + at, 0, 1);
                copy_out(sigma, 0, 1, block.count, T(1), static_cast<T*>(grad.sigma) + at, 0, 1);
            }
            if (is_sparse) {
                copy_out(query_rows_sum, row, block.count, p.dim, scale,
                         grad.query.at<In>(b, h) + block.first * grad.query.row, grad.query.row, grad.query.column);
            } else {
                T scales[SIDE];
                fill(scales, SIDE, scale);
                store_transposed<In>(query_sum, block, p.dim, scales, query_rows_sum, row, grad.query);
            }
        }
    copy_out(key_sum, row, p.columns, p.dim, T(1), grad.key.at<In>(b, g), grad.key.row, grad.key.column);
    copy_out(value_sum, value_row, p.columns, p.value_dim, T(1), grad.value.at<In>(b, g), grad.value.row,
             grad.value.column);
}

}  // namespace regard::REGARD_ISA
