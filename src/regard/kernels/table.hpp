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
    void (*likeliest)(const Likeliest&);
    void (*attention_part)(const AttentionPart&, float* x, const Problem&);
    void (*feed_forward_part)(const FeedForwardPart&, int64_t rows, float* x, int threads);
};

}  // namespace regard
