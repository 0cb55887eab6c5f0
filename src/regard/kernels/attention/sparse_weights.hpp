// Sparse weights listed by the forward pass, and their gradients: with a list, the backward pass needs no other scores.
#pragma once

#include "attention/entmax_gradient.hpp"
#include "attention/prior_dropout.hpp"
#include "attention/sparse_rows.hpp"

namespace regard::REGARD_ISA {

// List of a block; null if none was requested.
static SparseWeights* sparse_weights_of(const Problem& p, const Block& block) {
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    return p.sparse_weights ? p.sparse_weights + (block.b * p.heads + block.h) * blocks + block.first / SIDE : nullptr;
}

// Whether weights may be listed: float32 inputs read in place, dot scores without softcap, no prior or dropout.
template <typename In, typename T>
static bool can_list(const Problem& p) {
    return Same<In, float>::value && p.key.column == 1 && p.value.column == 1 && p.columns < SparseWeights::COLUMNS && !p.vector &&
           p.softcap == 0 && !has_prior_or_dropout(p);
}

// Appends a panel's nonzero weights to a list; on overflow the list becomes invalid (count -1).
template <typename T>
static void append(SparseWeights& list, const Panel& panel, const Nonzeros& nonzeros, const T* weights) {
    static_assert(SparseWeights::ROWS == SIDE);
    if (list.count < 0) return;
    if (list.count + nonzeros.count > SparseWeights::CAPACITY) {
        list.count = -1;
        return;
    }
    for (int64_t n = 0; n < nonzeros.count; ++n) {
        list.positions[list.count] = uint32_t(panel.start * SIDE + nonzeros.indices[n]);
        list.weights[list.count++] = float(weights[nonzeros.indices[n]]);
    }
}

// Pads a list with weights of 1 to a whole vector; the backward pass may run on a wider instruction set.
static void pad_list(SparseWeights& list) {
    constexpr int64_t WIDEST = 16;
    for (int64_t n = list.count; n > 0 && n % WIDEST != 0; ++n) list.weights[n] = 1;
}

// Adds the contributions of a list's weights, and of their gradients `y`, to the row sums.
template <Power P>
static void add_to_sums(const SparseWeights& list, const Entmax<float, P>& kind, bool alpha, const float* anchor_weights, const float* y,
                        RowSums<float>& sums) {
    constexpr int W = LANES<float>;
    for (int64_t n = 0; n < list.count; n += W) {
        float of[W] = {}, anchor_weight[W];
        fill(anchor_weight, W, 1.0f);
        for (int64_t j = 0; j < min(W, list.count - n); ++j) {
            const int64_t r = list.row(n + j);
            of[j] = centered(y[n + j], sums.origin[r], sums.middle[r]), anchor_weight[j] = anchor_weights[r];
        }
        const Vec<float> w = load(list.weights + n), u = kind.derivative(w);
        const Vec<float> h = alpha ? by_alpha(w, load(anchor_weight), kind) : Vec<float>{};
        // Rounded before they are added, as in the dense path, so that both give the same bits.
        const Vec<float> through = u * load(of), through_alpha = h * load(of);
        for (int64_t j = 0; j < min(W, list.count - n); ++j) {
            const int64_t r = list.row(n + j);
            sums.slope[r] += u[j];
            if (!(w[j] > 0)) continue;  // NaN
            sums.through[r] += through[j];
            if (alpha) sums.by_alpha[r] += h[j], sums.through_alpha[r] += through_alpha[j];
        }
    }
}

// Gradients of values, keys, queries and biases from a list. `queries` and `incoming` are the block's rows; `y` is a buffer
// with a number for each weight.
template <Power P>
static void sparse_backward(const Problem& p, const Gradients& grad, const Block& block, int64_t g, const SparseWeights& list,
                               const Entmax<float, P>& kind, const float* anchor_weights, const float* queries, int64_t row,
                               const float* incoming, int64_t value_row, float* of_keys, float* of_values, float* of_queries, float* y) {
    constexpr int W = LANES<float>;
    const Rows<float> key{p.key.at<float>(block.b, g), p.key.row, 1}, value{p.value.at<float>(block.b, g), p.value.row, 1};
    RowSums<float> sums;
    float mean[SIDE], slopes[W];
    sparse_dots(list, value, incoming, value_row, p.value_dim, [&](int64_t n, float product) { y[n] = product; });
    if constexpr (P == Power::steep) {
        for (int64_t n = 0; n < list.count; ++n) {
            const int64_t r = list.row(n);
            if (list.weights[n] < sums.smallest[r]) sums.smallest[r] = list.weights[n], sums.origin[r] = y[n];
        }
        if (grad.alphas) add_to_sums(list, kind, false, anchor_weights, y, sums), sums.center();
    }
    add_to_sums(list, kind, grad.alphas != nullptr, anchor_weights, y, sums);
    for (int64_t r = 0; r < SIDE; ++r) mean[r] = sums.mean(r);
    if (grad.alphas) static_cast<float*>(grad.alphas)[block.b * p.heads + block.h] += alpha_gradient(block, sums);
    float* by_distance = grad.by_distance.data ? grad.by_distance.at<float>(block.b, block.h) : nullptr;
    float* dense = grad.dense.data ? grad.dense.at<float>(block.b, block.h) + block.first * grad.dense.row : nullptr;
    for (int64_t n = 0; n < list.count; ++n) {
        const int64_t c = list.column(n), r = list.row(n);
        if (n % W == 0) store(slopes, kind.derivative(load(list.weights + n)));
        const float w = list.weights[n], of_score = w > 0 ? slopes[n % W] * (centered(y[n], sums.origin[r], sums.middle[r]) - mean[r]) : 0.0f;
        add_scaled(of_values + c * value_row, incoming + r * value_row, value_row, w);
        add_scaled(of_keys + c * row, queries + r * row, row, of_score);
        add_scaled(of_queries + r * row, key.data + c * key.row, p.dim, of_score);
        if (by_distance) by_distance[block.first + r - c + p.columns - 1] += of_score;
        if (dense) dense[r * grad.dense.row + c * grad.dense.column] += of_score;
    }
}

}  // namespace regard::REGARD_ISA
