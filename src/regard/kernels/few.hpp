// A few queries against many keys, as in decoding: bound by reading keys and values once. The keys are cut by their number
// alone, so that threads share even one sequence of one head, and the result does not depend on how many there are.
#pragma once

#include "forward.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t MOST_FEW = 4;      // queries of a key head, over the heads that share it
constexpr int64_t CUT = 8 * SIDE;    // keys of a piece

// Vectors of any input type, as T.
template <typename T>
REGARD_INLINE Vec<T> load_wide(const T* from) {
    return load(from);
}
template <typename T>
REGARD_INLINE Vec<T> load_wide(const Half* from) {
    T found[LANES<T>];
    for (int i = 0; i < LANES<T>; ++i) found[i] = T(from[i]);
    return load(found);
}
typedef uint16_t Narrow __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef uint32_t Wide __attribute__((vector_size(BYTES), may_alias));
template <typename T>
REGARD_INLINE Vec<T> load_wide(const Bfloat* from) {
    return (Vec<T>)(__builtin_convertvector(*reinterpret_cast<const Narrow*>(from), Wide) << 16);
}

static bool is_few(const Problem& p) {
    return p.rows * (p.heads / p.groups) <= MOST_FEW && p.normalizer == Normalizer::softmax && p.softcap == 0 && !p.vector &&
           !p.bias.dense.data && !p.bias.by_distance.data && !p.prior.sigmas && p.dropout == 0 && p.key.column == 1 &&
           p.value.column == 1;
}

// What a piece knows of a row: the largest score, the sum of exponentials relative to it, and the values they weigh.
template <typename T>
struct Piece {
    T *top, *total, *output;
};

template <typename T>
static Piece<T> piece_at(T* parts, const Problem& p, int64_t pieces, int64_t b, int64_t h, int64_t l, int64_t piece) {
    T* at = parts + (((b * p.heads + h) * p.rows + l) * pieces + piece) * (p.value_dim + 2);
    return {at, at + 1, at + 2};
}

// What is read after the piece of a short sequence: keys while this one's keys are, values with its values.
struct Coming {
    Ahead keys, values;
};

template <typename In>
static Coming coming(const Problem& p, int64_t plane) {
    const int64_t b = plane / p.groups, g = plane % p.groups;
    if (b >= p.batch) return {};
    const int64_t count = p.mask.lengths ? most(0, least(p.columns, p.mask.lengths[b])) : p.columns;
    auto rows = [&](const View& x, int64_t size) {
        constexpr int64_t BYTES_OF = int64_t(sizeof(In));
        return Ahead{x.at<In>(b, g), count, x.row * BYTES_OF, size * BYTES_OF};
    };
    return {rows(p.key, p.dim), rows(p.value, p.value_dim)};
}

// The dot products of each query with each of `count` keys, LANES keys at a time, so that their sums over lanes are found
// together.
template <typename In, typename T, int R>
static void few_scores(const Problem& p, const T* queries, const In* keys, int64_t count, T* scores, Ahead ahead) {
    constexpr int W = LANES<T>;
    const int64_t whole = p.dim / W * W, lines = ahead.lines() / (round_up(count, W) / W * R * most(1, p.dim / W)) + 1;
    for (int64_t i = 0; i < count; i += W)
        for (int r = 0; r < R; ++r) {
            const T* query = queries + r * p.dim;
            Vec<T> sum[W];
#pragma GCC unroll 16
            for (int j = 0; j < W; ++j) sum[j] = Vec<T>{};
            const In* key[W];
            for (int64_t j = 0; j < W; ++j) key[j] = keys + least(i + j, count - 1) * p.key.row;  // the last again for none
            for (int64_t e = 0; e < whole; e += W) {
                ahead.fetch(lines);
                const Vec<T> q = load(query + e);
#pragma GCC unroll 16
                for (int j = 0; j < W; ++j) sum[j] += load_wide<T>(key[j] + e) * q;
            }
            Vec<T> found = totals<T>(sum);
            for (int64_t e = whole; e < p.dim; ++e)
                for (int j = 0; j < W; ++j) found[j] += wide<T>(key[j][e]) * query[e];
            T* to = scores + r * CUT + i;
            if (i + W <= count) store(to, found);
            else for (int64_t j = 0; i + j < count; ++j) to[j] = found[j];
        }
}

