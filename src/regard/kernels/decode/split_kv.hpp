// Split-KV attention for a few queries against many keys, as in decoding: bound by reading keys and values once. Keys are split
// into fixed chunks, so that threads share even a single head, and the result does not depend on the number of threads.
#pragma once

#include "attention/forward.hpp"

namespace regard::REGARD_ISA {

constexpr int64_t MAX_QUERIES = 4;      // queries per key head, over the heads that share it
constexpr int64_t CHUNK_KEYS = 8 * SIDE;    // keys of a chunk

// Loads a vector of any input type, converted to T.
template <typename T>
REGARD_INLINE Vec<T> load_converted(const T* from) {
    return load(from);
}
template <typename T>
REGARD_INLINE Vec<T> load_converted(const Half* from) {
    T numbers[LANES<T>];
    for (int i = 0; i < LANES<T>; ++i) numbers[i] = T(from[i]);
    return load(numbers);
}
typedef uint16_t HalfVec __attribute__((vector_size(BYTES / 2), aligned(2), may_alias));
typedef uint32_t UintVec __attribute__((vector_size(BYTES), may_alias));
template <typename T>
REGARD_INLINE Vec<T> load_converted(const Bfloat* from) {
    return (Vec<T>)(__builtin_convertvector(*reinterpret_cast<const HalfVec*>(from), UintVec) << 16);
}

// Whether a call is computed by split-KV attention.
static bool uses_split_kv(const Problem& p) {
    return p.rows * (p.heads / p.groups) <= MAX_QUERIES && p.normalizer == Normalizer::softmax && p.softcap == 0 && !p.vector &&
           !p.bias.dense.data && !p.bias.by_distance.data && !p.prior.sigmas && p.dropout == 0 && p.key.column == 1 &&
           p.value.column == 1;
}

// Partial softmax of a row over a chunk: row max, sum of exp(score - row max), and the unnormalized output.
template <typename T>
struct PartialSoftmax {
    T *row_max, *sum, *output;
};

// Partial softmax of query row l and one chunk.
template <typename T>
static PartialSoftmax<T> partial_at(T* partials, const Problem& p, int64_t chunks, int64_t b, int64_t h, int64_t l, int64_t chunk) {
    T* at = partials + (((b * p.heads + h) * p.rows + l) * chunks + chunk) * (p.value_dim + 2);
    return {at, at + 1, at + 2};
}

// Keys and values of the next short sequence, prefetched during the current one.
struct NextRows {
    Prefetch keys, values;
};

// Prefetches of the keys and values of a (sequence, key head).
template <typename In>
static NextRows next_rows(const Problem& p, int64_t plane) {
    const int64_t b = plane / p.groups, g = plane % p.groups;
    if (b >= p.batch) return {};
    const int64_t count = p.mask.lengths ? max(0, min(p.columns, p.mask.lengths[b])) : p.columns;
    auto rows = [&](const View& x, int64_t size) {
        constexpr int64_t BYTES_OF = int64_t(sizeof(In));
        return Prefetch{x.at<In>(b, g), count, x.row * BYTES_OF, size * BYTES_OF};
    };
    return {rows(p.key, p.dim), rows(p.value, p.value_dim)};
}

// Scores of each query with `count` keys, LANES keys at a time, so that their lane sums are computed together.
template <typename In, typename T, int R>
static void chunk_scores(const Problem& p, const T* queries, const In* keys, int64_t count, T* scores, Prefetch prefetch) {
    constexpr int W = LANES<T>;
    const int64_t whole = p.dim / W * W, lines = prefetch.lines() / (round_up(count, W) / W * R * max(1, p.dim / W)) + 1;
    for (int64_t i = 0; i < count; i += W)
        for (int r = 0; r < R; ++r) {
            const T* query = queries + r * p.dim;
            Vec<T> sum[W];
#pragma GCC unroll 16
            for (int j = 0; j < W; ++j) sum[j] = Vec<T>{};
            const In* key[W];
            for (int64_t j = 0; j < W; ++j) key[j] = keys + min(i + j, count - 1) * p.key.row;  // repeats the last key beyond the end
            for (int64_t e = 0; e < whole; e += W) {
                prefetch.fetch(lines);
                const Vec<T> q = load(query + e);
#pragma GCC unroll 16
                for (int j = 0; j < W; ++j) sum[j] += load_converted<T>(key[j] + e) * q;
            }
            Vec<T> products = lane_sums<T>(sum);
            for (int64_t e = whole; e < p.dim; ++e)
                for (int j = 0; j < W; ++j) products[j] += convert<T>(key[j][e]) * query[e];
            T* to = scores + r * CHUNK_KEYS + i;
            if (i + W <= count) store(to, products);
            else for (int64_t j = 0; i + j < count; ++j) to[j] = products[j];
        }
}

// Unnormalized output of each query over a chunk.
template <typename In, typename T, int R>
static void chunk_output(const Problem& p, const T* weights, const In* values, int64_t count, T* const* outputs, Prefetch prefetch) {
    constexpr int W = LANES<T>, N = 4;
    const int64_t lines = prefetch.lines() / (count * max(1, p.value_dim / (N * W))) + 1;
    auto is_weighted = [&](int64_t i) {  // hidden values may hold any numbers, even NaN
        bool any = false;
        for (int r = 0; r < R; ++r) any |= weights[r * CHUNK_KEYS + i] != 0;
        return any;
    };
    int64_t v = 0;
    for (; v + N * W <= p.value_dim; v += N * W) {
        Vec<T> sum[R][N] = {};
        for (int64_t i = 0; i < count; ++i) {
            prefetch.fetch(lines);
            if (!is_weighted(i)) continue;
            for (int n = 0; n < N; ++n) {
                const Vec<T> x = load_converted<T>(values + i * p.value.row + v + n * W);
                for (int r = 0; r < R; ++r) sum[r][n] += weights[r * CHUNK_KEYS + i] * x;
            }
        }
        for (int r = 0; r < R; ++r)
            for (int n = 0; n < N; ++n) store(outputs[r] + v + n * W, sum[r][n]);
    }
    for (; v < p.value_dim; ++v) {
        T sum[R] = {};
        for (int64_t i = 0; i < count; ++i) {
            if (!is_weighted(i)) continue;
            const T x = convert<T>(values[i * p.value.row + v]);
            for (int r = 0; r < R; ++r) sum[r] += weights[r * CHUNK_KEYS + i] * x;
        }
        for (int r = 0; r < R; ++r) outputs[r][v] = sum[r];
    }
}

// Partial softmax of R query rows, which share a key head, over one chunk of keys.
template <typename In, typename T, int R>
static void attend_chunk(const Problem& p, T* partials, int64_t chunks, int64_t b, int64_t g, int64_t chunk,
                      const NextRows& next, Scratch& scratch) {
    constexpr int W = LANES<T>;
    const int64_t share = p.heads / p.groups, first = chunk * CHUNK_KEYS, last = min(first + CHUNK_KEYS, p.columns);
    scratch.reserve(sizeof(T) * size_t(R * (p.dim + CHUNK_KEYS + W)) + 4096);
    T* queries = scratch.take<T>(R * p.dim + W);
    T* scores = scratch.take<T>(R * CHUNK_KEYS);
    T* outputs[R];
    fill(scores, R * CHUNK_KEYS, T(-INFINITE));
    for (int r = 0; r < R; ++r) {
        const int64_t h = g * share + r / p.rows, l = r % p.rows;
        copy_in(p.query.at<In>(b, h) + l * p.query.row, 0, p.query.column, 1, p.dim, queries + r * p.dim, p.dim);
        for (int64_t e = 0; e < p.dim; ++e) queries[r * p.dim + e] *= T(p.scale);
        outputs[r] = partial_at(partials, p, chunks, b, h, l, chunk).output;
    }
    // Range of columns that some row of some head may see.
    int64_t first_visible = last, last_visible = first;
    for (int64_t k = 0; k < share; ++k) {
        const ColumnRange range = column_range(p, Block{b, g * share + k, 0, p.rows, W});
        first_visible = min(first_visible, max(first, range.start)), last_visible = max(last_visible, min(last, range.stop));
    }
    if (first_visible < last_visible)
        chunk_scores<In, T, R>(p, queries, p.key.at<In>(b, g) + first_visible * p.key.row, last_visible - first_visible, scores + (first_visible - first),
                              next.keys);
    for (int64_t k = 0; k < share; ++k) {
        const Block block{b, g * share + k, 0, p.rows, W};
        const ColumnRange range = column_range(p, block);
        Panel panel;
        for (int64_t at = first; at < last; at += SIDE) {
            classify(p, block, range, at, panel);
            if (panel.kind == TileKind::full && panel.start == at && panel.stop == min(at + SIDE, last)) continue;
            for (int64_t c = at; c < min(at + SIDE, last); ++c) {
                const bool inside = panel.kind != TileKind::empty && panel.start <= c && c < panel.stop;
                const uint64_t rows = !inside ? 0 : panel.kind == TileKind::full ? ~uint64_t(0) : panel.rows[c - panel.start];
                for (int64_t l = 0; l < p.rows; ++l)
                    if (!(rows >> l & 1)) scores[(k * p.rows + l) * CHUNK_KEYS + c - first] = T(-INFINITE);
            }
        }
    }
    for (int r = 0; r < R; ++r) {
        T* __restrict s = scores + r * CHUNK_KEYS;
        const int64_t count = round_up(last - first, W);
        Vec<T> high = broadcast(T(-INFINITE)), sum{};
        for (int64_t i = 0; i < count; i += W) high = vec_max<T>(high, load(s + i));
        const T row_max = lane_max<T>(high), shift = row_max == T(-INFINITE) ? T(0) : row_max;
        for (int64_t i = 0; i < count; i += W) {
            const Vec<T> x = exp2_of((load(s + i) - shift) * T(LOG2E));
            store(s + i, x);
            sum += x;
        }
        const PartialSoftmax<T> partial = partial_at(partials, p, chunks, b, g * share + r / p.rows, r % p.rows, chunk);
        *partial.row_max = row_max, *partial.sum = lane_sum<T>(sum);
    }
    chunk_output<In, T, R>(p, scores, p.value.at<In>(b, g) + first * p.value.row, last - first, outputs, next.values);
}

// Merges the chunks of a head's rows: output, row max and log-sum.
template <typename In, typename T>
static void merge_chunks(const Problem& p, T* partials, int64_t chunks, int64_t b, int64_t h) {
    for (int64_t l = 0; l < p.rows; ++l) {
        const PartialSoftmax<T> whole = partial_at(partials, p, chunks, b, h, l, 0);
        T row_max = -INFINITE, sum = 0;
        for (int64_t i = 0; i < chunks; ++i) {
            const T one = *partial_at(partials, p, chunks, b, h, l, i).row_max;
            row_max = one > row_max ? one : row_max;
        }
        const T shift = row_max == T(-INFINITE) ? T(0) : row_max;
        for (int64_t i = 0; i < chunks; ++i) {
            const PartialSoftmax<T> one = partial_at(partials, p, chunks, b, h, l, i);
            const T factor = exp2_of((*one.row_max - shift) * T(LOG2E));
            sum += *one.sum * factor;
            for (int64_t v = 0; v < p.value_dim; ++v)
                whole.output[v] = (i ? whole.output[v] : T(0)) + one.output[v] * factor;
        }
        copy_out(whole.output, 0, 1, p.value_dim, sum > 0 ? 1 / sum : T(0),
                 p.output.at<In>(b, h) + l * p.output.row, 0, p.output.column);
        if (p.row_max_log_sum.data) {
            T* to = p.row_max_log_sum.at<T>(b, h) + l * p.row_max_log_sum.row;
            to[0] = sum > 0 ? row_max : T(0);
            to[1] = sum > 0 ? T(::log(double(sum))) : T(-INFINITE);
        }
    }
}

// One chunk of one key head; merges at once if there is a single chunk.
template <typename In, typename T>
static void split_kv_task(const Problem& p, T* partials, int64_t chunks, int64_t i, Scratch& scratch) {
    const int64_t b = i / chunks / p.groups, g = i / chunks % p.groups, chunk = i % chunks, share = p.heads / p.groups;
    const NextRows next = chunks == 1 ? next_rows<In>(p, i + 1) : NextRows{};
    switch (p.rows * share) {
        case 1: attend_chunk<In, T, 1>(p, partials, chunks, b, g, chunk, next, scratch); break;
        case 2: attend_chunk<In, T, 2>(p, partials, chunks, b, g, chunk, next, scratch); break;
        case 3: attend_chunk<In, T, 3>(p, partials, chunks, b, g, chunk, next, scratch); break;
        default: attend_chunk<In, T, 4>(p, partials, chunks, b, g, chunk, next, scratch);
    }
    if (chunks == 1)  // a single chunk needs no other
        for (int64_t h = g * share; h < (g + 1) * share; ++h) merge_chunks<In, T>(p, partials, chunks, b, h);
}

}  // namespace regard::REGARD_ISA
