// SIMD vectors of the widest register of the instruction set, by the compilers' vector extension: one source for AVX-512, AVX2,
// SSE and NEON. Every function is static, since instruction sets must not share symbols.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
constexpr int TALL = 6, WIDE = 4;  // rows and vectors of a register tile: 24 sums, 4 columns and 1 broadcast factor in 32 registers
#elif defined(__AVX2__)
constexpr int BYTES = 32;
constexpr int TALL = 6, WIDE = 2;  // 12 sums in 16 registers
#elif defined(__aarch64__)
constexpr int BYTES = 16;
constexpr int TALL = 6, WIDE = 4;  // 24 sums in 32 registers
#else
constexpr int BYTES = 16;
constexpr int TALL = 4, WIDE = 2;
#endif

constexpr float INFINITE = __builtin_inff();

// Vector types of an element type; Loose is unaligned.
template <typename T>
struct Types;
template <>
struct Types<float> {
    typedef float Vec __attribute__((vector_size(BYTES), may_alias));
    typedef float Loose __attribute__((vector_size(BYTES), may_alias, aligned(4)));
    typedef int32_t Ints __attribute__((vector_size(BYTES), may_alias));
    typedef int32_t Int;
};
template <>
struct Types<double> {
    typedef double Vec __attribute__((vector_size(BYTES), may_alias));
    typedef double Loose __attribute__((vector_size(BYTES), may_alias, aligned(8)));
    typedef int64_t Ints __attribute__((vector_size(BYTES), may_alias));
    typedef int64_t Int;
};

template <typename T>
using Vec = typename Types<T>::Vec;
template <typename T>
using Ints = typename Types<T>::Ints;
template <typename T>
constexpr int LANES = BYTES / int(sizeof(T));

#define REGARD_INLINE static inline __attribute__((always_inline))

template <typename T>
REGARD_INLINE Vec<T> load(const T* from) {
    return *reinterpret_cast<const typename Types<T>::Loose*>(from);
}

template <typename T>
REGARD_INLINE void store(T* to, Vec<T> x) {
    *reinterpret_cast<typename Types<T>::Loose*>(to) = x;
}

// Non-temporal store of a cache line: neither read for ownership nor kept in the caches.
#if defined(__AVX512F__)
constexpr bool CAN_STREAM = true;
template <typename T>
REGARD_INLINE void stream(T* to, Vec<T> x) {
    _mm512_stream_si512((__m512i*)to, (__m512i)x);
}
REGARD_INLINE void stream_fence() { _mm_sfence(); }  // orders streamed stores before other threads read them
#else
constexpr bool CAN_STREAM = false;
template <typename T>
REGARD_INLINE void stream(T* to, Vec<T> x) {
    store(to, x);
}
REGARD_INLINE void stream_fence() {}
#endif

template <typename T>
REGARD_INLINE Vec<T> broadcast(T x) {
    return x - Vec<T>{};  // not 0 + x, which the compiler cannot drop: it turns -0 into 0
}

template <typename T>
REGARD_INLINE Vec<T> vec_max(Vec<T> a, Vec<T> b) {  // `b` where one of them is NaN
#if defined(__AVX512F__)  // the compilers emit two instructions for the ternary, because of NaN
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_max_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_max_ps((__m256)a, (__m256)b);
#endif
    return a > b ? a : b;
}

template <typename T>
REGARD_INLINE Vec<T> vec_min(Vec<T> a, Vec<T> b) {  // `b` where one of them is NaN
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_min_ps((__m512)a, (__m512)b);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm256_min_ps((__m256)a, (__m256)b);
#endif
    return a < b ? a : b;
}

// Reciprocal of a normal number below 2^126. With AVX-512, where a vector division takes 16 cycles: a 14-bit estimate and one
// step of Newton's method, with an error of about one rounding.
template <typename T>
REGARD_INLINE Vec<T> reciprocal(Vec<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const Vec<T> y = (Vec<T>)_mm512_rcp14_ps((__m512)x);
        return y + y * (T(1) - x * y);
    }
#endif
    return T(1) / x;
}

// Largest lane.
template <typename T>
REGARD_INLINE T lane_max(Vec<T> x) {
    T result = x[0];
    for (int i = 1; i < LANES<T>; ++i) result = x[i] > result ? x[i] : result;
    return result;
}

// Sum of the lanes, added pairwise as a tree, in the same order on every compiler.
template <typename T>
REGARD_INLINE T lane_sum(Vec<T> x) {
    T part[LANES<T>];
    store(part, x);
    for (int half = LANES<T> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

// Compile-time index sequences 0 ... N - 1.
template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    typedef Indices<I...> type;
};

// One step of a lane reduction: lane i holds the sum of two lanes that differ in bit STEP of their number, of `b` where that
// bit of i is set, else of `a`.
template <typename T, int STEP, int... I>
REGARD_INLINE Vec<T> fold(Vec<T> a, Vec<T> b, Indices<I...>) {
    constexpr int W = LANES<T>;
    return __builtin_shufflevector(a, b, (I & STEP ? W + I : I)...) +
           __builtin_shufflevector(a, b, (I & STEP ? W + I - STEP : I + STEP)...);
}

// Lane sums of LANES vectors, in order; each is added as the same tree, whatever the other vectors are.
template <typename T, int STEP = 1>
REGARD_INLINE Vec<T> lane_sums(const Vec<T>* x) {
    constexpr int W = LANES<T>;
    if constexpr (STEP == W) {
        return *x;
    } else {
        Vec<T> half[W / STEP / 2];
#pragma GCC unroll 16
        for (int i = 0; i < W / STEP / 2; ++i) half[i] = fold<T, STEP>(x[2 * i], x[2 * i + 1], typename MakeIndices<W>::type());
        return lane_sums<T, 2 * STEP>(half);
    }
}

// Bit mask of lanes whose bits are either all set or all clear.
template <typename T>
REGARD_INLINE uint64_t lane_bits(Ints<T> x) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return _mm512_movepi32_mask((__m512i)x);
    else return _mm512_movepi64_mask((__m512i)x);
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) return uint64_t(_mm256_movemask_ps((__m256)x));
    else return uint64_t(_mm256_movemask_pd((__m256d)x));
#else
    uint64_t bits = 0;
    for (int i = 0; i < LANES<T>; ++i) bits |= uint64_t(x[i] & 1) << i;
    return bits;
#endif
}

// Lane mask from a bit mask: all bits set in the lanes whose bit is set.
template <typename T>
REGARD_INLINE Ints<T> mask_from_bits(uint64_t bits) {
    Ints<T> lane{};
    for (int i = 0; i < LANES<T>; ++i) lane[i] = typename Types<T>::Int(1) << i;
    return ((Ints<T>{} + typename Types<T>::Int(bits & ((uint64_t(1) << LANES<T>) - 1))) & lane) != 0;
}

// Blend: `x` in the lanes whose bit is set, else `other`.
template <typename T>
REGARD_INLINE Vec<T> select(uint64_t bits, Vec<T> x, Vec<T> other) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_blend_ps(__mmask16(bits), (__m512)other, (__m512)x);
#endif
    return mask_from_bits<T>(bits) ? x : other;
}

}  // namespace regard::REGARD_ISA
