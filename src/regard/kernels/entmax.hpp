// Sparse normalizers: the weights are [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)), the threshold such that a row
// sums to 1 (Peters et al. 2019, arXiv 1905.05702, equation 8; sparsemax is alpha = 2). A threshold needs its whole row, so
// a block of rows is taken as a strip against all keys that it reaches.
#pragma once

#include "tile.hpp"

namespace regard::REGARD_ISA {

// x^e for x > 0, and 0 below; NaN stays NaN. KIND is e where that is 0, 1 or 2, else ANY.
constexpr int ANY = -1;

template <typename T, int KIND>
REGARD_INLINE Vec<T> power(Vec<T> x, T exponent) {
    if constexpr (KIND == 0) return x > T(0) ? all(T(1)) : x <= T(0) ? Vec<T>{} : x;
    if constexpr (KIND == 1) return x <= T(0) ? Vec<T>{} : x;
    if constexpr (KIND == 2) return x <= T(0) ? Vec<T>{} : x * x;
    const Vec<T> found = power_of_two(exponent * logarithm(x > T(0) ? x : all(T(1))));
    return x <= T(0) ? Vec<T>{} : x > T(0) ? found : x;
}

// A head's weights are power(q, 1 / slope) of q = slope (score - shift) - level, slope = alpha - 1. KIND is 1 / slope where
// that is 1 (sparsemax) or 2 (entmax 1.5), whose powers cost nothing.
template <typename T, int KIND>
struct Entmax {
    T slope;

    __attribute__((always_inline)) Vec<T> weight(Vec<T> q) const { return power<T, KIND>(q, 1 / slope); }
    __attribute__((always_inline)) Vec<T> derivative(Vec<T> q) const {  // but for the factor 1 / slope
        return power<T, KIND == ANY ? ANY : KIND - 1>(q, 1 / slope - 1);
    }
    // What the norm of a sum of weights has too much, over its derivative but for that of the sum: sum - sum^(1 - slope).
    __attribute__((always_inline)) Vec<T> excess(Vec<T> sum) const {
        if constexpr (KIND == 1) return sum - T(1);
        const Vec<T> norm = KIND == 2 ? square_root(sum) : power<T, ANY>(sum, slope);
        return sum - sum / norm;
    }
    __attribute__((always_inline)) Vec<T> derivative_of(Vec<T> weight) const {  // the same from the weight: w^(2 - alpha)
        if constexpr (KIND == 1) return power<T, 0>(weight, T(0));
        if constexpr (KIND == 2) return square_root(weight);
        return power<T, ANY>(weight, 1 - slope);
    }
};

// Calls body(Entmax) of the kind that a head has.
template <typename T, typename Body>
static void with_entmax(const Problem& p, int64_t h, const Body& body) {
    const T slope = static_cast<const T*>(p.alphas)[h] - 1;
    if (slope == T(1)) return body(Entmax<T, 1>{slope});
    if (slope == T(0.5)) return body(Entmax<T, 2>{slope});
    body(Entmax<T, ANY>{slope});
}

// The threshold of LANES rows of a strip (columns x SIDE), whose largest scores are `shift`.
template <typename T, int KIND>
static Vec<T> threshold(const T* scores, int64_t columns, Vec<T> shift, const Entmax<T, KIND>& kind) {
    auto sum = [&](Vec<T> level, Vec<T>* steep) {  // of the weights, and of their derivatives but for the factor 1 / slope
        Vec<T> total{}, slope{};
        for (int64_t i = 0; i < columns; ++i) {
            const Vec<T> q = (load(scores + i * SIDE) - shift) * kind.slope - level;
            total += kind.weight(q);
            if (steep) slope += kind.derivative(q);
        }
        if (steep) *steep = slope;
        return total;
    };
    Vec<T> level = all(T(-1)), steep;  // the largest weight is 1: the sum is 1 or more
    if (kind.slope <= T(1)) {
        // Up to alpha = 2 the sum's power `slope`, a norm, is convex in the level, and nearly straight: Newton's steps from
        // the left rise to the root, and end where they don't rise.
        for (int step = 0; step < 64; ++step) {
            const Vec<T> total = sum(level, &steep), next = level + kind.excess(total) / steep;
            const auto rises = next > level;
            level = rises ? next : level;
            if (!bits_of<T>(rises)) break;
        }
        return level;
    }
    // Else by halves of the logarithm of the largest weight: for a large alpha the levels themselves lie too close to 0.
    const T width = T(::log2(double(columns)));
    Vec<T> high{}, low = all(-width);
    for (int step = 0; step < (sizeof(T) == 8 ? 52 : 26); ++step) {
        const Vec<T> middle = (low + high) * T(0.5);
        const auto over = sum(-power_of_two(middle * kind.slope), nullptr) > T(1);
        low = over ? low : middle, high = over ? middle : high;
    }
    level = -power_of_two(high * kind.slope);
    for (int step = 0; step < 2; ++step) {
        const Vec<T> total = sum(level, &steep);
        level = steep > T(0) ? level + (total - T(1)) * kind.slope / steep : level;
    }
    return level;
}

// Scores of whole rows to weights, in place; the shift and level of each.
template <typename T, int KIND>
static void sparse_weights(const Block& block, int64_t columns, const Entmax<T, KIND>& kind, T* strip, T* shifts, T* levels) {
    constexpr int W = LANES<T>;
    for (int64_t r = 0; r < block.padded; r += W) {
        Vec<T> top = all(T(-INFINITE));
        for (int64_t i = 0; i < columns; ++i) top = larger<T>(top, load(strip + i * SIDE + r));
        const Vec<T> shift = top == T(-INFINITE) ? Vec<T>{} : top;
        const Vec<T> level = threshold(strip + r, columns, shift, kind);
        store(shifts + r, shift), store(levels + r, level);
        for (int64_t i = 0; i < columns; ++i) {
            T* at = strip + i * SIDE + r;
            store(at, kind.weight((load(at) - shift) * kind.slope - level));
        }
    }
}

// The weights of a panel again, in place of its scores.
template <typename T, int KIND>
static void sparse_again(const Block& block, int64_t count, const Entmax<T, KIND>& kind, const T* shifts, const T* levels,
                         T* scores) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>) {
        const Vec<T> shift = load(shifts + r), level = load(levels + r);
        for (int64_t i = 0; i < count; ++i) {
            T* at = scores + i * SIDE + r;
            store(at, kind.weight((load(at) - shift) * kind.slope - level));
        }
    }
}

