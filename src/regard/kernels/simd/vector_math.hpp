// Elementwise exp2, log2, sqrt and tanh of vectors.
#pragma once

#include <math.h>

#include "simd/vector.hpp"

namespace regard::REGARD_ISA {

constexpr double LOG2E = 1.4426950408889634, LN2 = 0.6931471805599453;

#if defined(__AVX512F__)
constexpr int CHAINS = 8;  // independent computations in flight: latency of an operation times two per cycle
#else
constexpr int CHAINS = 4;
#endif

// exp2 of N vectors, in place, for x <= 127; exactly 0 below -126 (or -125.5) and exactly 1 at 0; NaN stays NaN. All vectors
// advance step by step together: out-of-order execution looks ahead over only a few vectors, so computing one after the other
// would stall on latency. The polynomial is the minimax one of degree 6 on [-1/2, 1/2] with relative error 2e-9. No result is
// denormal, which would slow down later products.
template <int N>
REGARD_INLINE void exp2_vectors(Vec<float>* x) {
    static const float factors[7] = {1.54614446986e-4f, 1.34004281776e-3f, 9.61805667852e-3f, 5.55032722667e-2f,
                                     2.40226509223e-1f, 6.93147206703e-1f, 1.0f};
    constexpr float LEAST = -126.0f;
    Vec<float> whole[N], part[N], y[N];
#if defined(__AVX512F__)
    constexpr float TIMES = 1;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) whole[i] = (Vec<float>)_mm512_roundscale_ps((__m512)x[i], _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    // Twice the polynomial and an exponent one lower, so that 2^-126 becomes 0.
    constexpr float TIMES = 2, SHIFT = 12582912.0f;  // adding it rounds x to the nearest integer
    Vec<float> shifted[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = vec_max<float>(broadcast(LEAST), x[i]);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) shifted[i] = x[i] + SHIFT;
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) whole[i] = shifted[i] - SHIFT;
#endif
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) part[i] = x[i] - whole[i], y[i] = broadcast(TIMES * factors[0]);
#pragma GCC unroll 6
    for (int k = 1; k < 7; ++k)
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) y[i] = y[i] * part[i] + TIMES * factors[k];
#if defined(__AVX512F__)
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
        const __mmask16 some = _mm512_cmp_ps_mask((__m512)whole[i], _mm512_set1_ps(LEAST), _CMP_NLE_UQ);  // also true for NaN
        x[i] = (Vec<float>)_mm512_maskz_scalef_ps(some, (__m512)y[i], (__m512)whole[i]);
    }
#else
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) x[i] = y[i] * (Vec<float>)(((Ints<float>)shifted[i] + (126 - 0x4b400000)) << 23);
#endif
}

// Largest x for which 1 / (1 + 2^x) is a normal number.
template <typename T>
constexpr T MAX_EXPONENT = sizeof(T) == 8 ? T(1022) : T(125);

template <int N>
REGARD_INLINE void exp2_vectors(Vec<double>* x) {
    for (int i = 0; i < N; ++i)
        for (int lane = 0; lane < LANES<double>; ++lane) x[i][lane] = exp2(x[i][lane]);
}

REGARD_INLINE Vec<float> exp2_of(Vec<float> x) {
    exp2_vectors<1>(&x);
    return x;
}
REGARD_INLINE Vec<double> exp2_of(Vec<double> x) {
    exp2_vectors<1>(&x);
    return x;
}
REGARD_INLINE float exp2_of(float x) { return exp2_of(broadcast(x))[0]; }
REGARD_INLINE double exp2_of(double x) { return exp2(x); }

