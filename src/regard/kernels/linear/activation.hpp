// Activations fused into linear maps.
#pragma once

#include "simd/memory.hpp"
#include "simd/vector_math.hpp"

namespace regard::REGARD_ISA {

// Applies a vector function to `count` numbers, in place.
template <typename Function>
static void each_vector(float* y, int64_t count, const Function& function) {
    constexpr int W = LANES<float>;
    int64_t i = 0;
    for (; i + W <= count; i += W) store(y + i, function(load(y + i)));
    if (i == count) return;
    float rest[W] = {};
    std::memcpy(rest, y + i, size_t(count - i) * sizeof(float));
    store(rest, function(load(rest)));
    std::memcpy(y + i, rest, size_t(count - i) * sizeof(float));
}

// P(X > x) of a standard normal X, 0 <= x <= 40, with an error below 1.5e-7: erfc(x / sqrt(2)) / 2 by a Chebyshev fit of its logarithm.
// Source: Press et al. 1992, "Numerical Recipes in C", section 6.2, erfcc.
REGARD_INLINE Vec<float> normal_tail(Vec<float> x) {
    static const float factors[10] = {0.17087277f, -0.82215223f, 1.48851587f, -1.13520398f, 0.27886807f,
                                      -0.18628806f, 0.09678418f, 0.37409196f, 1.00002368f, -1.26551223f};
    constexpr float HALF_ROOT = 0.35355339059327379f;  // half of 1 / sqrt(2)
    const Vec<float> t = reciprocal<float>(1.0f + HALF_ROOT * x);
    Vec<float> y = broadcast(factors[0]);
    for (int k = 1; k < 10; ++k) y = y * t + factors[k];
    return 0.5f * t * exp2_of((y - 0.5f * (x * x)) * float(LOG2E));
}

// Applies an activation, in place.
static void apply(LinearActivation activation, float* y, int64_t count) {
    switch (activation) {
        case LinearActivation::none: return;
        case LinearActivation::relu:
            return each_vector(y, count, [](Vec<float> x) { return x < 0.0f ? Vec<float>{} : x; });  // NaN stays NaN
        case LinearActivation::swish:
            return each_vector(y, count, [](Vec<float> x) {
                return x * reciprocal<float>(1.0f + exp2_of(vec_min<float>(broadcast(MAX_EXPONENT<float>), x * float(-LOG2E))));
            });
        case LinearActivation::gelu_tanh:
            return each_vector(y, count, [](Vec<float> x) {
                constexpr float FACTOR = 0.7978845608028654f;  // sqrt(2 / pi)
                Vec<float> inner = FACTOR * (x + 0.044715f * (x * x * x));
                tanh_vectors<1>(&inner);
                return 0.5f * x * (1.0f + inner);
            });
        case LinearActivation::gelu:
            return each_vector(y, count, [](Vec<float> x) {
                const Vec<float> tail = normal_tail(vec_min<float>(broadcast(40.0f), x < 0.0f ? -x : x));  // 0 from 13 on
                return x * (x < 0.0f ? tail : 1.0f - tail);
            });
    }
}

}  // namespace regard::REGARD_ISA
