// Entmax: weights [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)), with the threshold such that a row sums to 1 (Peters
// et al. 2019, arXiv 1905.05702, equation 8; sparsemax is alpha = 2).
//
// Instead of its threshold, a row is represented by an anchor: one of its scores and the weight of that key. With slope = alpha
// - 1 the other weights are [weight^slope + slope (score - anchor)]_+ ^ (1 / slope). Both numbers stay accurate where a
// threshold would not, because it lies between two floats (alpha above 2) or is nearly the same for all rows (alpha near 1).
#pragma once

#include "attention/tile.hpp"

namespace regard::REGARD_ISA {

// Ranges of alpha, with different formulas. The anchor is the smallest score with a positive weight; in `flat`, the largest
// score.
enum class Power {
    flat,    // alpha < 1.25: nearly an exponential
    curved,  // up to 2, except for the two special cases below, whose powers are cheap
    square,  // alpha = 1.5: the power is 2
    linear,  // 2: 1
    steep,   // above 2: a root, whose derivative is unbounded
};
constexpr double MIN_CURVED_ALPHA = 1.25;  // smallest alpha that is not flat

template <typename T>
constexpr T EPS = sizeof(T) == 8 ? T(2.220446049250313e-16) : T(1.1920929e-7);

// x^exponent for x > 0, and 0 for x <= 0; NaN stays NaN.
template <typename T>
REGARD_INLINE Vec<T> power(Vec<T> x, T exponent) {
    const Vec<T> powered = exp2_of(exponent * log2_of(x > T(0) ? x : broadcast(T(1))));
    return x <= T(0) ? Vec<T>{} : x > T(0) ? powered : x;
}

// Anchors of LANES rows: score, weight, and the weight's base in the formula above.
template <typename T>
struct Anchor {
    Vec<T> score, weight, base;
};

// Formulas of entmax for a range of alpha.
template <typename T, Power P>
struct Entmax {
    T slope;  // alpha - 1

    __attribute__((always_inline)) Anchor<T> anchor(Vec<T> score, Vec<T> weight) const {
        if constexpr (P == Power::linear) return {score, weight, weight};
        if constexpr (P == Power::square) return {score, weight, sqrt_of(weight)};
        if constexpr (P == Power::flat) return {score, weight, slope * power<T>(weight, -slope)};
        return {score, weight, power<T>(weight, slope)};
    }
    // Base whose power is the weight; not used in `flat`.
    __attribute__((always_inline)) Vec<T> root(Vec<T> score, const Anchor<T>& at) const {
        if constexpr (P == Power::linear) return score - at.score + at.base;
        return (score - at.score) * slope + at.base;
    }
    // Ratio of a score's weight to the anchor's, and its base; only in `flat`.
    __attribute__((always_inline)) Vec<T> share(Vec<T> score, const Anchor<T>& at, Vec<T>* root) const {
        const Vec<T> x = (score - at.score) * at.base;
        *root = x + T(1);
        return x > T(-1) ? exp2_of(log2_1p(x) * (1 / slope)) : x <= T(-1) ? Vec<T>{} : x;
    }
    __attribute__((always_inline)) Vec<T> weight(Vec<T> score, const Anchor<T>& at) const {
        if constexpr (P == Power::flat) {
            Vec<T> unused;
            return at.weight * share(score, at, &unused);
        } else {
            const Vec<T> x = root(score, at);
            if constexpr (P == Power::linear) return x <= T(0) ? Vec<T>{} : x;
            if constexpr (P == Power::square) return x <= T(0) ? Vec<T>{} : x * x;
            const Vec<T> powered = power<T>(x, 1 / slope);
            if constexpr (P == Power::curved) return powered;
            return score > at.score ? powered : score == at.score ? at.weight : score < at.score ? Vec<T>{} : score;
        }
    }
    // Derivative of a weight by its score, from the weight: w^(2 - alpha).
    __attribute__((always_inline)) Vec<T> derivative(Vec<T> weight) const {
        if constexpr (P == Power::linear) return weight > T(0) ? broadcast(T(1)) : weight <= T(0) ? Vec<T>{} : weight;
        if constexpr (P == Power::square) return sqrt_of(weight);
        if constexpr (P != Power::steep) return power<T>(weight, 1 - slope);
        // Clamped, so that sums stay finite; other derivatives are negligible beside the bound.
        const Vec<T> exponent = (1 - slope) * log2_of(weight > T(0) ? weight : broadcast(T(1)));
        const Vec<T> bounded = exp2_of(vec_min<T>(exponent, broadcast(T(sizeof(T) == 8 ? 400 : 80))));
        return weight > T(0) ? bounded : weight <= T(0) ? Vec<T>{} : weight;
    }
};

// Calls body(Entmax) with the kind for a head's alpha.
template <typename T, typename Body>
static void with_entmax(const Problem& p, int64_t h, const Body& body) {
    const T slope = static_cast<const T*>(p.alphas)[h] - 1;
    if (slope == T(1)) return body(Entmax<T, Power::linear>{slope});
    if (slope == T(0.5)) return body(Entmax<T, Power::square>{slope});
    if (slope < T(MIN_CURVED_ALPHA - 1)) return body(Entmax<T, Power::flat>{slope});
    if (slope > T(1)) return body(Entmax<T, Power::steep>{slope});
    body(Entmax<T, Power::curved>{slope});
}

// Recomputes the weights of a panel from its scores and the rows' anchors, in place.
template <typename T, Power P>
static void recompute_entmax_weights(const Block& block, int64_t count, const Entmax<T, P>& kind, const T* anchor_scores, const T* anchor_weights, T* scores) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>) {
        const Anchor<T> at = kind.anchor(load(anchor_scores + r), load(anchor_weights + r));
        for (int64_t i = 0; i < count; ++i) store(scores + i * SIDE + r, kind.weight(load(scores + i * SIDE + r), at));
    }
}

}  // namespace regard::REGARD_ISA