// What the gradients of a row's weights come to, over all its columns: in float or double, a number a row.
template <typename T>
struct RowSums {
    T slope[SIDE] = {};     // of the weights' derivatives
    T through[SIDE] = {};   // of these times the gradients
    T weighed[SIDE] = {};   // of weights times gradients
    T entropy[SIDE] = {};   // of -weight log weight
    T surprise[SIDE] = {};  // of these times the gradients
};

template <typename T, int KIND>
static void add_to_sums(const Block& block, int64_t count, const Entmax<T, KIND>& kind, bool alpha, const T* weights,
                        const T* gradient, RowSums<T>& sums) {
    constexpr int W = LANES<T>;
    for (int64_t r = 0; r < block.padded; r += W) {
        Vec<T> slope = load(sums.slope + r), through = load(sums.through + r), weighed = load(sums.weighed + r);
        Vec<T> entropy = load(sums.entropy + r), surprise = load(sums.surprise + r);
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> w = load(weights + i * SIDE + r), y = load(gradient + i * SIDE + r), u = kind.derivative_of(w);
            slope += u, through += w > T(0) ? u * y : Vec<T>{};
            if (alpha) {
                const Vec<T> h = w > T(0) ? w * logarithm(w) * T(-LN2) : Vec<T>{};
                weighed += w > T(0) ? w * y : Vec<T>{}, entropy += h, surprise += w > T(0) ? h * y : Vec<T>{};
            }
        }
        store(sums.slope + r, slope), store(sums.through + r, through), store(sums.weighed + r, weighed);
        store(sums.entropy + r, entropy), store(sums.surprise + r, surprise);
    }
}

// The gradients of the weights to those of the scores, in place. `of_level` is the gradient of each row's level.
template <typename T, int KIND>
static void sparse_gradient(const Block& block, int64_t count, const Entmax<T, KIND>& kind, const RowSums<T>& sums,
                            const T* of_level, const T* weights, T* gradient) {
    constexpr int W = LANES<T>;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> slope = load(sums.slope + r);
        const Vec<T> mean = slope > T(0) ? (load(sums.through + r) - load(of_level + r) * kind.slope) / slope : Vec<T>{};
        for (int64_t i = 0; i < count; ++i) {
            T* at = gradient + i * SIDE + r;
            const Vec<T> w = load(weights + i * SIDE + r);
            store(at, w > T(0) ? kind.derivative_of(w) * (load(at) - mean) : Vec<T>{});
        }
    }
}

// The gradient of alpha (Correia et al. 2019, arXiv 1909.00015, proposition 1), summed over the rows of a block.
template <typename T, int KIND>
static T alpha_gradient(const Block& block, const Entmax<T, KIND>& kind, const RowSums<T>& sums, const T* of_level,
                        const T* levels) {
    const T a = kind.slope;
    T found = 0;
    for (int64_t r = 0; r < block.count; ++r) {
        if (!(sums.slope[r] > 0)) continue;
        const T share = (sums.entropy[r] / a + 1 / (a * a)) / sums.slope[r];  // what the level takes back
        found += sums.weighed[r] / (a * a) + sums.surprise[r] / a - sums.through[r] * share;
        found += of_level[r] * (levels[r] / a + a * share);
    }
    return found;
}

}  // namespace regard::REGARD_ISA
