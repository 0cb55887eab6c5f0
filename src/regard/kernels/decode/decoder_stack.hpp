// Step of a whole decoder in one call: embedding, layers, last norm and logits, by the kernels of the instruction set in use.
#pragma once

#include <vector>

#include "problem.hpp"

namespace regard {

// Heads of an attention.
struct HeadSizes {
    int64_t heads = 0, groups = 0, dim = 0;
    double scale = 1;
};

// A layer: self-attention, cross-attention (in encoder-decoders: `memory.query.outputs` > 0) and feed-forward network.
struct StackLayer {
    FusedAttention past;
    HeadSizes past_heads;
    FusedAttention memory;
    HeadSizes memory_heads;
    FusedFeedForward feed_forward;
};

// Buffers of a layer's KV cache.
struct CacheBuffers {
    View key, value;
};

// Positions of a cache that a step sees; in self-attention the last one is the new token's.
struct CacheSpan {
    int64_t first, end;
};

// Token ids of K hypotheses of each of B sentences, and where their results go.
struct StackStep {
    int64_t batch = 0, hypotheses = 0;
    const int64_t* tokens = nullptr;  // (B, K)
    const int64_t* slots = nullptr;   // (B, K): the sequence of each hypothesis in the caches of self-attention; null if in order
    const float* position = nullptr;  // (D,): added to the embeddings; or null
    const CacheSpan* past = nullptr;  // of each layer
    int64_t memory_length = 0;
    const int64_t* lengths = nullptr;  // (B,): of the sources; or null
    float* hidden = nullptr;           // (B, K, D)
    float* logits = nullptr;           // (B, K, N); or null
    int threads = 1;
};

struct DecoderStack {
    std::vector<StackLayer> layers;
    Weights embedding;  // outputs: tokens, depth: D
    float embedding_factor = 1;
    Norm norm;       // after the last layer; no gain: none
    Weights output;  // projection to logits; no outputs: none
    std::vector<CacheBuffers> past, memory;  // of each layer

    // Whether every token and slot exists.
    bool has_rows(const StackStep&) const;
    void step(const StackStep&) const;
};

}  // namespace regard