template <typename In, typename T, int R>
static void few_values(const Problem& p, const T* weights, const In* values, int64_t count, T* const* outputs, Ahead ahead) {
    constexpr int W = LANES<T>, N = 4;
    const int64_t lines = ahead.lines() / (count * most(1, p.value_dim / (N * W))) + 1;
    auto some = [&](int64_t i) {  // what no query sees may hold anything
        bool found = false;
        for (int r = 0; r < R; ++r) found |= weights[r * CUT + i] != 0;
        return found;
    };
    int64_t v = 0;
    for (; v + N * W <= p.value_dim; v += N * W) {
        Vec<T> sum[R][N] = {};
        for (int64_t i = 0; i < count; ++i) {
            ahead.fetch(lines);
            if (!some(i)) continue;
            for (int n = 0; n < N; ++n) {
                const Vec<T> x = load_wide<T>(values + i * p.value.row + v + n * W);
                for (int r = 0; r < R; ++r) sum[r][n] += weights[r * CUT + i] * x;
            }
        }
        for (int r = 0; r < R; ++r)
            for (int n = 0; n < N; ++n) store(outputs[r] + v + n * W, sum[r][n]);
    }
    for (; v < p.value_dim; ++v) {
        T sum[R] = {};
        for (int64_t i = 0; i < count; ++i) {
            if (!some(i)) continue;
            const T x = wide<T>(values[i * p.value.row + v]);
            for (int r = 0; r < R; ++r) sum[r] += weights[r * CUT + i] * x;
        }
        for (int r = 0; r < R; ++r) outputs[r][v] = sum[r];
    }
}

