// Top-k tokens of rows of logits with their log-probabilities. Logits are read twice: once for the maxima of blocks, so that
// only the blocks with the largest ones are searched, and once for the log-sum-exp.
#pragma once

#include "simd/vector_math.hpp"
#include "simd/memory.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t TOPK_BLOCK = 4 * LANES<float>;  // logits of a block

// Logits of a block, padded with -inf.
struct LogitBlock {
    Vec<float> part[TOPK_BLOCK / LANES<float>];

    LogitBlock(const float* x, int64_t first, int64_t size) {
        float padded[TOPK_BLOCK];
        if (first + TOPK_BLOCK > size) {
            fill(padded, TOPK_BLOCK, -INFINITE);
            std::memcpy(padded, x + first, size_t(size - first) * sizeof(float));
        }
        const float* from = first + TOPK_BLOCK > size ? padded : x + first;
        for (int i = 0; i < TOPK_BLOCK / LANES<float>; ++i) part[i] = load(from + i * LANES<float>);
    }

    float largest_below(float limit) const {
        Vec<float> largest_part = broadcast(-INFINITE);
        for (const Vec<float>& x : part) largest_part = vec_max<float>(largest_part, x < limit ? x : broadcast(-INFINITE));
        return lane_max<float>(largest_part);
    }
};

// Log-softmax of x at its `count` largest entries, in descending order, ties by index; -inf if there are fewer.
static void topk_row(const TopkLogProbs& request, const float* x, float* values, int64_t* tokens, Scratch& scratch) {
    const int64_t size = request.size, blocks = (size + TOPK_BLOCK - 1) / TOPK_BLOCK;
    scratch.reserve(size_t(blocks) * (sizeof(float) + sizeof(int64_t)) + 128);
    float* highest = scratch.take<float>(blocks);
    int64_t* next = scratch.take<int64_t>(blocks);  // first index at which the largest remaining entry of a block may stand
    float row_max = -INFINITE;
    for (int64_t b = 0; b < blocks; ++b) {
        const LogitBlock block(x, b * TOPK_BLOCK, size);
        Vec<float> high = block.part[0];
        for (const Vec<float>& part : block.part) high = vec_max<float>(high, part);
        highest[b] = lane_max<float>(high), next[b] = b * TOPK_BLOCK;
        row_max = highest[b] > row_max ? highest[b] : row_max;
    }
    Vec<float> sum{};
    for (int64_t b = 0; b < blocks; ++b) {
        LogitBlock block(x, b * TOPK_BLOCK, size);
        for (Vec<float>& part : block.part) part = (part - row_max) * float(LOG2E);
        exp2_vectors<TOPK_BLOCK / LANES<float>>(block.part);
        for (const Vec<float>& part : block.part) sum += part;
    }
    const float log_sum = float(::log(double(lane_sum<float>(sum))));
    for (int64_t k = 0; k < request.count;) {
        int64_t b = 0;
        for (int64_t i = 1; i < blocks; ++i) b = highest[i] > highest[b] ? i : b;
        const float best = highest[b];
        if (!(best > -INFINITE)) {
            values[k] = log_sum != log_sum ? log_sum : -INFINITE, tokens[k++] = 0;
            continue;
        }
        int64_t token = next[b];
        while (x[token] != best) ++token;
        const int64_t end = min((b + 1) * TOPK_BLOCK, size);
        int64_t equal = token + 1;
        while (equal < end && x[equal] != best) ++equal;
        next[b] = equal < end ? equal : b * TOPK_BLOCK;
        if (equal == end) highest[b] = LogitBlock(x, b * TOPK_BLOCK, size).largest_below(best);
        bool excluded = false;
        for (int64_t i = 0; i < request.excluded_count; ++i) excluded |= token == request.excluded[i];
        if (!excluded) values[k] = (best - row_max) - log_sum, tokens[k++] = token;
    }
}

static thread_local Scratch topk_scratch;

// Top-k log-probabilities of all rows, in parallel over rows.
static void topk_log_probs(const TopkLogProbs& request) {
    const int threads = request.rows * request.size < (1 << 15) ? 1 : request.threads;
    parallel_for(request.rows, 4, threads, [&](int64_t r) {
        topk_row(request, request.logits + r * request.row, request.values + r * request.count, request.tokens + r * request.count,
                      topk_scratch);
    });
}

}  // namespace regard::REGARD_ISA