// log2(x + rest) of a normal x > 0 and a rest below its rounding: the exponent, plus 2 artanh((m - 1) / (m + 1)) / ln 2 of the
// mantissa, sqrt(1/2) < m < sqrt(2). Where the exponent is not 0, `rest` is not scaled by it, an error within rounding.
REGARD_INLINE Vec<float> log2_of_normal(Vec<float> x, Vec<float> rest) {
    const Ints<float> bits = (Ints<float>)x;
    const Ints<float> exponent = ((bits - 0x3f3504f3) >> 23);
    const Vec<float> m = (Vec<float>)(bits - (exponent << 23));
    const Vec<float> s = (m - 1.0f + rest) / (m + 1.0f), t = s * s;
    Vec<float> y = broadcast(float(2 / (9 * LN2)));
    y = y * t + float(2 / (7 * LN2));
    y = y * t + float(2 / (5 * LN2));
    y = y * t + float(2 / (3 * LN2));
    y = y * t + float(2 / LN2);
    // One product per sum: of two, the compiler could fuse either, and rounding would depend on the surrounding code.
    return __builtin_convertvector(exponent, Vec<float>) + s * y;
}

// log2(x), x > 0.
REGARD_INLINE Vec<float> log2_of(Vec<float> x) {
    const auto tiny = x < 1.17549435e-38f;  // denormals are scaled by 2^23
    return log2_of_normal(x * (tiny ? broadcast(8388608.0f) : broadcast(1.0f)), Vec<float>{}) - (tiny ? broadcast(23.0f) : Vec<float>{});
}

// log2(1 + x), x > -1, to the relative precision of x.
REGARD_INLINE Vec<float> log2_1p(Vec<float> x) {
    const Vec<float> y = 1.0f + x;
    return log2_of_normal(y, x - (y - 1.0f));
}
REGARD_INLINE Vec<double> log2_1p(Vec<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = log1p(x[i]) * LOG2E;
    return x;
}

template <typename T>
REGARD_INLINE T sqrt_of(T x) {  // of a vector; compiles to one instruction
    for (int i = 0; i < int(sizeof(T) / sizeof(x[0])); ++i) x[i] = sizeof(x[0]) == 4 ? __builtin_sqrtf(x[i]) : __builtin_sqrt(x[i]);
    return x;
}

REGARD_INLINE Vec<double> log2_of(Vec<double> x) {
    for (int i = 0; i < LANES<double>; ++i) x[i] = log2(x[i]);
    return x;
}

// tanh of N vectors, in place and interleaved like `exp2_vectors`. Below 5/8 by the minimax polynomial of (tanh x / x - 1) /
// x^2, error 4e-8; above by 1 - 2 e / (1 + e), e = 2^(-2 |x| log2 e), which would cancel near 0.
template <int N>
REGARD_INLINE void tanh_vectors(Vec<float>* x) {
    static const float factors[5] = {-0.006096714166f, 0.020997179f, -0.05385090958f, 0.1333276974f, -0.3333332894f};
    Vec<float> e[N], y[N], s[N];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) e[i] = (x[i] < 0.0f ? -x[i] : x[i]) * float(-2 * LOG2E);
    exp2_vectors<N>(e);
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) e[i] = 1.0f - 2.0f * (e[i] * reciprocal<float>(1.0f + e[i]));
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) s[i] = x[i] * x[i], y[i] = broadcast(factors[0]);
#pragma GCC unroll 4
    for (int k = 1; k < 5; ++k)
#pragma GCC unroll 8
        for (int i = 0; i < N; ++i) y[i] = y[i] * s[i] + factors[k];
#pragma GCC unroll 8
    for (int i = 0; i < N; ++i) {
        const Vec<float> far = x[i] < 0.0f ? -e[i] : e[i];
        x[i] = s[i] < 0.625f * 0.625f ? x[i] + x[i] * (s[i] * y[i]) : far;
    }
}

template <int N>
REGARD_INLINE void tanh_vectors(Vec<double>* x) {
    for (int i = 0; i < N; ++i)
        for (int lane = 0; lane < LANES<double>; ++lane) x[i][lane] = tanh(x[i][lane]);
}

}  // namespace regard::REGARD_ISA
