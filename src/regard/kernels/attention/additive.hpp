// Additive scores v . activation(q + k) and their gradients (Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2), without
// storing a number for each pair and feature.
#pragma once

#include "attention/attention_products.hpp"

namespace regard::REGARD_ISA {

// Approximate tanh of N vectors, in place, within a few roundings and cheaper than `tanh_vectors`: x p(x^2) / q(x^2), the
// minimax fit of degrees 4 and 4 on [-9, 9] with relative error 2e-8; beyond, a float's tanh is 1. NaN stays NaN.
template <int N>
REGARD_INLINE void tanh_approx(Vec<float>* x) {
    static const float above[5] = {1.33542488e-8f, 2.06087771e-5f, 3.49556950e-3f, 1.33810100e-1f, 9.99999979e-1f};
    static const float below[5] = {7.77638685e-7f, 3.28560436e-4f, 2.58769115e-2f, 4.67143256e-1f, 1.0f};
    Vec<float> square[N], p[N], q[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = vec_max<float>(broadcast(-9.0f), vec_min<float>(broadcast(9.0f), x[i]));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) square[i] = x[i] * x[i], p[i] = broadcast(above[0]), q[i] = broadcast(below[0]);
#pragma GCC unroll 4
    for (int k = 1; k < 5; ++k)
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) p[i] = p[i] * square[i] + above[k], q[i] = q[i] * square[i] + below[k];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = x[i] * p[i] * reciprocal<float>(q[i]);
}

template <int N>
REGARD_INLINE void tanh_approx(Vec<double>* x) {
    tanh_vectors<N>(x);
}

// Activation of N vectors, in place. The error is some roundings of 1, not of the value: values are summed over features.
template <typename T, Activation KIND, int N>
REGARD_INLINE void activate(Vec<T>* x) {
    if constexpr (KIND == Activation::relu) {
        for (int i = 0; i < N; ++i) x[i] = x[i] < T(0) ? Vec<T>{} : x[i];
    } else {  // 1 / (1 + e^-x) = (1 + tanh(x / 2)) / 2
        constexpr bool sigmoid = KIND == Activation::sigmoid;
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x[i] = sigmoid ? x[i] * T(0.5) : x[i];
        tanh_approx<N>(x);
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) x[i] = sigmoid ? x[i] * T(0.5) + T(0.5) : x[i];
    }
}

// Derivative of the activation, from its value.
template <typename T, Activation KIND>
REGARD_INLINE Vec<T> activation_derivative(Vec<T> y) {
    if constexpr (KIND == Activation::relu) return y > T(0) ? broadcast(T(1)) : Vec<T>{};
    return KIND == Activation::tanh ? T(1) - y * y : y * (T(1) - y);
}

constexpr int64_t TOGETHER = 16;  // features summed separately first, to round long sums less

// Scores of KEYS keys and VECTORS vectors of rows.
template <typename T, Activation KIND, int KEYS, int VECTORS>
static inline void additive_tile(const Problem& p, const T* vector, const Rows<T>& keys, int64_t first, const T* queries,
                                 T* scores) {
    constexpr int W = LANES<T>, N = KEYS * VECTORS;
    Vec<T> sum[N] = {};
    const T* key = keys.data + first * keys.row;
    for (int64_t from = 0; from < p.dim; from += TOGETHER) {
        Vec<T> part[N] = {};
        for (int64_t e = from; e < min(from + TOGETHER, p.dim); ++e) {
            Vec<T> x[N];
#pragma GCC unroll 8
            for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 8
                for (int v = 0; v < VECTORS; ++v)
                    x[k * VECTORS + v] = load(queries + e * SIDE + v * W) + key[k * keys.row + e * keys.column];
            activate<T, KIND, N>(x);
#pragma GCC unroll 8
            for (int i = 0; i < N; ++i) part[i] += vector[e] * x[i];
        }
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) sum[i] += part[i];
    }
#pragma GCC unroll 8
    for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 8
        for (int v = 0; v < VECTORS; ++v) store(scores + (first + k) * SIDE + v * W, sum[k * VECTORS + v]);
}

// Scores of all keys and VECTORS vectors of rows.
template <typename T, Activation KIND, int VECTORS>
static void additive_columns(const Problem& p, const T* vector, int64_t count, const Rows<T>& keys, const T* queries,
                             T* scores) {
    constexpr int KEYS = CHAINS / VECTORS;
    int64_t i = 0;
    for (; i + KEYS <= count; i += KEYS) additive_tile<T, KIND, KEYS, VECTORS>(p, vector, keys, i, queries, scores);
    for (; i < count; ++i) additive_tile<T, KIND, 1, VECTORS>(p, vector, keys, i, queries, scores);
}

