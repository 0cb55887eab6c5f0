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
    }
}

}  // namespace regard::REGARD_ISA
