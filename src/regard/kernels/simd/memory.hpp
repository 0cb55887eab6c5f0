// Data movement between the caller's tensors and the kernels' buffers: conversion, scaling, transposition, prefetching, scratch
// memory.
#pragma once

#include <cstdlib>

#include "problem.hpp"
#include "simd/vector.hpp"

namespace regard::REGARD_ISA {

// bfloat16, as bits.
struct Bfloat {
    uint16_t bits;
};
typedef _Float16 Half;

// Conversion of any input type to T.
template <typename T>
REGARD_INLINE T convert(float x) {
    return x;
}
template <typename T>
REGARD_INLINE T convert(double x) {
    return x;
}
template <typename T>
REGARD_INLINE T convert(Half x) {
    return T(x);
}
template <typename T>
REGARD_INLINE T convert(Bfloat x) {
    const uint32_t bits = uint32_t(x.bits) << 16;
    float number;
    std::memcpy(&number, &bits, 4);
    return number;
}

template <typename To, typename T>
REGARD_INLINE void store_as(To* to, T x) {
    *to = To(x);
}
template <typename T>
REGARD_INLINE void store_as(Bfloat* to, T x) {  // round to nearest even; NaN stays NaN
    const float single = float(x);
    uint32_t bits;
    std::memcpy(&bits, &single, 4);
    to->bits = single != single ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Whether two types are the same.
template <typename A, typename B>
struct Same {
    static constexpr bool value = false;
};
template <typename A>
struct Same<A, A> {
    static constexpr bool value = true;
};

REGARD_INLINE int64_t min(int64_t a, int64_t b) { return a < b ? a : b; }
REGARD_INLINE int64_t max(int64_t a, int64_t b) { return a > b ? a : b; }
REGARD_INLINE int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

// Software prefetch of a matrix into the second-level cache, line by line, interleaved with other work.
class Prefetch {
public:
    Prefetch() = default;
    Prefetch(const void* data, int64_t rows, int64_t row, int64_t bytes)  // `row`: stride in bytes
        : start_(static_cast<const char*>(data)), row_(row), bytes_(bytes), rows_left_(rows - 1) {
        if (row == bytes) bytes_ *= rows, rows_left_ = 0;
        at_ = start_, end_ = rows > 0 ? start_ + bytes_ : start_;
    }

    bool done() const { return at_ >= end_; }
    int64_t lines() const { return done() ? 0 : (end_ - at_ + LINE - 1) / LINE + rows_left_ * ((bytes_ + LINE - 1) / LINE); }

    __attribute__((always_inline)) void fetch(int64_t lines) {
        for (int64_t i = 0; i < lines && !done(); ++i) {
            __builtin_prefetch(at_, 0, 2);
            at_ += LINE;
            if (done() && rows_left_ > 0) --rows_left_, at_ = start_ += row_, end_ = start_ + bytes_;
        }
    }

private:
    static constexpr int64_t LINE = 64;
    const char *start_ = nullptr, *at_ = nullptr, *end_ = nullptr;  // current row, position in it, and its end
    int64_t row_ = 0, bytes_ = 0, rows_left_ = 0;                        // rows left after the current one
};

// Queue of prefetches, processed one matrix after the other.
class PrefetchQueue {
public:
    bool done() const { return current_.done(); }
    void add(Prefetch rows) {
        if (current_.done()) current_ = rows;
        else if (count_ < CAPACITY) queue_[count_++] = rows;
    }
    __attribute__((always_inline)) void fetch_line() {
        current_.fetch(1);
        if (current_.done() && count_ > 0) next();
    }

private:
    static constexpr int CAPACITY = 4;
    void next() {
        current_ = queue_[0];
        for (int i = 1; i < count_; ++i) queue_[i - 1] = queue_[i];
        --count_;
    }
    Prefetch current_, queue_[CAPACITY];
    int count_ = 0;
};

// Copies a strided matrix (rows x columns) to rows of T with stride `to_row`.
template <typename In, typename T>
static void copy_in(const In* from, int64_t row, int64_t column, int64_t rows, int64_t columns, T* to, int64_t to_row) {
    for (int64_t r = 0; r < rows; ++r) {
        const In* __restrict source = from + r * row;
        T* __restrict target = to + r * to_row;
        if (column == 1)
            for (int64_t c = 0; c < columns; ++c) target[c] = convert<T>(source[c]);
        else
            for (int64_t c = 0; c < columns; ++c) target[c] = convert<T>(source[c * column]);
    }
}

// Copies rows of T to a strided matrix, times a factor.
template <typename Out, typename T>
static void copy_out(const T* from, int64_t from_row, int64_t rows, int64_t columns, T factor, Out* to, int64_t row,
                     int64_t column) {
    for (int64_t r = 0; r < rows; ++r) {
        const T* __restrict source = from + r * from_row;
        Out* __restrict target = to + r * row;
        if (column == 1)
            for (int64_t c = 0; c < columns; ++c) store_as(target + c, source[c] * factor);
        else
            for (int64_t c = 0; c < columns; ++c) store_as(target + c * column, source[c] * factor);
    }
}

template <typename T>
static void fill(T* to, int64_t count, T x) {
    for (int64_t i = 0; i < count; ++i) to[i] = x;
}

// Interleaves the lower (FROM = 0) or upper halves of two vectors: a0 b0 a1 b1 ...
template <typename T, int FROM, int... I>
REGARD_INLINE Vec<T> interleave(Vec<T> a, Vec<T> b, Indices<I...>) {
    return __builtin_shufflevector(a, b, (FROM + I / 2 + (I % 2 ? LANES<T> : 0))...);
}

// Transposes a LANES x LANES square and multiplies its target columns by `factor`, in log2(LANES) rounds of interleaving.
// STREAM: by non-temporal stores of whole lines.
template <bool STREAM = false, typename T>
REGARD_INLINE void transpose_square(const T* from, int64_t row, T* to, int64_t to_row, Vec<T> factor = broadcast(T(1))) {
    constexpr int W = LANES<T>;
    typedef typename MakeIndices<W>::type Lanes;
    Vec<T> x[W], y[W];
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) x[i] = load(from + i * row) * factor;
#pragma GCC unroll 4
    for (int round = 1; round < W; round *= 2) {
#pragma GCC unroll 16
        for (int i = 0; i < W / 2; ++i) {
            y[2 * i] = interleave<T, 0>(x[i], x[i + W / 2], Lanes());
            y[2 * i + 1] = interleave<T, W / 2>(x[i], x[i + W / 2], Lanes());
        }
#pragma GCC unroll 16
        for (int i = 0; i < W; ++i) x[i] = y[i];
    }
#pragma GCC unroll 16
    for (int i = 0; i < W; ++i) {
        if constexpr (STREAM) stream(to + i * to_row, x[i]);
        else store(to + i * to_row, x[i]);
    }
}

// Transposes `from` (rows x columns) to `to` (columns x rows), both with contiguous rows.
template <bool STREAM = false, typename T>
static void transpose(const T* from, int64_t row, int64_t rows, int64_t columns, T* to, int64_t to_row) {
    constexpr int W = LANES<T>;
    int64_t r = 0;
    for (; r + W <= rows; r += W) {
        int64_t c = 0;
        for (; c + W <= columns; c += W) transpose_square<STREAM>(from + r * row + c, row, to + c * to_row + r, to_row);
        for (; c < columns; ++c)
            for (int i = 0; i < W; ++i) to[c * to_row + r + i] = from[(r + i) * row + c];
    }
    for (; r < rows; ++r)
        for (int64_t c = 0; c < columns; ++c) to[c * to_row + r] = from[r * row + c];
}

// Scratch memory of a thread, reused between calls: memory fresh from the system costs a page fault for every 4 KiB.
struct Scratch {
    char* base = nullptr;
    size_t size = 0, used = 0;

    ~Scratch() { std::free(base); }

    void reserve(size_t bytes) {
        used = 0;
        if (bytes <= size) return;
        std::free(base);
        size = (bytes + 4095) / 4096 * 4096;
        base = static_cast<char*>(std::aligned_alloc(64, size));
        if (base == nullptr) std::abort();  // at most some MiB
    }

    template <typename T>
    T* take(int64_t count) {
        T* buffer = reinterpret_cast<T*>(base + used);
        used += (size_t(count) * sizeof(T) + 63) / 64 * 64;
        return buffer;
    }
};

}  // namespace regard::REGARD_ISA
