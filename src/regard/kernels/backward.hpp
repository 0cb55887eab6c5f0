// The gradients of softmax attention, by recomputing each tile's weights from the rows' statistics (Dao et al. 2022, arXiv
// 2205.14135, algorithm 4). One thread takes all queries of a key head, in order: no two threads add to one number.
#pragma once

#include "forward.hpp"

namespace regard::REGARD_ISA {

// What the weights of a block's rows are made from.
template <typename T>
struct Rebuilt {
    T shift[SIDE], level[SIDE];  // the statistic; a row that sees nothing, or is none, has shift +inf and so weights 0
    T of_level[SIDE];            // its gradient
    T delta[SIDE];               // what softmax's gradients are measured from: output gradient . output - of_level
};

template <typename In, typename T>
static void rebuild(const Problem& p, const Gradients& grad, const Block& block, const T* incoming, int64_t row,
                    Rebuilt<T>& found) {
    const T* statistic = p.statistic.at<T>(block.b, block.h) + block.first * p.statistic.row;
    const T* more = grad.level.data ? grad.level.at<T>(block.b, block.h) + block.first * grad.level.row : nullptr;
    const In* output = p.output.at<In>(block.b, block.h) + block.first * p.output.row;
    for (int64_t r = 0; r < SIDE; ++r) {
        found.shift[r] = T(INFINITE), found.level[r] = 1;
        found.of_level[r] = found.delta[r] = 0;
        if (r >= block.count || statistic[r * p.statistic.row + 1] == T(-INFINITE)) continue;
        found.of_level[r] = more ? more[r * grad.level.row] : T(0);
        T sum = 0;
        for (int64_t c = 0; c < p.value_dim; ++c)
            sum += incoming[r * row + c] * wide<T>(output[r * p.output.row + c * p.output.column]);
        found.shift[r] = statistic[r * p.statistic.row], found.level[r] = statistic[r * p.statistic.row + 1];
        found.delta[r] = sum - found.of_level[r];
    }
}

// What a tile gives to the gradients of prior and dropout's weights: `gradient` from that of the dropped weights to that
// of the normalizer's, `mixed` the weights that the values were mixed with.
template <typename T>
static void through_factors(const Problem& p, const Block& block, const Panel& panel, const Gauss<T>& gauss,
                            const T* weights, T* gradient, T* mixed, T* center, T* sigma) {
    T prior[SIDE], keep[SIDE];
    for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
        const int64_t column = panel.start + i;
        factors(p, block, column, gauss, prior, keep);
        for (int64_t r = 0; r < block.padded; ++r) {
            T& y = gradient[i * SIDE + r];
            const T w = weights[i * SIDE + r];
            mixed[i * SIDE + r] = w * prior[r] * keep[r];
            if (center && w != 0 && r < block.count) {  // d log prior = distance / sigma^2, distance^2 / sigma^3
                const T distance = (T(column + p.prior.shift) - gauss.center[r]) / gauss.sigma;
                const T part = mixed[i * SIDE + r] * y * distance / gauss.sigma;
                center[r] += part;
                sigma[r] += part * distance;
            }
            y *= prior[r] * keep[r];
        }
    }
}

// The weights of a panel again, in place of its scores.
template <typename T>
static void reweigh(const Problem& p, const Block& block, const Panel& panel, const Rebuilt<T>& row, T* scores) {
    constexpr int W = LANES<T>;
    const int64_t count = panel.stop - panel.start;
    if (p.normalizer == Normalizer::sigmoid) {
        sigmoids(block, count, offset_of<T>(p, block.h), scores);
    } else if (whole_rows(p)) {
        with_entmax<T>(p, block.h, [&](const auto& kind) {
            sparse_again(block, count, kind, row.shift, row.level, scores);
        });
    } else {
        for (int64_t r = 0; r < block.padded; r += W) {
            const Vec<T> shift = load(row.shift + r), level = load(row.level + r);
            const Span seen = panel.seen[r / STEP];
            powers_of_columns(
                seen.stop - seen.start, scores + seen.start * SIDE + r, [&](Vec<T> score) { return (score - shift - level) * T(LOG2E); }, [](int64_t, int, Vec<T>, Vec<T>) {});
        }
    }
    hide(block, panel, T(0), scores);
}

