// The most probable tokens of many rows of logits, and how probable they are: all numbers are read twice, the first time for
// the maxima of blocks, so that only the blocks of the greatest are looked into.
#pragma once

#include "exponent.hpp"
#include "memory.hpp"
#include "parallel.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t LIKELY = 4 * LANES<float>;  // numbers of a block

// The numbers of a block from `first` on, -inf beyond the end.
struct LikelyBlock {
    Vec<float> part[LIKELY / LANES<float>];

    LikelyBlock(const float* x, int64_t first, int64_t size) {
        float padded[LIKELY];
        if (first + LIKELY > size) {
            fill(padded, LIKELY, -INFINITE);
            std::memcpy(padded, x + first, size_t(size - first) * sizeof(float));
        }
        const float* from = first + LIKELY > size ? padded : x + first;
        for (int i = 0; i < LIKELY / LANES<float>; ++i) part[i] = load(from + i * LANES<float>);
    }

    float largest_below(float limit) const {
        Vec<float> found = all(-INFINITE);
        for (const Vec<float>& x : part) found = larger<float>(found, x < limit ? x : all(-INFINITE));
        return largest<float>(found);
    }
};

// values = log softmax(x) at the greatest `count` of x, greatest first, the first of equal ones; -inf where there are no more.
static void likeliest_row(const Likeliest& wanted, const float* x, float* values, int64_t* tokens, Scratch& scratch) {
    const int64_t size = wanted.size, blocks = (size + LIKELY - 1) / LIKELY;
    scratch.reserve(size_t(blocks) * (sizeof(float) + sizeof(int64_t)) + 128);
    float* highest = scratch.take<float>(blocks);
    int64_t* next = scratch.take<int64_t>(blocks);  // where the greatest that is left of a block may stand at the earliest
    float top = -INFINITE;
    for (int64_t b = 0; b < blocks; ++b) {
        const LikelyBlock block(x, b * LIKELY, size);
        Vec<float> high = block.part[0];
        for (const Vec<float>& part : block.part) high = larger<float>(high, part);
        highest[b] = largest<float>(high), next[b] = b * LIKELY;
        top = highest[b] > top ? highest[b] : top;
    }
    Vec<float> sum{};
    for (int64_t b = 0; b < blocks; ++b) {
        LikelyBlock block(x, b * LIKELY, size);
        for (Vec<float>& part : block.part) part = (part - top) * float(LOG2E);
        powers_of_two<LIKELY / LANES<float>>(block.part);
        for (const Vec<float>& part : block.part) sum += part;
    }
    const float level = float(::log(double(total<float>(sum))));
    for (int64_t k = 0; k < wanted.count;) {
        int64_t b = 0;
        for (int64_t i = 1; i < blocks; ++i) b = highest[i] > highest[b] ? i : b;
        const float best = highest[b];
        if (!(best > -INFINITE)) {
            values[k] = level != level ? level : -INFINITE, tokens[k++] = 0;
            continue;
        }
        int64_t token = next[b];
        while (x[token] != best) ++token;
        const int64_t end = least((b + 1) * LIKELY, size);
        int64_t equal = token + 1;
        while (equal < end && x[equal] != best) ++equal;
        next[b] = equal < end ? equal : b * LIKELY;
        if (equal == end) highest[b] = LikelyBlock(x, b * LIKELY, size).largest_below(best);
        bool never = false;
        for (int64_t i = 0; i < wanted.never_count; ++i) never |= token == wanted.never[i];
        if (!never) values[k] = (best - top) - level, tokens[k++] = token;
    }
}

static thread_local Scratch likeliest_scratch;

static void likeliest(const Likeliest& wanted) {
    const int threads = wanted.rows * wanted.size < (1 << 15) ? 1 : wanted.threads;
    shared_out(wanted.rows, 4, threads, [&](int64_t r) {
        likeliest_row(wanted, wanted.logits + r * wanted.row, wanted.values + r * wanted.count, wanted.tokens + r * wanted.count,
                      likeliest_scratch);
    });
}

}  // namespace regard::REGARD_ISA
