// Kernel table: the entry points of an instruction set.
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
    // Int8 splits, null where not supported: bytes of a split weight; the split, and whether it is usable; the linear map.
    int64_t (*int8_split_bytes)(int64_t outputs, int64_t depth);
    bool (*make_int8_split)(const Weights&, void* to, int threads);
    void (*int8_split_linear)(const LinearMap&, const void* split, int threads);
    void (*topk_log_probs)(const TopkLogProbs&);
    void (*normalize)(const Norm&, int64_t rows, int64_t size, const float* from, float* to);
    void (*fused_attention)(const FusedAttention&, float* x, const Problem&);
    void (*fused_feed_forward)(const FusedFeedForward&, int64_t rows, float* x, int threads);
};

// Linear maps in int8, of one instruction set.
struct Int8Table {
    const char* name;
    void (*linear)(const LinearMap*, int count, int threads);  // of the same rows
};

// Int8 table in use.
const Int8Table& int8_table();

}  // namespace regard
