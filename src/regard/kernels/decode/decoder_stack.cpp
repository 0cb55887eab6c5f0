#include "decode/decoder_stack.hpp"

#include <algorithm>
#include <cstring>

#include "dispatch.hpp"

namespace regard {
namespace {

// Embedding of a token: each operation is rounded by itself, as PyTorch does.
void embed(const Weights& w, int64_t token, float factor, const float* position, float* to) {
    if (w.codes) {
        const int64_t depth = (w.depth + DEPTH_STEP - 1) / DEPTH_STEP * DEPTH_STEP;
        const int8_t* codes = w.codes + token / BLOCK_OUTPUTS * BLOCK_OUTPUTS * depth + token % BLOCK_OUTPUTS * QUAD;
        for (int64_t i = 0; i < w.depth; ++i) to[i] = float(codes[i / QUAD * LINE + i % QUAD]) * w.scales[token];
    } else {
        std::memcpy(to, w.weight + token * w.row, size_t(w.depth) * sizeof(float));
    }
    if (factor != 1)
        for (int64_t i = 0; i < w.depth; ++i) to[i] *= factor;
    if (position)
        for (int64_t i = 0; i < w.depth; ++i) to[i] += position[i];
}

Problem attention(const HeadSizes& heads, int64_t batch, int64_t rows, const CacheBuffers& buffers, CacheSpan span, int threads) {
    Problem p;
    p.batch = batch, p.heads = heads.heads, p.groups = heads.groups, p.rows = rows, p.columns = span.end - span.first;
    p.dim = p.value_dim = heads.dim, p.scale = heads.scale, p.threads = threads;
    p.key = buffers.key, p.value = buffers.value;
    p.key.data = p.key.at<float>(0, 0) + span.first * p.key.row;
    p.value.data = p.value.at<float>(0, 0) + span.first * p.value.row;
    return p;
}

}  // namespace

bool DecoderStack::has_rows(const StackStep& s) const {
    const int64_t rows = s.batch * s.hypotheses;
    auto inside = [rows](const int64_t* x, int64_t size) { return std::all_of(x, x + rows, [size](int64_t i) { return 0 <= i && i < size; }); };
    return inside(s.tokens, embedding.outputs) && (!s.slots || inside(s.slots, rows));
}

void DecoderStack::step(const StackStep& s) const {
    static thread_local std::vector<float> states;
    const int64_t rows = s.batch * s.hypotheses, size = embedding.depth;
    states.resize(size_t(rows * size));
    float* x = states.data();
    for (int64_t i = 0; i < rows; ++i) embed(embedding, s.tokens[i], embedding_factor, s.position, x + (s.slots ? s.slots[i] : i) * size);
    for (size_t n = 0; n < layers.size(); ++n) {
        const StackLayer& layer = layers[n];
        table().fused_attention(layer.past, x, attention(layer.past_heads, rows, 1, past[n], s.past[n], s.threads));
        if (layer.memory.query.outputs) {
            Problem p = attention(layer.memory_heads, s.batch, s.hypotheses, memory[n], {0, s.memory_length}, s.threads);
            p.mask.lengths = s.lengths;
            table().fused_attention(layer.memory, x, p);
        }
        table().fused_feed_forward(layer.feed_forward, rows, x, s.threads);
    }
    for (int64_t i = 0; i < rows; ++i) std::memcpy(s.hidden + i * size, x + (s.slots ? s.slots[i] : i) * size, size_t(size) * sizeof(float));
    if (norm.gain) table().normalize(norm, rows, size, s.hidden, s.hidden);
    if (!s.logits) return;
    const LinearMap map{output, rows, s.hidden, size, s.logits};
    table().linear(&map, 1, s.threads);
}

}  // namespace regard
