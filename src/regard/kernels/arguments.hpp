// Arguments that several bindings take: addresses, and tuples of what Python knows of tensors, norms and weights.
#pragma once

#include <cstdint>
#include <tuple>

#include "problem.hpp"

namespace regard {

using Address = uintptr_t;
using Strided = std::tuple<Address, int64_t, int64_t, int64_t, int64_t>;

using NormArguments = std::tuple<Address, Address, double, bool>;
using WeightsArguments = std::tuple<int64_t, int64_t, Address, int64_t, Address, Address, Address, Address>;

template <typename T = void>
T* at(Address address) {
    return reinterpret_cast<T*>(address);
}

inline View view(const Strided& x) {
    const auto& [address, b, h, r, c] = x;
    return {at(address), b, h, r, c};
}

inline Norm norm_of(const NormArguments& x) {
    const auto& [gain, shift, eps, before] = x;
    return {at<float>(gain), at<float>(shift), eps, before};
}

inline Weights weights(const WeightsArguments& x) {
    const auto& [outputs, depth, weight, row, bias, codes, scales, sums] = x;
    return {outputs, depth, at<float>(weight), row, at<float>(bias), at<int8_t>(codes), at<float>(scales), at<int32_t>(sums)};
}

}  // namespace regard
