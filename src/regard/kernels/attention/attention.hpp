// Entries for attention of an instruction set, which split a call into independent pieces for the threads.
#pragma once

#include "attention/backward.hpp"
#include "attention/choice.hpp"
#include "attention/int8_split_attention.hpp"
#include "decode/split_kv.hpp"
#include "attention/summary.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

static thread_local Scratch scratch, strip;  // scratch: of a block; strip: its saved scores

// Forward pass by split-KV attention (split_kv.hpp), in parallel over chunks of keys.
template <typename In, typename T>
static void split_kv_forward(const Problem& p) {
    const int64_t chunks = (p.columns + CHUNK_KEYS - 1) / CHUNK_KEYS, heads = p.batch * p.heads;
    const size_t bytes = sizeof(T) * size_t(heads * p.rows * chunks * (p.value_dim + 2));
    static thread_local Scratch partials_scratch;
    partials_scratch.reserve(bytes);
    T* partials = partials_scratch.take<T>(int64_t(bytes / sizeof(T)));
    // Starting another thread pays from some ten thousand numbers on.
    const int threads = heads * p.columns * (p.dim + p.value_dim) < (1 << 16) ? 1 : p.threads;
    const int64_t count = p.batch * p.groups * chunks;
    parallel_for(count, chunks == 1 ? max(1, min(8, count / (4 * threads))) : 1, threads,
               [&](int64_t i) { split_kv_task<In, T>(p, partials, chunks, i, scratch); });
    for (int64_t i = 0; chunks > 1 && i < heads; ++i) merge_chunks<In, T>(p, partials, chunks, i / p.heads, i % p.heads);
}

// Forward pass, in parallel over blocks of queries.
template <typename In, typename T, typename ProductKind = Products<In, T>>
static void forward_of(const Problem& p) {
    if (uses_split_kv(p)) return split_kv_forward<In, T>(p);
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    // At most a head at a time: with unequal lengths, one sequence may be most of the work.
    parallel_for(p.batch * p.heads * blocks, 1, blocks, p.threads, [&](int64_t i) {
        const int64_t plane = i / blocks;
        const Block block = make_block<T>(p, plane / p.heads, plane % p.heads, i % blocks);
        if (chooses_key(p)) choose_block<In, T, ProductKind>(p, block, scratch);
        else forward_block<In, T, ProductKind>(p, block, scratch);
    });
}

// Backward pass, in parallel over key heads.
template <typename In, typename T, typename ProductKind = Products<In, T>>
static void backward_of(const Problem& p, const Gradients& gradients) {
    parallel_for(p.batch * p.groups, 1, p.threads,
               [&](int64_t i) { backward_plane<In, T, ProductKind>(p, gradients, i / p.groups, i % p.groups, scratch); });
}

constexpr int64_t MAX_SAVED_BYTES = int64_t(1) << 19;  // bytes of a block's scores saved for its summaries: they should stay in the second-level cache

// Summaries, and the output if requested, in parallel over heads.
template <typename In, typename T, typename ProductKind = Products<In, T>>
static void summarize_of(const Problem& p, const Summary& summary) {
    const int64_t planes = p.batch * p.heads;
    // One thread takes a head's blocks in order, since they add to the same sums. Unless threads then have nearly equal numbers
    // of heads, the output is computed first, in parallel over blocks.
    const bool one_pass = p.output.data && !uses_split_kv(p) && (planes % p.threads == 0 || planes > 4 * p.threads);
    if (p.output.data && !one_pass) forward_of<In, T, ProductKind>(p);
    parallel_for(planes, 1, p.threads, [&](int64_t plane) {
        for (int64_t index = 0; index < (p.rows + SIDE - 1) / SIDE; ++index) {
            const Block block = make_block<T>(p, plane / p.heads, plane % p.heads, index);
            T* saved_scores = nullptr;
            if (one_pass) {
                const ColumnRange range = column_range(p, block);
                const int64_t columns = range.stop > range.start ? range.stop - range.start : 0;
                const int64_t bytes = columns * SIDE * int64_t(sizeof(T));
                if (!needs_full_rows(p) && bytes > 0 && bytes <= MAX_SAVED_BYTES) strip.reserve(size_t(bytes)), saved_scores = strip.take<T>(columns * SIDE);
                forward_block<In, T, ProductKind>(p, block, scratch, saved_scores);
            }
            summarize_block<In, T, ProductKind>(p, summary, block, scratch, saved_scores);
        }
    });
}

