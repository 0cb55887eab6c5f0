// Gradients of entmax from the weights: with g = w^(2 - alpha), those of the scores are g (y - sum g y / sum g), y the
// gradients of the weights (Peters et al. 2019, arXiv 1905.05702, proposition 2).
#pragma once

#include "attention/entmax.hpp"

namespace regard::REGARD_ISA {

// Sums over all columns of a row, for the gradients of its scores and of alpha.
template <typename T>
struct RowSums {
    T slope[SIDE] = {};          // of the weights' derivatives, g
    T through[SIDE] = {};        // of g times the gradients
    T by_alpha[SIDE] = {};       // of the derivatives by alpha at constant threshold
    T through_alpha[SIDE] = {};  // of these times the gradients
    // Gradients of weights are taken relative to origin + middle, which changes nothing, since the weights' sum is constant.
    // For alpha above 2, `origin` is the gradient of the smallest weight, whose g may dominate all others so that their
    // differences would be lost to rounding; for alpha's gradient `middle` is also their mean.
    T origin[SIDE] = {}, middle[SIDE] = {};
    T smallest[SIDE];

    RowSums() { fill(smallest, SIDE, T(INFINITE)); }

    T mean(int64_t r) const { return slope[r] > 0 ? through[r] / slope[r] : T(0); }
    void center() {  // stores the mean and restarts the sums
        for (int64_t r = 0; r < SIDE; ++r) middle[r] = mean(r), slope[r] = through[r] = 0;
    }
};

// Gradient of a weight relative to the row's origin and mean.
template <typename T>
REGARD_INLINE T centered(T gradient, T origin, T middle) {
    return gradient - origin - middle;
}

// Gradient of the smallest positive weight of each row, as the row's origin.
template <typename T>
static void find_origin(const Block& block, int64_t count, const T* weights, const T* gradient, RowSums<T>& sums) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>) {
        Vec<T> smallest = load(sums.smallest + r), origin = load(sums.origin + r);
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> w = load(weights + i * SIDE + r);
            const auto vec_min = (w > T(0)) & (w < smallest);
            smallest = vec_min ? w : smallest, origin = vec_min ? load(gradient + i * SIDE + r) : origin;
        }
        store(sums.smallest + r, smallest), store(sums.origin + r, origin);
    }
}

// Derivative of positive weights w by alpha, up to a multiple of g, which the threshold absorbs: w / a^2 - w log(w) / a with a
// = alpha - 1 (Correia et al. 2019, arXiv 1909.00015, proposition 1). For alpha up to 2 it is taken relative to a weight of the
// same row, so that the common part of all weights does not arise.
template <typename T, Power P>
REGARD_INLINE Vec<T> by_alpha(Vec<T> weight, Vec<T> anchor_weight, const Entmax<T, P>& kind) {
    const T a = kind.slope;
    if constexpr (P == Power::steep) return weight * (1 / (a * a)) - weight * log2_of(weight) * T(LN2 / a);
    const Vec<T> unit = vec_max<T>(anchor_weight, broadcast(EPS<T>)), x = a * T(LN2) * log2_of(weight / unit);
    // 1 - e^-x - x, near 0 by its series: -x^2 / 2 (1 - x / 3 (1 - x / 4 (...)))
    Vec<T> series = broadcast(T(1));
    for (int k = sizeof(T) == 8 ? 14 : 7; k > 2; --k) series = 1 - x * series * T(1.0 / k);
    const auto is_small = (x > T(-0.25)) & (x < T(0.25));
    const Vec<T> curve = is_small ? x * x * series * T(-0.5) : 1 - exp2_of(x * T(-LOG2E)) - x;
    return weight * (curve * (1 / (a * a)) - log2_of(unit) * (curve + x) * T(LN2 / a));
}

// Adds the contributions of a panel to the row sums.
template <typename T, Power P>
static void add_to_sums(const Block& block, int64_t count, const Entmax<T, P>& kind, bool alpha, const T* anchor_weights, const T* weights,
                        const T* gradient, RowSums<T>& sums) {
    constexpr int W = LANES<T>;
    for (int64_t r = 0; r < block.padded; r += W) {
        Vec<T> slope = load(sums.slope + r), through = load(sums.through + r);
        Vec<T> part = load(sums.by_alpha + r), through_part = load(sums.through_alpha + r);
        const Vec<T> origin = load(sums.origin + r), middle = load(sums.middle + r), anchor_weight = load(anchor_weights + r);
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> w = load(weights + i * SIDE + r), u = kind.derivative(w);
            const Vec<T> y = centered(load(gradient + i * SIDE + r), origin, middle);
            slope += u, through += w > T(0) ? u * y : Vec<T>{};
            if (alpha) {
                const Vec<T> h = w > T(0) ? by_alpha(w, anchor_weight, kind) : Vec<T>{};
                part += h, through_part += w > T(0) ? h * y : Vec<T>{};
            }
        }
        store(sums.slope + r, slope), store(sums.through + r, through);
        store(sums.by_alpha + r, part), store(sums.through_alpha + r, through_part);
    }
}

// Gradients of the weights to gradients of the scores, in place.
template <typename T, Power P>
static void entmax_score_gradient(const Block& block, int64_t count, const Entmax<T, P>& kind, const RowSums<T>& sums, const T* weights,
                            T* gradient) {
    constexpr int W = LANES<T>;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> slope = load(sums.slope + r), origin = load(sums.origin + r), middle = load(sums.middle + r);
        const Vec<T> mean = slope > T(0) ? load(sums.through + r) / slope : Vec<T>{};
        for (int64_t i = 0; i < count; ++i) {
            T* at = gradient + i * SIDE + r;
            const Vec<T> w = load(weights + i * SIDE + r);
            store(at, w > T(0) ? kind.derivative(w) * (centered(load(at), origin, middle) - mean) : Vec<T>{});
        }
    }
}

// Gradient of alpha, summed over the rows of a block.
template <typename T>
static T alpha_gradient(const Block& block, const RowSums<T>& sums) {
    T gradient = 0;
    for (int64_t r = 0; r < block.count; ++r)
        if (sums.slope[r] > 0) gradient += sums.through_alpha[r] - sums.through[r] * (sums.by_alpha[r] / sums.slope[r]);
    return gradient;
}

}  // namespace regard::REGARD_ISA
