// Additive scores, v . activation(q + k), and their gradients (Bahdanau et al. 2014, arXiv 1409.0473, appendix A.1.2): no
// number for each pair and feature is ever stored.
#pragma once

#include "products.hpp"

namespace regard::REGARD_ISA {

// The activations have an error of a rounding of 1, not of their own value: they are summed over the features.
template <typename T, Activation KIND>
REGARD_INLINE Vec<T> activated(Vec<T> x) {
    if constexpr (KIND == Activation::relu) {
        return x < T(0) ? Vec<T>{} : x;
    } else {  // 1 / (1 + e^-x), and tanh(x) = 2 / (1 + e^-2x) - 1
        constexpr bool tangent = KIND == Activation::tanh;
        const Vec<T> power = x * T(tangent ? -2 * LOG2E : -LOG2E);
        const Vec<T> share = T(1) / (T(1) + power_of_two(power > T(126) ? all(T(126)) : power));
        return tangent ? share * T(2) - T(1) : share;
    }
}

// The derivative, from the value.
template <typename T, Activation KIND>
REGARD_INLINE Vec<T> steepness(Vec<T> y) {
    if constexpr (KIND == Activation::relu) return y > T(0) ? all(T(1)) : Vec<T>{};
    return KIND == Activation::tanh ? T(1) - y * y : y * (T(1) - y);
}

// Scores (count x padded rows) of queries (features x SIDE) and keys.
template <typename T, Activation KIND>
static void additive_scores(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                            T* scores) {
    constexpr int W = LANES<T>;
    const T* vector = static_cast<const T*>(p.vector) + block.h * p.dim;
    for (int64_t i = 0; i < count; ++i) {
        const T* key = keys.data + i * keys.row;
        for (int64_t r = 0; r < block.padded; r += W) {
            Vec<T> sum[2] = {};  // two chains, so that an addition does not wait for the one before
            for (int64_t e = 0; e < p.dim; ++e)
                sum[e & 1] += vector[e] * activated<T, KIND>(load(queries + e * SIDE + r) + key[e * keys.column]);
            store(scores + i * SIDE + r, sum[0] + sum[1]);
        }
    }
}

// Adds what the gradients of a panel's scores give: to queries (features x SIDE), keys (a row each), and the vector.
template <typename T, Activation KIND>
static void additive_gradients(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                               const T* gradient, T* query_sum, T* key_sum, int64_t key_row, T* vector_sum) {
    constexpr int W = LANES<T>;
    const T* vector = static_cast<const T*>(p.vector) + block.h * p.dim;
    T parts[SIDE * W], turned[W * W];  // of each key's sum, a vector each
    for (int64_t e = 0; e < p.dim; ++e) {
        Vec<T> of_vector{};
        for (int64_t i = 0; i < count; ++i) {
            const T key = keys.data[i * keys.row + e * keys.column];
            Vec<T> of_key{};
            for (int64_t r = 0; r < block.padded; r += W) {
                const Vec<T> y = activated<T, KIND>(load(queries + e * SIDE + r) + key);
                const Vec<T> g = load(gradient + i * SIDE + r), part = g * vector[e] * steepness<T, KIND>(y);
                of_vector += g * y, of_key += part;
                store(query_sum + e * SIDE + r, load(query_sum + e * SIDE + r) + part);
            }
            store(parts + i * W, of_key);
        }
        for (int64_t i = 0; i < count; i += W) {  // the sums of as many keys at once as a vector holds
            transpose_square(parts + i * W, W, turned, W);
            Vec<T> sum = load(turned);
            for (int j = 1; j < W; ++j) sum += load(turned + j * W);
            for (int64_t j = i; j < least(i + W, count); ++j) key_sum[j * key_row + e] += sum[j - i];
        }
        if (vector_sum) vector_sum[e] += total<T>(of_vector);
    }
}

template <typename T>
static void additive(const Problem& p, const Block& block, int64_t count, const Rows<T>& keys, const T* queries,
                     T* scores) {
    switch (p.activation) {
        case Activation::tanh: return additive_scores<T, Activation::tanh>(p, block, count, keys, queries, scores);
        case Activation::relu: return additive_scores<T, Activation::relu>(p, block, count, keys, queries, scores);
        case Activation::sigmoid: return additive_scores<T, Activation::sigmoid>(p, block, count, keys, queries, scores);
    }
}

template <typename T, typename... Rest>
static void differentiate_additive(const Problem& p, Rest... rest) {
    switch (p.activation) {
        case Activation::tanh: return additive_gradients<T, Activation::tanh>(p, rest...);
        case Activation::relu: return additive_gradients<T, Activation::relu>(p, rest...);
        case Activation::sigmoid: return additive_gradients<T, Activation::sigmoid>(p, rest...);
    }
}

}  // namespace regard::REGARD_ISA
