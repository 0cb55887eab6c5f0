// Sparse weights that the forward pass has listed, and their gradients: each by itself, so that the backward pass needs no
// scores but theirs.
#pragma once

#include "entmax_gradient.hpp"
#include "factors.hpp"
#include "support.hpp"

namespace regard::REGARD_ISA {

static Weighed* weighed_by(const Problem& p, const Block& block) {
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    return p.weighed ? p.weighed + (block.b * p.heads + block.h) * blocks + block.first / SIDE : nullptr;
}

// Whether weights may be listed: those of floats, read where they lie, that nothing but the normalizer has made of products.
template <typename In, typename T>
static bool is_listed(const Problem& p) {
    return Same<In, float>::value && p.key.column == 1 && p.value.column == 1 && p.columns < Weighed::COLUMNS && !p.vector &&
           p.softcap == 0 && !any_factor(p);
}

// A panel's weights behind those of the panels before; none at all if they are too many.
template <typename T>
static void add_to(Weighed& list, const Panel& panel, const Nonzeros& found, const T* weights) {
    static_assert(Weighed::ROWS == SIDE);
    if (list.count < 0) return;
    if (list.count + found.count > Weighed::MOST) {
        list.count = -1;
        return;
    }
    for (int64_t n = 0; n < found.count; ++n) {
        list.places[list.count] = uint32_t(panel.start * SIDE + found.at[n]);
        list.weights[list.count++] = float(weights[found.at[n]]);
    }
}

// Ends a list: what fills its last vector up are weights of 1, of no place. The backward pass may be of a wider instruction set.
static void close(Weighed& list) {
    constexpr int64_t WIDEST = 16;
    for (int64_t n = list.count; n > 0 && n % WIDEST != 0; ++n) list.weights[n] = 1;
}

// What a list's weights and the gradients of each, `y`, give to the sums of their rows.
template <Power P>
static void add_to_sums(const Weighed& list, const Entmax<float, P>& kind, bool alpha, const float* levels, const float* y,
                        RowSums<float>& sums) {
    constexpr int W = LANES<float>;
    for (int64_t n = 0; n < list.count; n += W) {
        float of[W] = {}, level[W];
        fill(level, W, 1.0f);
        for (int64_t j = 0; j < least(W, list.count - n); ++j) {
            const int64_t r = list.row(n + j);
            of[j] = counted(y[n + j], sums.origin[r], sums.middle[r]), level[j] = levels[r];
        }
        const Vec<float> w = load(list.weights + n), u = kind.derivative(w);
        const Vec<float> h = alpha ? by_alpha(w, load(level), kind) : Vec<float>{};
        // Rounded before they are added, as those of whole strips are: a row comes out the same either way.
        const Vec<float> through = u * load(of), through_alpha = h * load(of);
        for (int64_t j = 0; j < least(W, list.count - n); ++j) {
            const int64_t r = list.row(n + j);
            sums.slope[r] += u[j];
            if (!(w[j] > 0)) continue;  // NaN
            sums.through[r] += through[j];
            if (alpha) sums.by_alpha[r] += h[j], sums.through_alpha[r] += through_alpha[j];
        }
    }
}

// What a list gives to the gradients of values, keys and biases, and of its block's queries. `queries` and `incoming` are the
// block's rows, `y` has room for a number for each weight.
template <Power P>
static void differentiate_list(const Problem& p, const Gradients& grad, const Block& block, int64_t g, const Weighed& list,
                               const Entmax<float, P>& kind, const float* levels, const float* queries, int64_t row,
                               const float* incoming, int64_t value_row, float* of_keys, float* of_values, float* of_queries, float* y) {
    constexpr int W = LANES<float>;
    const Rows<float> key{p.key.at<float>(block.b, g), p.key.row, 1}, value{p.value.at<float>(block.b, g), p.value.row, 1};
    RowSums<float> sums;
    float mean[SIDE], slopes[W];
    dots(list, value, incoming, value_row, p.value_dim, [&](int64_t n, float found) { y[n] = found; });
    if constexpr (P == Power::steep) {
        for (int64_t n = 0; n < list.count; ++n) {
            const int64_t r = list.row(n);
            if (list.weights[n] < sums.smallest[r]) sums.smallest[r] = list.weights[n], sums.origin[r] = y[n];
        }
        if (grad.alphas) add_to_sums(list, kind, false, levels, y, sums), sums.center();
    }
    add_to_sums(list, kind, grad.alphas != nullptr, levels, y, sums);
    for (int64_t r = 0; r < SIDE; ++r) mean[r] = sums.mean(r);
    if (grad.alphas) static_cast<float*>(grad.alphas)[block.b * p.heads + block.h] += alpha_gradient(block, sums);
    float* by_distance = grad.by_distance.data ? grad.by_distance.at<float>(block.b, block.h) : nullptr;
    float* dense = grad.dense.data ? grad.dense.at<float>(block.b, block.h) + block.first * grad.dense.row : nullptr;
    for (int64_t n = 0; n < list.count; ++n) {
        const int64_t c = list.column(n), r = list.row(n);
        if (n % W == 0) store(slopes, kind.derivative(load(list.weights + n)));
        const float w = list.weights[n], of_score = w > 0 ? slopes[n % W] * (counted(y[n], sums.origin[r], sums.middle[r]) - mean[r]) : 0.0f;
        add_scaled(of_values + c * value_row, incoming + r * value_row, value_row, w);
        add_scaled(of_keys + c * row, queries + r * row, row, of_score);
        add_scaled(of_queries + r * row, key.data + c * key.row, p.dim, of_score);
        if (by_distance) by_distance[block.first + r - c + p.columns - 1] += of_score;
        if (dense) dense[r * grad.dense.row + c * grad.dense.column] += of_score;
    }
}

}  // namespace regard::REGARD_ISA