// Whether a call uses bf16 dot products: bf16 inputs, except for additive scores.
static bool uses_bf16_dot(const Problem& p) { return p.type == Type::bf16 && !p.vector; }

// Whether a call uses int8-split products: float32, head dims that fill 64-deep tiles well, and enough queries and keys.
static bool uses_int8_split(const Problem& p) {
    auto fills = [](int64_t width) { return 5 * width >= 4 * round_up(width, 64); };
    return p.type == Type::f32 && !p.vector && fills(p.dim) && fills(p.value_dim) && max(p.dim, p.value_dim) <= MAX_SPLIT_DEPTH &&
           min(p.rows, p.columns) >= 32;
}

// The call with a new number, which invalidates per-thread caches of splits.
static Problem with_call_number(const Problem& p) {
    static uint64_t calls = 0;
    Problem numbered = p;
    numbered.call = __atomic_add_fetch(&calls, 1, __ATOMIC_RELAXED);
    return numbered;
}

// Entry points: choose input type and kind of products.
static void forward(const Problem& p) {
    if constexpr (HAS_BF16_DOT)
        if (uses_bf16_dot(p)) return forward_of<Bfloat, float, Bf16Products>(p);
    if constexpr (HAS_INT8_SPLIT)
        if (uses_int8_split(p)) return forward_of<float, float, Int8SplitProducts>(with_call_number(p));
    switch (p.type) {
        case Type::f32: return forward_of<float, float>(p);
        case Type::f64: return forward_of<double, double>(p);
        case Type::f16: return forward_of<Half, float>(p);
        case Type::bf16: return forward_of<Bfloat, float>(p);
    }
}

static void backward(const Problem& p, const Gradients& gradients) {
    if constexpr (HAS_BF16_DOT)
        if (uses_bf16_dot(p)) return backward_of<Bfloat, float, Bf16Products>(p, gradients);
    if constexpr (HAS_INT8_SPLIT)
        if (uses_int8_split(p)) return backward_of<float, float, Int8SplitProducts>(with_call_number(p), gradients);
    switch (p.type) {
        case Type::f32: return backward_of<float, float>(p, gradients);
        case Type::f64: return backward_of<double, double>(p, gradients);
        case Type::f16: return backward_of<Half, float>(p, gradients);
        case Type::bf16: return backward_of<Bfloat, float>(p, gradients);
    }
}

static void summarize(const Problem& p, const Summary& summary) {
    if constexpr (HAS_BF16_DOT)
        if (uses_bf16_dot(p)) return summarize_of<Bfloat, float, Bf16Products>(p, summary);
    if constexpr (HAS_INT8_SPLIT)
        if (uses_int8_split(p)) return summarize_of<float, float, Int8SplitProducts>(with_call_number(p), summary);
    switch (p.type) {
        case Type::f32: return summarize_of<float, float>(p, summary);
        case Type::f64: return summarize_of<double, double>(p, summary);
        case Type::f16: return summarize_of<Half, float>(p, summary);
        case Type::bf16: return summarize_of<Bfloat, float>(p, summary);
    }
}

// Queries (B, H, L) that see some key, and keys (B, G, S) that some query sees; both arrays hold false at first.
static void visibility(const Problem& p, bool* queries, bool* keys) {
    const int64_t blocks = (p.rows + SIDE - 1) / SIDE;
    for (int64_t b = 0; b < p.batch; ++b)
        for (int64_t h = 0; h < p.heads; ++h)
            for (int64_t index = 0; index < blocks; ++index) {
                const Block block = make_block<float>(p, b, h, index);
                const ColumnRange range = column_range(p, block);
                bool* of_rows = queries + (b * p.heads + h) * p.rows + block.first;
                bool* of_columns = keys + (b * p.groups + h / (p.heads / p.groups)) * p.columns;
                Panel panel;
                for_panels(p, block, range, panel, [&] {
                    uint64_t any = 0;
                    for (int64_t c = panel.start; c < panel.stop; ++c) {
                        const uint64_t rows =
                            panel.kind == TileKind::full ? ~uint64_t(0) : panel.rows[c - panel.start];
                        of_columns[c] |= rows != 0;
                        any |= rows;
                    }
                    for (int64_t r = 0; r < block.count; ++r) of_rows[r] |= any >> r & 1;
                });
            }
}

}  // namespace regard::REGARD_ISA
