// Sparse normalizers: the weights are [(alpha - 1) score - threshold]_+ ^ (1 / (alpha - 1)), the threshold such that a row
// sums to 1 (Peters et al. 2019, arXiv 1905.05702, equation 8; sparsemax is alpha = 2). A threshold needs its whole row, so
// a block of rows is taken as a strip against all keys that it reaches.
#pragma once

#include "tile.hpp"

namespace regard::REGARD_ISA {

// x^e for x > 0, and 0 below; NaN stays NaN.
template <typename T>
struct Power {
    T exponent;
    int simple;  // 1: x, 2: x^2, 3: whether x > 0, 0: anything

    explicit Power(T e) : exponent(e), simple(e == T(1) ? 1 : e == T(2) ? 2 : e == T(0) ? 3 : 0) {}

    __attribute__((always_inline)) Vec<T> operator()(Vec<T> x) const {
        const Vec<T> some = x > T(0) ? all(T(1)) : Vec<T>{};
        const Vec<T> found = simple == 1   ? x
                             : simple == 2 ? x * x
                             : simple == 3 ? some
                                           : power_of_two(exponent * logarithm(x > T(0) ? x : all(T(1))));
        return x <= T(0) ? Vec<T>{} : found;
    }
};

// The weights of a head, and their derivative but for a factor: of q = (alpha - 1) (score - shift) - level.
template <typename T>
struct Entmax {
    T slope;  // alpha - 1
    Power<T> weight, derivative;

    explicit Entmax(T alpha) : slope(alpha - 1), weight(1 / (alpha - 1)), derivative(1 / (alpha - 1) - 1) {}
};

template <typename T>
REGARD_INLINE Entmax<T> entmax_of(const Problem& p, int64_t h) {
    return Entmax<T>(static_cast<const T*>(p.alphas)[h]);
}

// The threshold of LANES rows of a strip (columns x SIDE), whose largest scores are `shift`.
template <typename T>
static Vec<T> threshold(const T* scores, int64_t columns, Vec<T> shift, const Entmax<T>& kind) {
    auto sum = [&](Vec<T> level, Vec<T>* steep) {
        Vec<T> total{}, slope{};
        for (int64_t i = 0; i < columns; ++i) {
            const Vec<T> q = (load(scores + i * SIDE) - shift) * kind.slope - level;
            total += kind.weight(q);
            if (steep) slope += kind.derivative(q);
        }
        if (steep) *steep = slope * kind.weight.exponent;
        return total;
    };
    Vec<T> level = all(T(-1)), steep;  // the largest weight is 1: the sum is 1 or more
    if (kind.weight.exponent >= 1 && kind.weight.simple) {
        // The sum is convex in the level: Newton's steps from the left rise to the root, and end where they don't rise.
        for (int step = 0; step < 64; ++step) {
            const Vec<T> total = sum(level, &steep), next = level + (total - T(1)) / steep;
            const auto rises = next > level;
            bool any = false;
            for (int i = 0; i < LANES<T>; ++i) any |= rises[i] != 0;
            level = rises ? next : level;
            if (!any) break;
        }
        return level;
    }
    // By halves of the logarithm of the largest weight: for a large alpha the levels themselves lie too close to 0.
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
        level = steep > T(0) ? level + (total - T(1)) / steep : level;
    }
    return level;
}

// Scores of whole rows to weights, in place; the shift and level of each.
template <typename T>
static void sparse_weights(const Block& block, int64_t columns, const Entmax<T>& kind, T* strip, T* shifts, T* levels) {
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

// What the gradients of a row's weights come to, over all its columns: in float or double, a number a row.
template <typename T>
struct RowSums {
    T slope[SIDE] = {};     // of the weights' derivatives
    T through[SIDE] = {};   // of these times the gradients
    T weighed[SIDE] = {};   // of weights times gradients
    T entropy[SIDE] = {};   // of -weight log weight
    T surprise[SIDE] = {};  // of these times the gradients
};

// From weights, the numbers q that they come from being lost: derivative = weight^(2 - alpha).
template <typename T>
static void add_to_sums(const Block& block, int64_t count, const Entmax<T>& kind, bool alpha, const T* weights,
                        const T* gradient, RowSums<T>& sums) {
    constexpr int W = LANES<T>;
    const Power<T> derivative(1 - kind.slope);
    for (int64_t r = 0; r < block.padded; r += W) {
        Vec<T> slope = load(sums.slope + r), through = load(sums.through + r), weighed = load(sums.weighed + r);
        Vec<T> entropy = load(sums.entropy + r), surprise = load(sums.surprise + r);
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> w = load(weights + i * SIDE + r), y = load(gradient + i * SIDE + r), u = derivative(w);
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
template <typename T>
static void sparse_gradient(const Block& block, int64_t count, const Entmax<T>& kind, const RowSums<T>& sums,
                            const T* of_level, const T* weights, T* gradient) {
    constexpr int W = LANES<T>;
    const Power<T> derivative(1 - kind.slope);
    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> slope = load(sums.slope + r);
        const Vec<T> mean = slope > T(0) ? (load(sums.through + r) - load(of_level + r) * kind.slope) / slope : Vec<T>{};
        for (int64_t i = 0; i < count; ++i) {
            T* at = gradient + i * SIDE + r;
            const Vec<T> w = load(weights + i * SIDE + r);
            store(at, w > T(0) ? derivative(w) * (load(at) - mean) : Vec<T>{});
        }
    }
}

// The gradient of alpha (Correia et al. 2019, arXiv 1909.00015, proposition 1), summed over the rows of a block.
template <typename T>
static T alpha_gradient(const Block& block, const Entmax<T>& kind, const RowSums<T>& sums, const T* of_level,
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
