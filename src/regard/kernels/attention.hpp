// The two entries of an instruction set: attention and its gradients, cut into independent pieces of work.
#pragma once

#include "backward.hpp"
#include "digit_products.hpp"
#include "few.hpp"
#include "summary.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

static thread_local Scratch scratch, strip;  // for a block, and for scores that are kept beside it

template <typename In, typename T>
static void few_of(const Problem& p) {
    const int64_t pieces = (p.columns + CUT - 1) / CUT, heads = p.batch * p.heads;
    const size_t bytes = sizeof(T) * size_t(heads * p.rows * pieces * (p.value_dim + 2));
    static thread_local Scratch kept;
    kept.reserve(bytes);
    T* parts = kept.take<T>(int64_t(bytes / sizeof(T)));
    // Waking another thread pays for some tens of thousands of numbers.
    const int threads = heads * p.columns * (p.dim + p.value_dim) < (1 << 16) ? 1 : p.threads;
    const int64_t count = p.batch * p.groups * pieces;
    shared_out(count, pieces == 1 ? most(1, least(8, count / (4 * threads))) : 1, threads,
               [&](int64_t i) { few_of_piece<In, T>(p, parts, pieces, i, scratch); });
    for (int64_t i = 0; pieces > 1 && i < heads; ++i) few_merged<In, T>(p, parts, pieces, i / p.heads, i % p.heads);
}

template <typename In, typename T, typename Kind = Products<In, T>>
static void forward_of(const Problem& p) {
    if (is_few(p)) return few_of<In, T>(p);
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    // At most a head at a time: of sequences of unequal lengths one may be most of the work.
    shared_out(p.batch * p.heads * blocks, 1, blocks, p.threads, [&](int64_t i) {
        const int64_t plane = i / blocks;
        forward_block<In, T, Kind>(p, make_block<T>(p, plane / p.heads, plane % p.heads, i % blocks), scratch);
    });
}

template <typename In, typename T, typename Kind = Products<In, T>>
static void backward_of(const Problem& p, const Gradients& gradients) {
    shared_out(p.batch * p.groups, 1, p.threads,
               [&](int64_t i) { backward_plane<In, T, Kind>(p, gradients, i / p.groups, i % p.groups, scratch); });
}

constexpr int64_t KEPT = int64_t(1) << 19;  // bytes of a block's scores that wait for its summaries: a second-level cache's

template <typename In, typename T, typename Kind = Products<In, T>>
static void summarize_of(const Problem& p, const Summary& wanted) {
    const int64_t planes = p.batch * p.heads;
    // A head's blocks in order: they add to the same sums. So threads must have about as many heads each, or they compute
    // the output first.
    const bool together = p.output.data && !is_few(p) && (planes % p.threads == 0 || planes > 4 * p.threads);
    if (p.output.data && !together) forward_of<In, T, Kind>(p);
    shared_out(planes, 1, p.threads, [&](int64_t plane) {
        for (int64_t index = 0; index < (p.rows + SIDE - 1) / SIDE; ++index) {
            const Block block = make_block<T>(p, plane / p.heads, plane % p.heads, index);
            T* kept = nullptr;
            if (together) {
                const Reach reach = reach_of(p, block);
                const int64_t columns = reach.stop > reach.start ? reach.stop - reach.start : 0;
                const int64_t bytes = columns * SIDE * int64_t(sizeof(T));
                if (!whole_rows(p) && bytes > 0 && bytes <= KEPT) strip.reserve(size_t(bytes)), kept = strip.take<T>(columns * SIDE);
                forward_block<In, T, Kind>(p, block, scratch, kept);
            }
            summarize_block<In, T, Kind>(p, wanted, block, scratch, kept);
        }
    });
}

// Whether bf16 is multiplied two numbers at a time: not in additive scores, which are no products.
static bool by_pairs(const Problem& p) { return p.type == Type::bf16 && !p.vector; }

// Whether floats are multiplied by their digits: not where tiles of 64 along the depth are filled badly, or used little.
static bool by_digits(const Problem& p) {
    auto fills = [](int64_t width) { return 5 * width >= 4 * round_up(width, 64); };
    return p.type == Type::f32 && !p.vector && fills(p.dim) && fills(p.value_dim) && most(p.dim, p.value_dim) <= DEEPEST &&
           least(p.rows, p.columns) >= 32;
}

static Problem as_new_call(const Problem& p) {
    static uint64_t calls = 0;
    Problem found = p;
    found.call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    return found;
}

static void forward(const Problem& p) {
    if constexpr (HAS_PAIRS)
        if (by_pairs(p)) return forward_of<Bfloat, float, PairProducts>(p);
    if constexpr (HAS_DIGITS)
        if (by_digits(p)) return forward_of<float, float, DigitProducts>(as_new_call(p));
    switch (p.type) {
        case Type::f32: return forward_of<float, float>(p);
        case Type::f64: return forward_of<double, double>(p);
        case Type::f16: return forward_of<Half, float>(p);
        case Type::bf16: return forward_of<Bfloat, float>(p);
    }
}

static void backward(const Problem& p, const Gradients& gradients) {
    if constexpr (HAS_PAIRS)
        if (by_pairs(p)) return backward_of<Bfloat, float, PairProducts>(p, gradients);
    if constexpr (HAS_DIGITS)
        if (by_digits(p)) return backward_of<float, float, DigitProducts>(as_new_call(p), gradients);
    switch (p.type) {
        case Type::f32: return backward_of<float, float>(p, gradients);
        case Type::f64: return backward_of<double, double>(p, gradients);
        case Type::f16: return backward_of<Half, float>(p, gradients);
        case Type::bf16: return backward_of<Bfloat, float>(p, gradients);
    }
}

static void summarize(const Problem& p, const Summary& wanted) {
    if constexpr (HAS_PAIRS)
        if (by_pairs(p)) return summarize_of<Bfloat, float, PairProducts>(p, wanted);
    if constexpr (HAS_DIGITS)
        if (by_digits(p)) return summarize_of<float, float, DigitProducts>(as_new_call(p), wanted);
    switch (p.type) {
        case Type::f32: return summarize_of<float, float>(p, wanted);
        case Type::f64: return summarize_of<double, double>(p, wanted);
        case Type::f16: return summarize_of<Half, float>(p, wanted);
        case Type::bf16: return summarize_of<Bfloat, float>(p, wanted);
    }
}

// Which queries (B, H, L) see something, and which keys (B, G, S) are seen; both hold false at first.
static void seen(const Problem& p, bool* queries, bool* keys) {
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    for (int64_t b = 0; b < p.batch; ++b)
        for (int64_t h = 0; h < p.heads; ++h)
            for (int64_t index = 0; index < blocks; ++index) {
                const Block block = make_block<float>(p, b, h, index);
                const Reach reach = reach_of(p, block);
                bool* of_rows = queries + (b * p.heads + h) * p.rows + block.first;
                bool* of_columns = keys + (b * p.groups + h / (p.heads / p.groups)) * p.columns;
                Panel panel;
                for_panels(p, block, reach, panel, [&] {
                    uint64_t some = 0;
                    for (int64_t c = panel.start; c < panel.stop; ++c) {
                        const uint64_t rows =
                            panel.sight == Sight::full ? ~uint64_t(0) : panel.rows[c - panel.start];
                        of_columns[c] |= rows != 0;
                        some |= rows;
                    }
                    for (int64_t r = 0; r < block.count; ++r) of_rows[r] |= some >> r & 1;
                });
            }
}

}  // namespace regard::REGARD_ISA
