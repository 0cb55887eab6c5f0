// Fused decoding step of a Transformer layer: attention and feed-forward network, each with norm and residual sum, in one call.
// For a few rows the computation takes less time than separate calls from Python.
#pragma once

#include "attention/attention.hpp"
#include "linear/linear.hpp"

namespace regard::REGARD_ISA {

// Layer norm of rows (rows x size); `to` may be `from`.
static void normalize(const Norm& norm, int64_t rows, int64_t size, const float* from, float* to) {
    constexpr int W = LANES<float>;
    const int64_t whole = size / W * W;
    auto sum = [&](const float* x, auto term) {
        Vec<float> sums{};
        for (int64_t i = 0; i < whole; i += W) sums += term(load(x + i));
        float result = lane_sum<float>(sums);
        for (int64_t i = whole; i < size; ++i) result += term(broadcast(x[i]))[0];
        return result;
    };
    for (int64_t r = 0; r < rows; ++r) {
        const float* x = from + r * size;
        float* y = to + r * size;
        const float mean = sum(x, [](Vec<float> v) { return v; }) / float(size);
        const float variance = sum(x, [mean](Vec<float> v) { return (v - mean) * (v - mean); }) / float(size);
        const float factor = float(1 / __builtin_sqrt(double(variance) + norm.eps));
        for (int64_t i = 0; i < size; ++i)
            y[i] = (x[i] - mean) * factor * norm.gain[i] + norm.shift[i];
    }
}

static thread_local Scratch step_scratch;

// Attention with projections, norm and residual sum, in place on x (rows x size, contiguous). `request` holds everything except
// query and output, which are scratch memory: B sequences with L rows each. New keys and values are written to the last column
// of the cache.
static void fused_attention(const FusedAttention& part, float* x, const Problem& request) {
    Problem p = request;
    const int64_t rows = p.batch * p.rows, size = part.query.depth, queries = part.query.outputs;
    const bool news = part.key.outputs > 0;
    const int64_t keys = news ? part.key.outputs : 0, values = news ? part.value.outputs : 0;
    const int64_t mixed = p.heads * p.value_dim;
    step_scratch.reserve(sizeof(float) * size_t(rows * (size + queries + keys + values + mixed)) + 5 * 64);
    float* normed = step_scratch.take<float>(rows * size);
    float* query = step_scratch.take<float>(rows * queries);
    float* key = step_scratch.take<float>(rows * keys);
    float* value = step_scratch.take<float>(rows * values);
    float* output = step_scratch.take<float>(rows * mixed);

    if (part.norm.before) normalize(part.norm, rows, size, x, normed);
    const float* from = part.norm.before ? normed : x;
    const LinearMap maps[3] = {
        {part.query, rows, from, size, query}, {part.key, rows, from, size, key}, {part.value, rows, from, size, value}};
    linear(maps, news ? 3 : 1, p.threads);
    if (news)
        parallel_for(p.batch, 8, rows * (keys + values) < (1 << 14) ? 1 : p.threads, [&](int64_t b) {
            const int64_t last = p.columns - 1;
            for (int64_t g = 0; g < p.groups; ++g) {
                std::memcpy(p.key.at<float>(b, g) + last * p.key.row, key + b * keys + g * p.dim, size_t(p.dim) * sizeof(float));
                std::memcpy(p.value.at<float>(b, g) + last * p.value.row, value + b * values + g * p.value_dim,
                            size_t(p.value_dim) * sizeof(float));
            }
        });
    p.query = {query, p.rows * queries, p.dim, queries, 1};
    p.output = {output, p.rows * mixed, p.value_dim, mixed, 1};
    forward(p);
    const LinearMap last{part.output, rows, output, mixed, x, x};
    linear(&last, 1, p.threads);
    if (!part.norm.before) normalize(part.norm, rows, size, x, x);
}

// Feed-forward network with norm and residual sum, in place on x (rows x size, contiguous).
static void fused_feed_forward(const FusedFeedForward& part, int64_t rows, float* x, int threads) {
    const int64_t size = part.expand.depth, hidden = part.expand.outputs;
    step_scratch.reserve(sizeof(float) * size_t(rows * (size + hidden)) + 2 * 64);
    float* normed = step_scratch.take<float>(rows * size);
    float* between = step_scratch.take<float>(rows * hidden);
    if (part.norm.before) normalize(part.norm, rows, size, x, normed);
    const LinearMap first{part.expand, rows, part.norm.before ? normed : x, size, between, nullptr, part.activation};
    linear(&first, 1, threads);
    const LinearMap last{part.contract, rows, between, hidden, x, x};
    linear(&last, 1, threads);
    if (!part.norm.before) normalize(part.norm, rows, size, x, x);
}

}  // namespace regard::REGARD_ISA
