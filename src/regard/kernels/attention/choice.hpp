// Hard attention: one key a row, the first largest score or a sample from softmax(score / T), whose value is copied, without
// products with the values. A sample is the first largest score / T + g with Gumbel noise g (Maddison et al. 2014, arXiv
// 1411.0030, section 2). Steps of a panel: `score`, `add_gumbel_noise`, `argmax_panel`; `choose_block` calls them in order.
#pragma once

#include "attention/forward.hpp"

namespace regard::REGARD_ISA {

REGARD_INLINE bool chooses_key(const Problem& p) { return p.normalizer == Normalizer::argmax || p.normalizer == Normalizer::sample; }

// Largest score so far of the rows of a block, and its column; -1: none.
template <typename T>
struct RunningArgmax {
    static constexpr int VECTORS = int(SIDE) / LANES<T>;
    Vec<T> largest[VECTORS];
    Ints<T> column[VECTORS];

    RunningArgmax() {
        for (int v = 0; v < VECTORS; ++v) largest[v] = broadcast(T(-INFINITE)), column[v] = Ints<T>{} - 1;
    }
    int64_t column_of(int64_t r) const { return column[r / LANES<T>][r % LANES<T>]; }
};

// Updates the argmax by the scores of a panel, whose hidden entries become -inf; of equal scores the first counts.
template <typename T>
static void argmax_panel(const Block& block, const Panel& panel, T* scores, RunningArgmax<T>& run) {
    constexpr int W = LANES<T>, N = 4;  // independent chains over neighboring ranges of columns, to hide latency
    typedef typename Types<T>::Int Int;
    for (int64_t r = 0; r < block.padded; r += W) {
        const Span seen = panel.seen[r / STEP];
        if (panel.kind == TileKind::mixed) hide_columns(panel, r, seen, T(-INFINITE), scores);
        Vec<T> largest[N] = {run.largest[r / W]};
        Ints<T> column[N] = {run.column[r / W]};
        for (int j = 1; j < N; ++j) largest[j] = broadcast(T(-INFINITE)), column[j] = Ints<T>{} - 1;
        auto add = [&](int j, int64_t i) {
            const Vec<T> x = load(scores + i * SIDE + r);
            const Ints<T> larger = x > largest[j];
            column[j] = larger ? Ints<T>{} + Int(panel.start + i) : column[j];
            largest[j] = larger ? x : largest[j];
        };
        const int64_t length = (seen.stop - seen.start) / N;
        for (int64_t i = seen.start; i < seen.start + length; ++i)
#pragma GCC unroll 4
            for (int j = 0; j < N; ++j) add(j, i + j * length);
        for (int64_t i = seen.start + N * length; i < seen.stop; ++i) add(N - 1, i);
        for (int j = 1; j < N; ++j) {
            const Ints<T> larger = largest[j] > largest[0];
            column[0] = larger ? column[j] : column[0];
            largest[0] = larger ? largest[j] : largest[0];
        }
        run.largest[r / W] = largest[0], run.column[r / W] = column[0];
    }
}

// Gumbel noise -log(-log(u)) of LANES random words, u = (word + 1/2) / 2^32. The number nearer to u of 0 and 1 is u's origin:
// its distance keeps its digits in a float.
REGARD_INLINE Vec<float> gumbel_noise(const uint32_t* words, float) {
    Ints<float> bits;
    std::memcpy(&bits, words, sizeof(bits));
    const Ints<float> upper = bits >> 31;  // -1 where u >= 1/2
    const Vec<float> distance = (__builtin_convertvector(bits ^ upper, Vec<float>) + 0.5f) * 0x1p-32f;
    const Vec<float> exponential = (upper != 0 ? log2_1p(-distance) : log2_of(distance)) * float(-LN2);
    return log2_of(exponential) * float(-LN2);
}
REGARD_INLINE Vec<double> gumbel_noise(const uint32_t* words, double) {
    Vec<double> noise;
    for (int i = 0; i < LANES<double>; ++i) noise[i] = -::log(-::log((words[i] + 0.5) * 0x1p-32));
    return noise;
}

// Scores of a panel to score / T + g, in place.
template <typename T>
static void add_gumbel_noise(const Problem& p, const Block& block, const Panel& panel, T* scores) {
    const T temperature = static_cast<const T*>(p.temperatures)[block.h];
    for (int64_t i = 0; i < panel.stop - panel.start; ++i) {
        uint32_t words[SIDE];
        philox_words<1>(block, panel.start + i, p.seed, words);
        for (int64_t r = 0; r < block.padded; r += LANES<T>)
            store(scores + i * SIDE + r, load(scores + i * SIDE + r) / temperature + gumbel_noise(words + r, T()));
    }
}

// Stores the value of each row's key times the factor of dropout, and 0 for a row without a key.
template <typename In, typename T>
static void store_values(const Problem& p, const Block& block, const RunningArgmax<T>& run, T* row) {
    const int64_t g = block.h / (p.heads / p.groups);
    for (int64_t r = 0; r < block.count; ++r) {
        const int64_t column = run.column_of(r);
        T factor = 1, keep[SIDE];
        if (column < 0) fill(row, p.value_dim, T(0));
        else copy_in(p.value.at<In>(block.b, g) + column * p.value.row, 0, p.value.column, 1, p.value_dim, row, p.value_dim);
        if (column >= 0 && p.dropout > 0) keep_factors(p, block, column, keep), factor = keep[r];
        copy_out(row, 0, 1, p.value_dim, factor, p.output.at<In>(block.b, block.h) + (block.first + r) * p.output.row, 0,
                 p.output.column);
    }
}

// Chosen columns, and the output, of a block of queries, as far as they are requested.
template <typename In, typename T, typename ProductKind>
static void choose_block(const Problem& p, const Block& block, Scratch& scratch) {
    const int64_t g = block.h / (p.heads / p.groups), row = round_up(p.dim, LANES<T>);
    scratch.reserve(sizeof(T) * size_t(SIDE * (2 * row + SIDE + TILE_ROWS) + p.value_dim) + ProductKind::bytes(p) + 4096);
    T* rows = scratch.take<T>(SIDE * row);
    T* query = scratch.take<T>(SIDE * row);
    T* scores = scratch.take<T>((SIDE + TILE_ROWS) * SIDE);
    T* value = scratch.take<T>(p.value_dim);
    ProductKind products(p, scratch);
    load_query_columns<In>(p.query, block, p.dim, T(products.factor()), rows, row, query);
    products.take_queries(block, query, nullptr);
    RunningArgmax<T> run;
    Panel panel;
    for_panels(p, block, column_range(p, block), panel, [&] {
        products.take_keys(block.b, g, panel);
        score(p, block, panel, products, scores, (T*)nullptr);
        if (p.normalizer == Normalizer::sample) add_gumbel_noise(p, block, panel, scores);
        argmax_panel(block, panel, scores, run);
    });
    if (p.output.data) store_values<In>(p, block, run, value);
    if (p.chosen.data) {
        int64_t* to = p.chosen.at<int64_t>(block.b, block.h) + block.first * p.chosen.row;
        for (int64_t r = 0; r < block.count; ++r) to[r * p.chosen.row] = run.column_of(r);
    }
}

}  // namespace regard::REGARD_ISA