template <typename In, typename T, int R>
static void few_piece(const Problem& p, T* parts, int64_t pieces, int64_t b, int64_t g, int64_t piece,
                      const Coming& next, Scratch& scratch) {
    constexpr int W = LANES<T>;
    const int64_t share = p.heads / p.groups, first = piece * CUT, last = least(first + CUT, p.columns);
    scratch.reserve(sizeof(T) * size_t(R * (p.dim + CUT + W)) + 4096);
    T* queries = scratch.take<T>(R * p.dim + W);
    T* scores = scratch.take<T>(R * CUT);
    T* outputs[R];
    fill(scores, R * CUT, T(-INFINITE));
    for (int r = 0; r < R; ++r) {
        const int64_t h = g * share + r / p.rows, l = r % p.rows;
        copy_in(p.query.at<In>(b, h) + l * p.query.row, 0, p.query.column, 1, p.dim, queries + r * p.dim, p.dim);
        for (int64_t e = 0; e < p.dim; ++e) queries[r * p.dim + e] *= T(p.scale);
        outputs[r] = piece_at(parts, p, pieces, b, h, l, piece).output;
    }
    // The columns that some row may see lie between the ends of every head's reach.
    int64_t begin = last, end = first;
    for (int64_t k = 0; k < share; ++k) {
        const Reach reach = reach_of(p, Block{b, g * share + k, 0, p.rows, W});
        begin = least(begin, most(first, reach.start)), end = most(end, least(last, reach.stop));
    }
    if (begin < end)
        few_scores<In, T, R>(p, queries, p.key.at<In>(b, g) + begin * p.key.row, end - begin, scores + (begin - first),
                              next.keys);
    for (int64_t k = 0; k < share; ++k) {
        const Block block{b, g * share + k, 0, p.rows, W};
        const Reach reach = reach_of(p, block);
        Panel panel;
        for (int64_t at = first; at < last; at += SIDE) {
            look(p, block, reach, at, panel);
            if (panel.sight == Sight::full && panel.start == at && panel.stop == least(at + SIDE, last)) continue;
            for (int64_t c = at; c < least(at + SIDE, last); ++c) {
                const bool inside = panel.sight != Sight::empty && panel.start <= c && c < panel.stop;
                const uint64_t rows = !inside ? 0 : panel.sight == Sight::full ? ~uint64_t(0) : panel.rows[c - panel.start];
                for (int64_t l = 0; l < p.rows; ++l)
                    if (!(rows >> l & 1)) scores[(k * p.rows + l) * CUT + c - first] = T(-INFINITE);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        T* __restrict s = scores + r * CUT;
        const int64_t count = round_up(last - first, W);
        Vec<T> high = all(T(-INFINITE)), sum{};
        for (int64_t i = 0; i < count; i += W) high = larger<T>(high, load(s + i));
        const T top = largest<T>(high), shift = top == T(-INFINITE) ? T(0) : top;
        for (int64_t i = 0; i < count; i += W) {
            const Vec<T> x = power_of_two((load(s + i) - shift) * T(LOG2E));
            store(s + i, x);
            sum += x;
        }
        const Piece<T> found = piece_at(parts, p, pieces, b, g * share + r / p.rows, r % p.rows, piece);
        *found.top = top, *found.total = total<T>(sum);
    }
    few_values<In, T, R>(p, scores, p.value.at<In>(b, g) + first * p.value.row, last - first, outputs, next.values);
}

template <typename In, typename T>
static void few_merged(const Problem& p, T* parts, int64_t pieces, int64_t b, int64_t h) {
    for (int64_t l = 0; l < p.rows; ++l) {
        const Piece<T> whole = piece_at(parts, p, pieces, b, h, l, 0);
        T top = -INFINITE, sum = 0;
        for (int64_t i = 0; i < pieces; ++i) {
            const T one = *piece_at(parts, p, pieces, b, h, l, i).top;
            top = one > top ? one : top;
        }
        const T shift = top == T(-INFINITE) ? T(0) : top;
        for (int64_t i = 0; i < pieces; ++i) {
            const Piece<T> one = piece_at(parts, p, pieces, b, h, l, i);
            const T factor = power_of_two((*one.top - shift) * T(LOG2E));
            sum += *one.total * factor;
            for (int64_t v = 0; v < p.value_dim; ++v)
                whole.output[v] = (i ? whole.output[v] : T(0)) + one.output[v] * factor;
        }
        copy_out(whole.output, 0, 1, p.value_dim, sum > 0 ? 1 / sum : T(0),
                 p.output.at<In>(b, h) + l * p.output.row, 0, p.output.column);
        if (p.statistic.data) {
            T* to = p.statistic.at<T>(b, h) + l * p.statistic.row;
            to[0] = sum > 0 ? top : T(0);
            to[1] = sum > 0 ? T(::log(double(sum))) : T(-INFINITE);
        }
    }
}

template <typename In, typename T>
static void few_of_piece(const Problem& p, T* parts, int64_t pieces, int64_t i, Scratch& scratch) {
    const int64_t b = i / pieces / p.groups, g = i / pieces % p.groups, piece = i % pieces, share = p.heads / p.groups;
    const Coming next = pieces == 1 ? coming<In>(p, i + 1) : Coming{};
    switch (p.rows * share) {
        case 1: few_piece<In, T, 1>(p, parts, pieces, b, g, piece, next, scratch); break;
        case 2: few_piece<In, T, 2>(p, parts, pieces, b, g, piece, next, scratch); break;
        case 3: few_piece<In, T, 3>(p, parts, pieces, b, g, piece, next, scratch); break;
        default: few_piece<In, T, 4>(p, parts, pieces, b, g, piece, next, scratch);
    }
    if (pieces == 1)  // nothing to wait for
        for (int64_t h = g * share; h < (g + 1) * share; ++h) few_merged<In, T>(p, parts, pieces, b, h);
}

}  // namespace regard::REGARD_ISA