// Gradients of the weights to those of the scores, in place.
template <typename T>
static void differentiate(const Problem& p, const Block& block, const Panel& panel, const Rebuilt<T>& row,
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

// Through the softcap: times 1 - tanh^2. What is hidden stays 0.
template <typename T>
static void uncap(const Block& block, const Panel& panel, const T* capped, T* gradient) {
    for (int64_t i = 0; i < (panel.stop - panel.start) * SIDE; i += LANES<T>) {
        const Vec<T> t = load(capped + i), y = load(gradient + i);
        store(gradient + i, y == T(0) ? y : y * (T(1) - t * t));
    }
}

// What the gradients of a tile's scores add to those of bias and offset.
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

// All queries of key head g of sequence b.
template <typename In, typename T, typename Kind>
static void backward_plane(const Problem& p, const Gradients& grad, int64_t b, int64_t g, Scratch& scratch) {
    constexpr int W = LANES<T>;
    const int64_t row = round_up(p.dim, W), value_row = round_up(p.value_dim, W), share = p.heads / p.groups;
    const int64_t columns = round_up(p.columns, SIDE), blocks = (p.rows + SIDE - 1) / SIDE;
    const int64_t wide = whole_rows(p) ? p.columns : SIDE;
    const int64_t strips = 2 + (p.softcap != 0) + any_factor(p), lists = whole_rows(p) && !Kind::PAIRS ? columns / SIDE : 0;
    scratch.reserve(sizeof(T) * size_t((columns + GROUP) * (row + value_row) +
                                       SIDE * (6 * (row + value_row) + strips * (wide + GROUP))) +
                    sizeof(Nonzeros) * size_t(lists) + Kind::bytes(p) + 8192);
    T* key_sum = scratch.take<T>((columns + GROUP) * row);
    T* value_sum = scratch.take<T>((columns + GROUP) * value_row);
    T* queries_by_row = scratch.take<T>(SIDE * row);
    T* query = scratch.take<T>(SIDE * row);
    T* incoming_by_row = scratch.take<T>(SIDE * value_row);
    T* incoming = scratch.take<T>(SIDE * value_row);
    T* query_sum = scratch.take<T>(SIDE * row);
    T* scores = scratch.take<T>((wide + GROUP) * SIDE);
    T* gradient = scratch.take<T>((wide + GROUP) * SIDE);
    T* capped = p.softcap != 0 ? scratch.take<T>(wide * SIDE) : nullptr;
    T* mixed = any_factor(p) ? scratch.take<T>(wide * SIDE) : nullptr;
    Nonzeros* nonzeros = scratch.take<Nonzeros>(lists);  // of each panel
    Kind products(p, scratch);
    T* results = scratch.take<T>(SIDE * row);
    fill(key_sum, columns * row, T(0));
    fill(value_sum, columns * value_row, T(0));
    Rebuilt<T> rebuilt;
    Panel panel;
    for (int64_t h = g * share; h < (g + 1) * share; ++h)
        for (int64_t index = 0; index < blocks; ++index) {
            const Block block = make_block<T>(p, b, h, index);
            const T scale = products.factor();
            queries<In>(p.query, block, p.dim, scale, queries_by_row, row, query);
            queries<In>(grad.output, block, p.value_dim, T(1), incoming_by_row, value_row, incoming);
            rebuild<In>(p, grad, block, incoming_by_row, value_row, rebuilt);
            for (int64_t r = 0; r < block.count; ++r)  // what sees nothing may hold anything
                if (rebuilt.shift[r] == T(INFINITE)) {
                    fill(queries_by_row + r * row, row, T(0));
                    fill(incoming_by_row + r * value_row, value_row, T(0));
                    for (int64_t e = 0; e < p.dim; ++e) query[e * SIDE + r] = 0;
                }
            products.take_queries(block, query, queries_by_row);
            products.take_incoming(block, incoming, incoming_by_row);
            if constexpr (!Kind::PAIRS) {
                products.template soon<In>(p.query, b, h, block.first + SIDE, p.rows, p.dim);
                products.template soon<In>(grad.output, b, h, block.first + SIDE, p.rows, p.value_dim);
                products.template soon<In>(p.output, b, h, block.first + SIDE, p.rows, p.value_dim);
                products.template soon<In>(grad.query, b, h, block.first, p.rows, p.dim);
            }
            fill(query_sum, SIDE * row, T(0));
            const Gauss<T> gauss = gauss_of<T>(p, block);
            T center[SIDE] = {}, sigma[SIDE] = {};
            const Reach reach = reach_of(p, block);
            uint64_t scarce = 0;  // rows that weigh few of the columns they see: only where weights are made from whole rows
            bool few = false;     // columns are all that any row weighs
            // Scores and weights of the panel, at a place of the strip.
            auto weigh_panel = [&](int64_t place) {
                products.take_keys(b, g, panel);
                T* s = scores + place * SIDE;
                score(p, block, panel, products, s, p.softcap != 0 ? capped + place * SIDE : nullptr);
                reweigh(p, block, panel, rebuilt, s);
            };
            // The gradients of the weights.
            auto differentiate_weights = [&](int64_t place) {
                products.take_values(b, g, panel);
                T *s = scores + place * SIDE, *y = gradient + place * SIDE;
                if (!few) products.of_weights(block, panel, y);
                if (whole_rows(p) && !few) hide(block, panel, T(0), y);  // sums over all columns come next
                if constexpr (!Kind::PAIRS)
                    if (scarce) {
                        const Nonzeros& places = nonzeros[panel.start / SIDE].find(block, panel, s, scarce);
                        dots(places, products.value, (const T*)incoming_by_row, value_row, p.value_dim,
                             [&](int64_t n, T found) { y[places.at[n]] = found; });
                    }
                if (any_factor(p))
                    through_factors(p, block, panel, gauss, s, y, mixed + place * SIDE, grad.center ? center : nullptr,
                                    sigma);
            };
            // From the gradients of the panel's scores, there, to those of all that they were made from.
            auto add_panel = [&](int64_t place) {
                const int64_t count = panel.stop - panel.start;
                if (whole_rows(p)) products.take_keys(b, g, panel);
                T *s = (any_factor(p) ? mixed : scores) + place * SIDE, *y = gradient + place * SIDE;
                hide(block, panel, T(0), y);
                add_to_bias(p, grad, block, panel, y);
                if (p.softcap != 0) uncap(block, panel, capped + place * SIDE, y);
                T *of_keys = key_sum + panel.start * row, *of_values = value_sum + panel.start * value_row;
                if constexpr (!Kind::PAIRS) {
                    if (few) {
                        const Nonzeros& places = nonzeros[panel.start / SIDE];
                        for (int64_t n = 0; n < places.count; ++n) {
                            const int64_t i = places.column(n), r = places.row(n);
                            add_scaled(of_values + i * value_row, incoming_by_row + r * value_row, value_row, s[places.at[n]]);
                            add_scaled(of_keys + i * row, queries_by_row + r * row, row, y[places.at[n]]);
                        }
                        return add_scarce(places, y, products.key, p.dim, results, row);
                    }
                }
                products.of_values(block, panel, s, of_values, value_row);
                if constexpr (!Kind::PAIRS)
                    if (p.vector) {
                        T* vector = grad.vector ? static_cast<T*>(grad.vector) + (b * p.heads + h) * p.dim : nullptr;
                        differentiate_additive<T>(p, block, count, products.key, (const T*)query, (const T*)y, query_sum,
                                                  of_keys, row, vector);
                        return;
                    }
                products.rescale(count, y);
                products.of_keys(block, panel, y, of_keys, row);
                products.of_queries(block, panel, y, query_sum);
            };
            auto for_strip = [&](const auto& use) {  // `use(place)`
                int64_t place = 0;
                for_panels(p, block, reach, panel, [&] { use(place), place += panel.stop - panel.start; });
            };
            const Weighed* list = weighed_by(p, block);
            if (list && list->count >= 0) {
                few = true;
                fill(results, SIDE * row, T(0));
                if constexpr (Same<In, float>::value)
                    with_entmax<float>(p, h, [&](const auto& kind) {
                        differentiate_list(p, grad, block, g, *list, kind, rebuilt.level, queries_by_row, row,
                                           incoming_by_row, value_row, key_sum, value_sum, results, gradient);
                    });
            } else if (!whole_rows(p)) {
                for_panels(p, block, reach, panel, [&] {
                    weigh_panel(0);
                    differentiate_weights(0);
                    differentiate(p, block, panel, rebuilt, scores, gradient);
                    add_panel(0);
                });
            } else {
                Support<T> counted;
                for_strip([&](int64_t place) {
                    weigh_panel(place);
                    if (!Kind::PAIRS) counted.add(block, panel, scores + place * SIDE);
                });
                if (!Kind::PAIRS) scarce = counted.scarce() & ones(0, block.count);
                few = !Kind::PAIRS && !p.vector && counted.all_scarce(block);
                if (few) fill(results, SIDE * row, T(0));
                with_entmax<T>(p, h, [&]<Power P>(const Entmax<T, P>& kind) {
                    RowSums<T> sums;
                    auto add = [&](int64_t place, bool alpha) {
                        add_to_sums(block, panel.stop - panel.start, kind, alpha, rebuilt.level, scores + place * SIDE,
                                    gradient + place * SIDE, sums);
                    };
                    const bool alpha = grad.alphas != nullptr;
                    for_strip([&](int64_t place) {
                        differentiate_weights(place);
                        if constexpr (P == Power::steep)
                            find_origin(block, panel.stop - panel.start, scores + place * SIDE, gradient + place * SIDE, sums);
                        else
                            add(place, alpha);
                    });
                    if constexpr (P == Power::steep) {
                        if (alpha) for_strip([&](int64_t place) { add(place, false); }), sums.center();
                        for_strip([&](int64_t place) { add(place, alpha); });
                    }
                    for_strip([&](int64_t place) {
                        sparse_gradient(block, panel.stop - panel.start, kind, sums, scores + place * SIDE, gradient + place * SIDE);
                        add_panel(place);
                    });
                    if (grad.alphas) static_cast<T*>(grad.alphas)[b * p.heads + h] += alpha_gradient(block, sums);
                });
            }
            if (grad.center) {
                const int64_t at = (b * p.heads + h) * p.rows + block.first;
                copy_out(center, 0, 1, block.count, T(1), static_cast<T*>(grad.center) + at, 0, 1);
                copy_out(sigma, 0, 1, block.count, T(1), static_cast<T*>(grad.sigma) + at, 0, 1);
            }
            if (few) {
                copy_out(results, row, block.count, p.dim, scale,
                         grad.query.at<In>(b, h) + block.first * grad.query.row, grad.query.row, grad.query.column);
            } else {
                T scales[SIDE];
                fill(scales, SIDE, scale);
                rows_of_columns<In>(query_sum, block, p.dim, scales, results, row, grad.query);
            }
        }
    copy_out(key_sum, row, p.columns, p.dim, T(1), grad.key.at<In>(b, g), grad.key.row, grad.key.column);
    copy_out(value_sum, value_row, p.columns, p.value_dim, T(1), grad.value.at<In>(b, g), grad.value.row,
             grad.value.column);
}

}  // namespace regard::REGARD_ISA
