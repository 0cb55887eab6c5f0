// What an instruction set can do: its entries, one table for each.
#pragma once

#include "problem.hpp"

namespace regard {

struct Table {
    const char* name;
    void (*forward)(const Problem&);
    void (*backward)(const Problem&, const Gradients&);
    void (*summarize)(const Problem&, const Summary&);
    void (*seen)(const Problem&, bool* queries, bool* keys);
    void (*linear)(const LinearMap*, int count, int threads);
    // By digits, or null: the bytes that they take; those of a weight, and whether they are of use; and the map.
    int64_t (*digits_bytes)(int64_t outputs, int64_t depth);
    bool (*make_digits)(const Weights&, void* to, int threads);
    void (*digit_linear)(const LinearMap&, const void* digits, int threads);
    void (*likeliest)(const Likeliest&);
    void (*attention_part)(const AttentionPart&, float* x, const Problem&);
    void (*feed_forward_part)(const FeedForwardPart&, int64_t rows, float* x, int threads);
};

}  // namespace regard
