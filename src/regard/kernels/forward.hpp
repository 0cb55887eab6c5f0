// Attention of a block of queries. Softmax goes with a running maximum and sum (Rabe and Staats 2021, arXiv 2112.05682; Dao et al. 2022, arXiv
// 2205.14135, algorithm 1).
#pragma once

#include "additive.hpp"
#include "listed.hpp"
#include "threshold.hpp"

namespace regard::REGARD_ISA {

// Scores of a panel (columns x padded rows), before the mask. `capped` receives the softcap's tanh, if it is wanted.
template <typename Kind, typename T>
static void score(const Problem& p, const Block& block, const Panel& panel, Kind& products, T* scores, T* capped) {
    constexpr int W = LANES<T>;
    const int64_t count = panel.stop - panel.start;
    if (!p.vector) products.scores(block, panel, scores);
    if constexpr (!Kind::PAIRS)
        if (p.vector) additive(p, block, count, products.key, products.query, scores);
    if (p.softcap != 0) {
        const T inverse = T(1 / p.softcap), cap = T(p.softcap);
        for (int64_t r = 0; r < block.padded; r += W)
            by_chains(count, scores + r, [&]<int N>(Count<N>, int64_t column, Vec<T>* x) {
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) x[j] *= inverse;
                hyperbolic_tangents<N>(x);
#pragma GCC unroll 8
                for (int j = 0; j < N; ++j) {
                    if (capped) store(capped + (column + j) * SIDE + r, x[j]);
                    x[j] *= cap;
                }
            });
    }
    add_bias(p, block, panel, scores);
}

template <typename T>
struct Running {  // of the rows of a block
    T top[SIDE];    // the largest score so far, or one that is not far below it
    T total[SIDE];  // of the exponentials relative to it
};

// How far a score may lie above `top`: sums keep their precision, and what is summed need not be scaled for each new one.
constexpr double HEADROOM = 8;

// Scores to exponentials, in place, those that a row does not see to 0; what was summed before is scaled by `fade` from
// now on. True if any fade is not 1. Without WHOLE, where no rows of a step see a column nothing need be written.
template <bool WHOLE, typename T>
static bool exponentials(const Block& block, const Panel& panel, T* scores, Running<T>& run, T* fade) {
    constexpr int W = LANES<T>;
    bool faded = false;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Span seen = panel.seen[r / STEP];
        if (panel.sight == Sight::mixed) hide_columns(panel, r, seen, T(-INFINITE), scores);
        const Vec<T> before = load(run.top + r);
        Vec<T> high[4] = {before, before, before, before};  // chains, so that a maximum does not wait for the one before
        int64_t i = seen.start;
        for (; i + 4 <= seen.stop; i += 4)
            for (int j = 0; j < 4; ++j) high[j] = larger<T>(high[j], load(scores + (i + j) * SIDE + r));
        for (; i < seen.stop; ++i) high[0] = larger<T>(high[0], load(scores + i * SIDE + r));
        const Vec<T> found = larger<T>(larger<T>(high[0], high[1]), larger<T>(high[2], high[3]));
        const Vec<T> top = found > before + T(HEADROOM) ? found : before;
        // A row that has seen nothing yet is shifted by nothing.
        const Vec<T> shift = top == T(-INFINITE) ? all(T(0)) : top;
        Vec<T> sums[4] = {};
        powers_of_columns(
            seen.stop - seen.start, scores + seen.start * SIDE + r, [&](Vec<T> score) { return (score - shift) * T(LOG2E); },
            [&](int64_t, int chain, Vec<T> x, Vec<T>) { sums[chain & 3] += x; });
        if constexpr (WHOLE) {
            for (i = 0; i < seen.start; ++i) store(scores + i * SIDE + r, Vec<T>{});
            for (i = seen.stop; i < panel.stop - panel.start; ++i) store(scores + i * SIDE + r, Vec<T>{});
        }
        const Vec<T> sum = (sums[0] + sums[1]) + (sums[2] + sums[3]);
        const Vec<T> factor = power_of_two((before - shift) * T(LOG2E));
        faded |= bits_of<T>(before != top) != 0;
        store(fade + r, factor);
        store(run.total + r, load(run.total + r) * factor + sum);
        store(run.top + r, top);
    }
    return faded;
}

// Sigmoid weighs each key by itself: scores to weights, in place (Ramapuram et al. 2024, arXiv 2409.04431, section 2).
template <typename T>
static void sigmoids(const Block& block, int64_t count, T offset, T* scores) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>)
        for (int64_t i = 0; i < count; ++i) {
            const Vec<T> x = (load(scores + i * SIDE + r) + offset) * T(-LOG2E);
            const Vec<T> weight = reciprocal<T>(1 + power_of_two(smaller<T>(all(HIGHEST<T>), x)));
            store(scores + i * SIDE + r, x == T(INFINITE) ? Vec<T>{} : weight);  // a bias may hide a key
        }
}

