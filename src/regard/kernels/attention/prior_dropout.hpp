// Prior and dropout: factors on the weights after the normalizer.
#pragma once

#include "attention/tile.hpp"

namespace regard::REGARD_ISA {

// A word, 0 or 1, of Philox4x32-10 (Salmon et al. 2011, section 4.3) with counter (batch, head, row, column), for all rows of
// a block: word 0 decides on dropout, word 1 gives the noise of samples.
template <int WORD>
static void philox_words(const Block& block, int64_t column, uint64_t seed, uint32_t* words) {
    uint32_t c0[SIDE], c1[SIDE], c2[SIDE], c3[SIDE];
    for (int r = 0; r < SIDE; ++r) {
        c0[r] = uint32_t(block.b), c1[r] = uint32_t(block.h);
        c2[r] = uint32_t(block.first + r), c3[r] = uint32_t(column);
    }
    uint32_t k0 = uint32_t(seed), k1 = uint32_t(seed >> 32);
    for (int round = 0; round < 10; ++round) {
        for (int r = 0; r < SIDE; ++r) {
            const uint64_t p0 = uint64_t(0xD2511F53u) * c0[r], p1 = uint64_t(0xCD9E8D57u) * c2[r];
            c0[r] = uint32_t(p1 >> 32) ^ c1[r] ^ k0, c1[r] = uint32_t(p1);
            c2[r] = uint32_t(p0 >> 32) ^ c3[r] ^ k1, c3[r] = uint32_t(p0);
        }
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    for (int r = 0; r < SIDE; ++r) words[r] = WORD == 0 ? c0[r] : c1[r];
}

template <typename T>
struct PriorRows {  // Gaussian prior of the rows of a block
    T center[SIDE];
    T exponent_scale = 0;  // -log2 e / (2 sigma^2)
    T sigma = 0;
};

// Prior of a block's rows; centers of 0 without a prior.
template <typename T>
static PriorRows<T> prior_rows_of(const Problem& p, const Block& block) {
    PriorRows<T> rows;
    fill(rows.center, SIDE, T(0));
    if (!p.prior.sigmas) return rows;
    const T* center = p.prior.center.at<T>(block.b, block.h) + block.first * p.prior.center.row;
    for (int64_t r = 0; r < block.count; ++r) rows.center[r] = center[r * p.prior.center.row];
    rows.sigma = static_cast<const T*>(p.prior.sigmas)[block.h];
    rows.exponent_scale = T(-0.5 * LOG2E) / (rows.sigma * rows.sigma);
    return rows;
}

REGARD_INLINE bool has_prior_or_dropout(const Problem& p) { return p.prior.sigmas || p.dropout > 0; }

// Dropout factors of one column, for all rows of a block: 0 or 1 / (1 - p).
template <typename T>
static void keep_factors(const Problem& p, const Block& block, int64_t column, T* keep) {
    uint32_t words[SIDE];
    philox_words<0>(block, column, p.seed, words);
    const uint32_t dropped = uint32_t(p.dropout * 4294967296.0 + 0.5);
    const T scale = T(1 / (1 - p.dropout));
    for (int r = 0; r < SIDE; ++r) keep[r] = words[r] >= dropped ? scale : T(0);
}

// Prior and dropout factors of one column, for all rows of a block.
template <typename T>
static void prior_and_dropout(const Problem& p, const Block& block, int64_t column, const PriorRows<T>& prior_rows, T* prior, T* keep) {
    constexpr int W = LANES<T>;
    if (p.prior.sigmas) {
        for (int64_t r = 0; r < SIDE; r += W) {
            const Vec<T> distance = T(column + p.prior.shift) - load(prior_rows.center + r);
            store(prior + r, exp2_of(distance * distance * prior_rows.exponent_scale));
        }
    } else {
        fill(prior, SIDE, T(1));
    }
    if (p.dropout > 0) {
        keep_factors(p, block, column, keep);
    } else {
        fill(keep, SIDE, T(1));
    }
}

// Multiplies the weights of a panel by prior and dropout factors, in place.
template <typename T>
static void apply_prior_and_dropout(const Problem& p, const Block& block, const Panel& panel, const PriorRows<T>& prior_rows, T* weights) {
    T prior[SIDE], keep[SIDE];
    for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
        prior_and_dropout(p, block, panel.start + i, prior_rows, prior, keep);
        for (int64_t r = 0; r < block.padded; ++r) weights[i * SIDE + r] *= prior[r] * keep[r];
    }
}

}  // namespace regard::REGARD_ISA
