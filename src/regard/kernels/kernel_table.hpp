// What an instruction set can do: its entries, one table for each.
#pragma once

#include "problem.hpp"

namespace regard {

struct Table {
    const char* name;
    void (*forward)(const Problem&);
    void (*backward)(const Problem&, const Gradients&);
    void (*summarize)(const Problem&, const Summary&);
    void (*visibility)(const Problem&, bool* queries, bool* keys);
    void (*linear)(const LinearMap*, int count, int threads);
    // By digits, or null: the bytes that they take; those of a weight, and whether they are of use; and the map.
    int64_t (*int8_split_bytes)(int64_t outputs, int64_t depth);
    bool (*make_int8_split)(const Weights&, void* to, int threads);
    void (*int8_split_linear)(const LinearMap&, const void* split, int threads);
    void (*topk_log_probs)(const TopkLogProbs&);
    void (*fused_attention)(const FusedAttention&, float* x, const Problem&);
    void (*fused_feed_forward)(const FusedFeedForward&, int64_t rows, float* x, int threads);
};

}  // namespace regard
