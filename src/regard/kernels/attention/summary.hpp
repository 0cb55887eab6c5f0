// Summaries of the weights before dropout, in one more pass over the scores, given row max and log-sum of every row.
#pragma once

#include "attention/backward.hpp"

namespace regard::REGARD_ISA {

// Top-k weights of each row so far, in descending order.
template <typename T>
struct Largest {
    int64_t k;
    T* weights;      // (SIDE, k)
    int64_t* where;  // (SIDE, k): key positions, -1 for none

    T smallest(int64_t r) const { return weights[r * k + k - 1]; }

    void add(int64_t r, T weight, int64_t position) {
        T* w = weights + r * k;
        int64_t *at = where + r * k, i = k - 1;
        for (; i > 0 && w[i - 1] < weight; --i) w[i] = w[i - 1], at[i] = at[i - 1];
        w[i] = weight, at[i] = position;
    }
};

// Mass, mean and sum of squared deviations of the key position, for LANES rows (Chan et al. 1983, equations 1.5).
template <typename T>
struct Moments {
    Vec<T> mass{}, mean{}, spread{};

    static Vec<T> joined(const Vec<T>* x) { return (x[0] + x[1]) + (x[2] + x[3]); }

    void add(const T* weights, int64_t count, T position) {
        Vec<T> masses[4] = {}, firsts[4] = {}, seconds[4] = {};  // four independent chains, to hide latency
        for (int64_t i = 0; i < count; i += 4)
            for (int64_t j = 0; j < min(4, count - i); ++j) {
                const Vec<T> w = load(weights + (i + j) * SIDE);
                masses[j] += w, firsts[j] += w * T(i + j);
            }
        const Vec<T> m = joined(masses), first = joined(firsts), here = m > T(0) ? first / m : Vec<T>{};
        for (int64_t i = 0; i < count; i += 4)
            for (int64_t j = 0; j < min(4, count - i); ++j) {
                const Vec<T> off = T(i + j) - here;
                seconds[j] += load(weights + (i + j) * SIDE) * off * off;
            }
        const Vec<T> second = joined(seconds);
        const Vec<T> all_mass = mass + m, step = here + position - mean;
        const Vec<T> share = all_mass > T(0) ? m / all_mass : Vec<T>{};
        spread += second + step * step * mass * share;
        mean += step * share;
        mass = all_mass;
    }
};

constexpr int64_t MIN_STREAMED_BYTES = int64_t(1) << 25;  // bytes of weights from which on they are written past the caches

// Bin b of a length holds the indices i with floor(i bins / length) = b.
REGARD_INLINE int64_t bin_start(int64_t bin, int64_t bins, int64_t length) { return (bin * length + bins - 1) / bins; }
REGARD_INLINE int64_t bin_size(int64_t bin, int64_t bins, int64_t length) {
    return bin_start(bin + 1, bins, length) - bin_start(bin, bins, length);
}

// Summaries of a block. `saved_scores`: unmasked scores from `forward_block`; null: they are recomputed.
template <typename In, typename T, typename ProductKind>
static void summarize_block(const Problem& p, const Summary& summary, const Block& block, Scratch& scratch, T* saved_scores) {
    constexpr int W = LANES<T>, VECTORS = SIDE / W;
    const int64_t g = block.h / (p.heads / p.groups), row = round_up(p.dim, W), k = summary.top_k;
    const int64_t plane = block.b * p.heads + block.h;
    scratch.reserve((sizeof(T) * size_t(SIDE * (2 * row + SIDE + TILE_ROWS + k + 4)) + 8 * size_t(SIDE * k)) +
                    ProductKind::bytes(p) + 8192);
    T* rows = scratch.take<T>(SIDE * row);
    T* query = scratch.take<T>(SIDE * row);
    T* const room = scratch.take<T>((SIDE + TILE_ROWS) * SIDE);
    ProductKind products(p, scratch);
    Largest<T> largest{k, scratch.take<T>(SIDE * k), scratch.take<int64_t>(SIDE * k)};
    fill(largest.weights, SIDE * k, T(0));
    fill(largest.where, SIDE * k, int64_t(-1));
    if (!saved_scores) {
        load_query_columns<In>(p.query, block, p.dim, T(products.factor()), rows, row, query);
        products.take_queries(block, query, nullptr);
    }
    const PriorRows<T> prior_rows = prior_rows_of<T>(p, block);
    RowState<T> row_state;
    for (int64_t r = 0; r < SIDE; ++r) {
        const T* of_row = p.row_max_log_sum.at<T>(block.b, block.h) + (block.first + min(r, block.count - 1)) * p.row_max_log_sum.row;
        const bool some = r < block.count && of_row[1] != T(-INFINITE);
        row_state.row_max[r] = some ? of_row[0] : T(INFINITE), row_state.log_sum[r] = some ? of_row[1] : T(1);
    }
    T* grid = summary.grid ? static_cast<T*>(summary.grid) + plane * summary.query_bins * summary.key_bins : nullptr;
    const int64_t first = plane * p.rows + block.first;
    T* const to = summary.weights ? static_cast<T*>(summary.weights) + first * p.columns : nullptr;
    const int64_t line = p.columns * int64_t(sizeof(T));
    const bool streams = CAN_STREAM && to && reinterpret_cast<uintptr_t>(to) % BYTES == 0 && line % BYTES == 0 &&
                         p.batch * p.heads * p.rows * line >= MIN_STREAMED_BYTES;
    int64_t written = 0;  // columns of the weights
    auto clear = [&](int64_t stop) {
        for (int64_t r = 0; r < block.count && written < stop; ++r) fill(to + r * p.columns + written, stop - written, T(0));
    };
    Vec<T> entropy[VECTORS] = {};
    Moments<T> moments[VECTORS];
    // Softmax: the exponents of the weights are their logarithms.
    const bool fused = summary.entropy && p.normalizer == Normalizer::softmax && !p.prior.sigmas;
    const ColumnRange range = column_range(p, block);
    Panel panel;
    for_panels(p, block, range, panel, [&] {
        const int64_t count = panel.stop - panel.start;
        T* const weights = saved_scores ? saved_scores : room;
        if (saved_scores) {
            saved_scores += count * SIDE;
        } else {
            products.take_keys(block.b, g, panel);
            score(p, block, panel, products, weights, (T*)nullptr);
        }
        if (fused) {
            hide(block, panel, T(-INFINITE), weights);
            for (int64_t r = 0; r < block.padded; r += W) {
                const Vec<T> row_max = load(row_state.row_max + r), log_sum = load(row_state.log_sum + r);
                Vec<T> parts[4] = {};
                exp2_columns(
                    count, weights + r, [&](Vec<T> score) { return (score - row_max - log_sum) * T(LOG2E); },
                    [&](int64_t, int chain, Vec<T> w, Vec<T> log) { parts[chain & 3] += w > T(0) ? w * log : Vec<T>{}; });
                entropy[r / W] -= Moments<T>::joined(parts) * T(LN2);
            }
        } else {
            recompute_weights(p, block, panel, row_state, weights);
        }
        if (p.prior.sigmas) {
            T prior[SIDE], keep[SIDE];
            for (int64_t i = 0; i < count; ++i) {
                prior_and_dropout(p, block, panel.start + i, prior_rows, prior, keep);
                for (int64_t r = 0; r < block.padded; ++r) weights[i * SIDE + r] *= prior[r];
            }
        }
        for (int64_t i = 0; i < count; ++i)  // zero the padding rows
            for (int64_t r = block.count; r < block.padded; ++r) weights[i * SIDE + r] = 0;
        if (summary.entropy && !fused)
            for (int64_t r = 0; r < block.padded; r += W)
                for (int64_t i = 0; i < count; ++i) {
                    const Vec<T> w = load(weights + i * SIDE + r);
                    entropy[r / W] -= w > T(0) ? w * log2_of(w > T(0) ? w : broadcast(T(1))) * T(LN2) : Vec<T>{};
                }
        if (summary.mean)
            for (int64_t r = 0; r < block.padded; r += W)
                moments[r / W].add(weights + r, count, T(panel.start + summary.key_start));
        if (summary.key_mass) {
            T* mass = static_cast<T*>(summary.key_mass) + plane * p.columns + panel.start;
            for (int64_t i = 0; i < count; i += W) {
                Vec<T> sums[W] = {};
                for (int64_t j = 0; j < min(W, count - i); ++j)
                    for (int64_t r = 0; r < block.padded; r += W) sums[j] += load(weights + (i + j) * SIDE + r);
                T lane_totals[W];
                store(lane_totals, lane_sums<T>(sums));
                for (int64_t j = 0; j < min(W, count - i); ++j) mass[i + j] += lane_totals[j];
            }
        }
        for (int64_t i = 0; k > 0 && i < count; ++i)
            for (int64_t r = 0; r < block.count; ++r)
                if (weights[i * SIDE + r] > largest.smallest(r))
                    largest.add(r, weights[i * SIDE + r], panel.start + i + summary.key_start);
        if (summary.grid)
            for (int64_t i = 0; i < count;) {  // column bin after column bin
                const int64_t bin = (panel.start + i) * summary.key_bins / p.columns;
                const int64_t end = min(count, bin_start(bin + 1, summary.key_bins, p.columns) - panel.start);
                Vec<T> sum[VECTORS] = {};
                for (; i < end; ++i)
                    for (int64_t r = 0; r < block.padded; r += W) sum[r / W] += load(weights + i * SIDE + r);
                T of_row[SIDE];
                for (int v = 0; v < VECTORS; ++v) store(of_row + v * W, sum[v]);
                const T share = 1 / T(bin_size(bin, summary.key_bins, p.columns));
                for (int64_t r = 0; r < block.count; ++r) {
                    const int64_t of = (block.first + r) * summary.query_bins / p.rows;
                    grid[of * summary.key_bins + bin] += of_row[r] * share / T(bin_size(of, summary.query_bins, p.rows));
                }
            }
        if (summary.weights) {
            clear(panel.start);
            if (streams && (panel.start * int64_t(sizeof(T))) % BYTES == 0)
                transpose<true>(weights, SIDE, count, block.count, to + panel.start, p.columns);
            else
                transpose(weights, SIDE, count, block.count, to + panel.start, p.columns);
            written = panel.stop;
        }
    });
    if (summary.weights) clear(p.columns);
    if (streams) stream_fence();
    for (int64_t r = 0; r < block.count; ++r) {
        if (summary.entropy) static_cast<T*>(summary.entropy)[first + r] = entropy[r / W][r % W];
        if (summary.mean) {
            const Moments<T>& row_moments = moments[r / W];
            const T mass = row_moments.mass[r % W];
            static_cast<T*>(summary.mean)[first + r] = row_moments.mean[r % W];
            static_cast<T*>(summary.variance)[first + r] = mass > 0 ? row_moments.spread[r % W] / mass : T(0);
        }
        for (int64_t i = 0; i < k; ++i) {
            static_cast<T*>(summary.top_weights)[(first + r) * k + i] = largest.weights[r * k + i];
            static_cast<int64_t*>(summary.top_keys)[(first + r) * k + i] = largest.where[r * k + i];
        }
    }
}

}  // namespace regard::REGARD_ISA
