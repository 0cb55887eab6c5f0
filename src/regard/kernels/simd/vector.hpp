// Vectors of the widest register that the instruction set has, by the compilers' vector extension: one source for
// AVX-512, AVX2, SSE and NEON. Everything is static: two instruction sets must not share a function.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace regard::REGARD_ISA {

#if defined(__AVX512F__)
constexpr int BYTES = 64;
constexpr int TALL = 6, WIDE = 4;  // rows and vectors of a register tile: 24 sums, 4 columns, 1 factor in 32 registers
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

// A line of memory that is not read soon: it is not fetched before, and takes no room in the caches.
#if defined(__AVX512F__)
constexpr bool CAN_STREAM = true;
template <typename T>
REGARD_INLINE void stream(T* to, Vec<T> x) {
    _mm512_stream_si512((__m512i*)to, (__m512i)x);
}
REGARD_INLINE void stream_fence() { _mm_sfence(); }  // before other threads may read it
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
    return x - Vec<T>{};  // adding to 0 would not be free: it turns -0 into 0
}

template <typename T>
REGARD_INLINE Vec<T> vec_max(Vec<T> a, Vec<T> b) {  // `b` where one of them is NaN
#if defined(__AVX512F__)  // the compilers make two instructions of the choice, for fear of NaN
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

// 1 / x of a normal number below 2^126. Where a vector's division takes 16 cycles: from an estimate of 14 bits, by a step
// of Newton's method, which leaves an error of a rounding or so.
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

template <typename T>
REGARD_INLINE T lane_max(Vec<T> x) {
    T result = x[0];
    for (int i = 1; i < LANES<T>; ++i) result = x[i] > result ? x[i] : result;
    return result;
}

// Pairwise, so that the order of additions is that of a tree on every compiler.
template <typename T>
REGARD_INLINE T lane_sum(Vec<T> x) {
    T part[LANES<T>];
    store(part, x);
    for (int half = LANES<T> / 2; half > 0; half /= 2)
        for (int i = 0; i < half; ++i) part[i] += part[i + half];
    return part[0];
}

template <int... I>
struct Indices {};
template <int N, int... I>
struct MakeIndices : MakeIndices<N - 1, N - 1, I...> {};
template <int... I>
struct MakeIndices<0, I...> {
    typedef Indices<I...> type;
};

// Lane i of the result is b's where the bit `STEP` of i is set, else a's: the sum of the lanes that differ in this bit.
template <typename T, int STEP, int... I>
REGARD_INLINE Vec<T> fold(Vec<T> a, Vec<T> b, Indices<I...>) {
    constexpr int W = LANES<T>;
    return __builtin_shufflevector(a, b, (I & STEP ? W + I : I)...) +
           __builtin_shufflevector(a, b, (I & STEP ? W + I - STEP : I + STEP)...);
}

// The sums of the lanes of LANES vectors, in order; each by the same tree, whatever the others are.
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

// A bit for each lane, from lanes whose bits are all set or none.
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

// All bits set in the lanes whose bit is set.
template <typename T>
REGARD_INLINE Ints<T> mask_from_bits(uint64_t bits) {
    Ints<T> lane{};
    for (int i = 0; i < LANES<T>; ++i) lane[i] = typename Types<T>::Int(1) << i;
    return ((Ints<T>{} + typename Types<T>::Int(bits & ((uint64_t(1) << LANES<T>) - 1))) & lane) != 0;
}

// `x` in the lanes whose bit is set, else `other`.
template <typename T>
REGARD_INLINE Vec<T> select(uint64_t bits, Vec<T> x, Vec<T> other) {
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) return (Vec<T>)_mm512_mask_blend_ps(__mmask16(bits), (__m512)other, (__m512)x);
#endif
    return mask_from_bits<T>(bits) ? x : other;
}

}  // namespace regard::REGARD_ISA