// Scores (count x padded rows) of queries (features x SIDE) with keys.
template <typename T, Activation KIND>
static void additive_scores(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                            T* scores) {
    constexpr int W = LANES<T>;
    const T* vector = static_cast<const T*>(p.vector) + block.h * p.dim;
    int64_t r = 0;
    for (; r + 4 * W <= block.padded; r += 4 * W)
        additive_columns<T, KIND, 4>(p, vector, count, keys, queries + r, scores + r);
    for (; r < block.padded; r += W) additive_columns<T, KIND, 1>(p, vector, count, keys, queries + r, scores + r);
}

// Adds the gradients, from a panel's score gradients, of queries (features x SIDE), keys (by rows) and the vector v.
template <typename T, Activation KIND>
static void additive_gradients(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                               const T* gradient, T* query_sum, T* key_sum, int64_t key_row, T* vector_sum) {
    constexpr int W = LANES<T>, VECTORS = CHAINS / 2;  // for two keys
    const T* vector = static_cast<const T*>(p.vector) + block.h * p.dim;
    T parts[SIDE * W], turned[W * W];  // lane sums of each key
    for (int64_t e = 0; e < p.dim; ++e) {
        Vec<T> of_vector{};
        auto add = [&]<int KEYS, int N>(int64_t i, int64_t r, Vec<T>* of_key) {
            Vec<T> x[KEYS * N], sum[N];
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) sum[n] = load(query_sum + e * SIDE + r + n * W);
#pragma GCC unroll 8
            for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 8
                for (int n = 0; n < N; ++n)
                    x[k * N + n] = load(queries + e * SIDE + r + n * W) + keys.data[(i + k) * keys.row + e * keys.column];
            activate<T, KIND, KEYS * N>(x);
#pragma GCC unroll 8
            for (int k = 0; k < KEYS; ++k)
#pragma GCC unroll 8
                for (int n = 0; n < N; ++n) {
                    const Vec<T> y = x[k * N + n], g = load(gradient + (i + k) * SIDE + r + n * W);
                    const Vec<T> part = g * vector[e] * activation_derivative<T, KIND>(y);
                    of_vector += g * y, of_key[k] += part, sum[n] += part;
                }
#pragma GCC unroll 8
            for (int n = 0; n < N; ++n) store(query_sum + e * SIDE + r + n * W, sum[n]);
        };
        int64_t i = 0;
        for (; i + 2 <= count; i += 2) {
            Vec<T> of_key[2] = {};
            int64_t r = 0;
            for (; r + VECTORS * W <= block.padded; r += VECTORS * W) add.template operator()<2, VECTORS>(i, r, of_key);
            for (; r < block.padded; r += W) add.template operator()<2, 1>(i, r, of_key);
            store(parts + i * W, of_key[0]), store(parts + (i + 1) * W, of_key[1]);
        }
        for (; i < count; ++i) {
            Vec<T> of_key[1] = {};
            for (int64_t r = 0; r < block.padded; r += W) add.template operator()<1, 1>(i, r, of_key);
            store(parts + i * W, of_key[0]);
        }
        for (i = 0; i < count; i += W) {  // lane sums of LANES keys at once
            transpose_square(parts + i * W, W, turned, W);
            Vec<T> sum = load(turned);
            for (int j = 1; j < W; ++j) sum += load(turned + j * W);
            for (int64_t j = i; j < min(i + W, count); ++j) key_sum[j * key_row + e] += sum[j - i];
        }
        if (vector_sum) vector_sum[e] += lane_sum<T>(of_vector);
    }
}

// Additive scores of a panel, for the call's activation.
template <typename T>
static void additive(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                     T* scores) {
    switch (p.activation) {
        case Activation::tanh: return additive_scores<T, Activation::tanh>(p, block, count, keys, queries, scores);
        case Activation::relu: return additive_scores<T, Activation::relu>(p, block, count, keys, queries, scores);
        case Activation::sigmoid: return additive_scores<T, Activation::sigmoid>(p, block, count, keys, queries, scores);
    }
}

// Gradients of additive scores, for the call's activation.
template <typename T, typename... Rest>
static void differentiate_additive(const Problem& p, Rest... rest) {
    switch (p.activation) {
        case Activation::tanh: return additive_gradients<T, Activation::tanh>(p, rest...);
        case Activation::relu: return additive_gradients<T, Activation::relu>(p, rest...);
        case Activation::sigmoid: return additive_gradients<T, Activation::sigmoid>(p, rest...);
    }
}

}  // namespace regard::REGARD_ISA