// `kept` receives the scores of what the block sees before they are masked, panel by panel, if it is not null.
template <typename In, typename T, typename Kind>
static void forward_block(const Problem& p, const Block& block, Scratch& scratch, T* kept = nullptr) {
    constexpr int W = LANES<T>;
    const int64_t g = block.h / (p.heads / p.groups), row = round_up(p.dim, W), value_row = round_up(p.value_dim, W);
    const int64_t wide = whole_rows(p) ? p.columns : SIDE;
    scratch.reserve(sizeof(T) * size_t(SIDE * (2 * row + 2 * value_row + wide + GROUP + 8)) + Kind::bytes(p) + 4096);
    T* rows = scratch.take<T>(SIDE * most(row, value_row));
    T* query = scratch.take<T>(p.dim * SIDE);
    T* scores = scratch.take<T>((wide + GROUP) * SIDE);
    T* output = scratch.take<T>(value_row * SIDE);  // its columns as rows
    Kind products(p, scratch);
    T* fade = scratch.take<T>(SIDE);
    Running<T> run;
    fill(run.top, SIDE, T(-INFINITE));
    fill(run.total, SIDE, T(0));
    fill(output, value_row * SIDE, T(0));
    query_columns<In>(p.query, block, p.dim, T(products.factor()), rows, row, query);
    products.take_queries(block, query, nullptr);
    if constexpr (!Kind::PAIRS) {  // what the end of this block and the beginning of the next one wait for
        products.template soon<In>(p.output, block.b, block.h, block.first, p.rows, p.value_dim);
        products.template soon<In>(p.query, block.b, block.h, block.first + SIDE, p.rows, p.dim);
    }

    const bool sigmoid = p.normalizer == Normalizer::sigmoid, softmax = p.normalizer == Normalizer::softmax;
    const Gauss<T> gauss = gauss_of<T>(p, block);
    uint64_t seen = 0;  // rows that see something
    Panel panel;
    const Reach reach = reach_of(p, block);
    int64_t columns = 0;  // of the strip so far
    bool begun = false;   // something is in the output
    bool few = false;     // weights that are not 0: `rows` takes the output, as rows
    Nonzeros nonzeros;
    Weighed* list = weighed_by(p, block);  // or null
    auto score_panel = [&](T* to) {
        products.take_keys(block.b, g, panel);
        score(p, block, panel, products, to, (T*)nullptr);
        if (panel.sight == Sight::full) seen = ones(0, SIDE);
        for (int64_t i = 0; seen != ones(0, SIDE) && i < panel.stop - panel.start; ++i) seen |= panel.rows[i];
    };
    auto mix_panel = [&](T* weights) {
        if (any_factor(p)) weigh(p, block, panel, gauss, weights);
        products.take_values(block.b, g, panel);
        if constexpr (!Kind::PAIRS)
            if (few) {
                add_scarce(nonzeros.find(block, panel, weights), weights, products.value, p.value_dim, rows, value_row);
                if (list) add_to(*list, panel, nonzeros, weights);
                return;
            }
        products.mix(block, panel, weights, output);
    };
    for_panels(p, block, reach, panel, [&] {
        const int64_t count = panel.stop - panel.start;
        T* here = whole_rows(p) ? scores + columns * SIDE : scores;
        score_panel(here);
        if (kept) std::memcpy(kept + columns * SIDE, here, sizeof(T) * size_t(count * SIDE));
        columns += count;
        if (sigmoid) sigmoids(block, count, offset_of<T>(p, block.h), scores);
        if (!softmax) hide(block, panel, sigmoid ? T(0) : T(-INFINITE), here);
        if (softmax && exponentials<Kind::WHOLE>(block, panel, scores, run, fade) && begun)
            for (int64_t v = 0; v < p.value_dim; ++v)
                for (int64_t r = 0; r < block.padded; r += W)
                    store(output + v * SIDE + r, load(output + v * SIDE + r) * load(fade + r));
        if (!whole_rows(p)) mix_panel(scores);
        begun = true;
    });
    if (whole_rows(p)) {
        with_entmax<T>(p, block.h, [&](const auto& kind) {
            sparse_weights(block, columns, kind, scores, run.top, run.total);
        });
        auto for_strip = [&](const auto& use) {
            columns = 0;
            for_panels(p, block, reach, panel, [&] { use(scores + columns * SIDE), columns += panel.stop - panel.start; });
        };
        if constexpr (!Kind::PAIRS) {
            Support<T> counted;
            for_strip([&](const T* weights) { counted.add(block, panel, weights); });
            few = counted.all_scarce(block);
        }
        if (few) fill(rows, SIDE * value_row, T(0));
        if (list) list->count = few && is_listed<In, T>(p) ? 0 : -1;
        for_strip(mix_panel);
        if (list) close(*list);
    }

    for (int64_t r = 0; r < block.padded; r += W) {
        const Vec<T> sum = softmax ? load(run.total + r) : all(T(1));
        store(fade + r, sum > T(0) ? 1 / sum : all(T(0)));
    }
    if (few)
        copy_out(rows, value_row, block.count, p.value_dim, T(1),
                 p.output.at<In>(block.b, block.h) + block.first * p.output.row, p.output.row, p.output.column);
    else
        rows_of_columns<In>(output, block, p.value_dim, fade, rows, value_row, p.output);
    if (p.statistic.data) {  // the largest score, and the logarithm of the sum relative to it
        T* to = p.statistic.at<T>(block.b, block.h) + block.first * p.statistic.row;
        for (int64_t r = 0; r < block.count; ++r) {
            const bool some = softmax ? run.total[r] > 0 : seen >> r & 1;
            to[0] = some && !sigmoid ? run.top[r] : T(0);
            to[1] = !some     ? T(-INFINITE)
                    : sigmoid ? T(0)
                    : softmax ? T(::log(double(run.total[r])))
                              : run.total[r];
            to += p.statistic.row;
        }
    }
}

}  // namespace regard::REGARD_ISA
