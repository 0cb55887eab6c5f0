// Root search for entmax: anchors (entmax.hpp) with which the weights of a full row sum to 1. The sum falls from at least 1 to
// at most 1 between two known bounds. Each pass over the scores moves one bound; a Newton step that would leave the bracket, or
// hardly shrinks it, is replaced by bisection, so the search converges to rounding for any scores.
#pragma once

#include "attention/entmax.hpp"

namespace regard::REGARD_ISA {

constexpr int MAX_PASSES = 150;  // of a search; 5 to 10 are usual, and twice the bits of a number suffice

// Compensated sum (Neumaier 1974, for nonnegative numbers).
template <typename T>
struct Sum {
    Vec<T> value{}, lost{};

    __attribute__((always_inline)) void add(Vec<T> x) {
        const Vec<T> sum = value + x, part = sum - value;
        lost += (value - (sum - part)) + (x - part);
        value = sum;
    }
    __attribute__((always_inline)) Vec<T> total() const { return value + lost; }
};

// Calls `use(i)` for each column and `end()` after each step: summing short sums rounds less than one long sum.
template <typename Use, typename End>
REGARD_INLINE void for_steps_of_columns(int64_t columns, const Use& use, const End& end) {
    for (int64_t start = 0; start < columns; start += STEP) {
        for (int64_t i = start; i < min(start + STEP, columns); ++i) use(i);
        end();
    }
}

// Reductions over the scores above a threshold.
template <typename T>
struct Above {
    Vec<T> total{};                   // sum of their weights
    Vec<T> slope{};                   // sum of base^(1 / slope - 1): derivative of the sum by the threshold
    Vec<T> count{};                   // number of them; only in `square`
    Vec<T> smallest = broadcast(T(INFINITE));  // the smallest
};

// Uncompensated sums of the positive bases and of their squares.
template <typename T>
static Above<T> squares_above(const T* scores, int64_t columns, const Anchor<T>& at, const Entmax<T, Power::square>& kind) {
    Above<T> whole;
    Vec<T> total[2] = {}, slope[2] = {};
    int64_t i = 0;
    auto add = [&](int64_t column, int chain) {
        const Vec<T> x = vec_max<T>(kind.root(load(scores + column * SIDE), at), Vec<T>{});
        total[chain] += x * x, slope[chain] += x;
    };
    for (; i + 2 <= columns; i += 2) add(i, 0), add(i + 1, 1);
    if (i < columns) add(i, 0);
    whole.total = total[0] + total[1], whole.slope = slope[0] + slope[1];
    return whole;
}

// Compensated reductions over the scores above a threshold.
template <typename T, Power P>
static Above<T> above(const T* scores, int64_t columns, const Anchor<T>& at, const Entmax<T, P>& kind) {
    Above<T> whole;
    Vec<T> total{}, slope{};
    Sum<T> lane_sums, slopes;
    for_steps_of_columns(
        columns,
        [&](int64_t i) {
            const Vec<T> score = load(scores + i * SIDE), x = kind.root(score, at);
            const auto some = x > T(0);
            // Selects between sums instead of addends: one masked operation each.
            whole.smallest = some ? vec_min<T>(whole.smallest, score) : whole.smallest;
            if constexpr (P == Power::linear) {
                total = some ? total + x : total, slope = some ? slope + T(1) : slope;
            } else if constexpr (P == Power::square) {
                total = some ? total + x * x : total, slope = some ? slope + x : slope;
                whole.count = some ? whole.count + T(1) : whole.count;
            } else {
                const Vec<T> weight = power<T>(x, 1 / kind.slope);
                total += weight, slope = some ? slope + weight * reciprocal<T>(x) : slope;
            }
        },
        [&] { lane_sums.add(total), slopes.add(slope), total = slope = Vec<T>{}; });
    whole.total = lane_sums.total(), whole.slope = slopes.total();
    return whole;
}

// Whether a sum of weights is 1 within the granularity of a power of two with exponent up to 16; the tolerance grows with
// passes, since late searches oscillate between such steps.
template <typename T>
REGARD_INLINE Ints<T> near_one(Vec<T> sum, int pass) {
    const T bound = T(8 + pass) * EPS<T>;
    return (sum - T(1) <= bound) & (sum - T(1) >= -bound);
}

// Whether a step changes a number only within rounding.
template <typename T>
REGARD_INLINE Ints<T> converged(Vec<T> next, Vec<T> x) {
    return (next - x <= 2 * EPS<T> * x) & (next - x >= -2 * EPS<T> * x);
}

// Whether a row max is finite.
template <typename T>
REGARD_INLINE Ints<T> is_finite(Vec<T> top) {
    return top - top == T(0);
}

// Search for alpha from 1.25 to 2. The sum to the power `slope`, a norm, is convex in the threshold and nearly linear, so
// Newton steps from below stay below. The anchor moves to the smallest score above the threshold: its weight is small, and so
// is the error that its rounding causes in the other weights.
template <typename T, Power P>
static Anchor<T> search(const T* scores, int64_t columns, Vec<T> top, const Entmax<T, P>& kind) {
    const T many = T(::pow(double(columns), -double(kind.slope)));
    Vec<T> low = broadcast(many), high = broadcast(T(1));  // bracket of the base of the largest score
    Anchor<T> at{top, broadcast(T(1)), broadcast(T(1))};   // the weight is unused here
    Ints<T> done = ~is_finite<T>(top);
    // With alpha = 1.5 the first passes use uncompensated sums: these move the threshold, but neither bracket it nor end the
    // search.
    constexpr int PLAIN = P == Power::square ? 3 : 0;
    for (int pass = 0; pass < MAX_PASSES; ++pass) {
        Above<T> now;
        const bool plain = pass < PLAIN;
        const Ints<T> compensated = plain ? Ints<T>{} : ~Ints<T>{};
        if constexpr (P == Power::square) {
            now = plain ? squares_above(scores, columns, at, kind) : above(scores, columns, at, kind);
            if (plain) now.smallest = top;
        } else {
            now = above(scores, columns, at, kind);
        }
        const auto over = now.total >= T(1);
        const Vec<T> excess = now.total - T(1);
        Vec<T> rise;
        Ints<T> exact = over & (now.total <= T(2));  // where the sum is a known function of the threshold
        if constexpr (P == Power::linear) rise = excess / now.slope;
        if constexpr (P == Power::square) {
            const Vec<T> norm = sqrt_of(now.total), part = now.slope * now.slope - now.count * excess;
            const Vec<T> newton = (now.total - norm) / now.slope;
            const Vec<T> root = excess / (now.slope + sqrt_of(part > T(0) ? part : Vec<T>{}));
            exact &= (part > T(0)) & (root < kind.root(now.smallest, at));
            exact &= compensated;
            rise = exact ? root : newton;
        }
        if constexpr (P == Power::curved) rise = (now.total - now.total / power<T>(now.total, kind.slope)) / now.slope;
        const Vec<T> rest = kind.root(now.smallest, at) - rise;  // base of the smallest score after the step
        exact &= rest > T(0);
        const auto close = near_one<T>(now.total, pass) & (now.smallest == at.score) & compensated;
        const Vec<T> of_top = kind.root(top, at);
        high = over & compensated ? vec_min<T>(high, of_top) : high, low = over | ~compensated ? low : vec_max<T>(low, of_top);
        const Vec<T> next = P == Power::linear ? top - now.smallest + rest : (top - now.smallest) * kind.slope + rest;
        const Vec<T> room = high * (4 * EPS<T>);
        auto inside = (next >= low - room) & (next <= high + room);
        if (pass > 8 && pass % 2) inside &= high - low <= room;
        const auto stays = done | close;
        const Vec<T> middle = (low + high) * T(0.5);
        at.score = stays ? at.score : inside ? now.smallest : top;
        Vec<T> base = stays ? at.base : inside ? rest : middle;
        if constexpr (P == Power::curved)  // rounded as it will be recomputed from the weight
            if (const Vec<T> again = power<T>(power<T>(base, 1 / kind.slope), kind.slope); true)
                base = (again > T(0)) & ~stays ? again : base;
        const auto same = converged<T>(base, at.base) & (now.smallest == at.score) & compensated;
        at.base = base;
        done = stays | same;
        if constexpr (P != Power::curved) done |= exact & inside;
        if (lane_bits<T>(done) == (~uint64_t(0) >> (64 - LANES<T>))) break;
    }
    if constexpr (P == Power::linear) return kind.anchor(at.score, at.base);
    if constexpr (P == Power::square) return kind.anchor(at.score, at.base * at.base);
    return kind.anchor(at.score, power<T>(at.base, 1 / kind.slope));
}


// Whether all lanes are set.
template <typename T>
REGARD_INLINE bool all_lanes(Ints<T> lanes) {
    return lane_bits<T>(lanes) == ~uint64_t(0) >> (64 - LANES<T>);
}

// Guarded Newton step: the geometric mean of the bracket if the step would leave it, and in every other pass of a long search.
template <typename T>
REGARD_INLINE Vec<T> guarded(Vec<T> next, Vec<T> low, Vec<T> high, int pass) {
    const Vec<T> room = high * (4 * EPS<T>);
    auto inside = (next >= low - room) & (next <= high + room);
    if (pass > 8 && pass % 2) inside &= high - low <= room;
    return inside ? next : sqrt_of(low) * sqrt_of(high);
}

// Search for alpha below 1.25: the largest weight, by Newton steps in its logarithm. For softmax one step suffices.
template <typename T>
static Anchor<T> search(const T* scores, int64_t columns, Vec<T> top, const Entmax<T, Power::flat>& kind) {
    Vec<T> low = broadcast(1 / T(columns)), high = broadcast(T(1)), weight = high;
    Ints<T> done = ~is_finite<T>(top);
    for (int pass = 0; pass < MAX_PASSES && !all_lanes<T>(done); ++pass) {
        const Anchor<T> at = kind.anchor(top, weight);
        Sum<T> sums;
        Vec<T> slope{}, of_total{}, of_slope{};
        for_steps_of_columns(
            columns,
            [&](int64_t i) {
                Vec<T> root;
                const Vec<T> share = kind.share(load(scores + i * SIDE), at, &root);
                of_total += share, of_slope += share > T(0) ? share * reciprocal<T>(root) : Vec<T>{};
            },
            [&] { sums.add(of_total), slope += of_slope, of_total = of_slope = Vec<T>{}; });
        const Vec<T> total = sums.total(), sum = weight * total;
        const auto over = sum > T(1);
        high = over ? weight : high, low = over ? low : weight;
        const Vec<T> next = guarded<T>(weight * exp2_of(-log2_of(sum) * total / slope), low, high, pass);
        done |= near_one<T>(sum, pass) | converged<T>(next, weight);
        weight = done ? weight : next;
    }
    return kind.anchor(top, weight);
}

// Smallest score with a positive weight, for alpha above 2, where the sum is not convex in the threshold and infinitely steep
// below each score. Each try rules out at least one score. As a function of that score's weight the sum is convex, with a slope
// of at least 1.
template <typename T>
static Vec<T> smallest_weighed(const T* scores, int64_t columns, Vec<T> top, const Entmax<T, Power::steep>& kind) {
    const T nearest = T(::pow(double(columns), -double(kind.slope))), tiny = sizeof(T) == 8 ? T(1e-300) : T(1e-36);
    Vec<T> none = broadcast(-T(INFINITE)), some = top;  // at and below `none` no score has a weight, at and above `some` all have one
    Vec<T> tried = top - 1 / kind.slope;
    Ints<T> done = ~is_finite<T>(top);
    for (int pass = 0; pass < MAX_PASSES && !all_lanes<T>(done); ++pass) {
        Vec<T> total{}, slope{}, of_total{}, of_slope{}, above = broadcast(T(INFINITE)), below = -above;
        Ints<T> hit{};
        for_steps_of_columns(
            columns,
            [&](int64_t i) {
                const Vec<T> score = load(scores + i * SIDE), x = (score - tried) * kind.slope;
                const auto over = x > T(0);
                const Vec<T> weight = power<T>(x, 1 / kind.slope);
                of_total += weight, of_slope += over ? weight / x : Vec<T>{};
                above = over ? vec_min<T>(above, score) : above, below = x < T(0) ? vec_max<T>(below, score) : below, hit |= x == T(0);
            },
            [&] { total += of_total, slope += of_slope, of_total = of_slope = Vec<T>{}; });
        const auto over = total >= T(1);
        none = over & ~done ? vec_max<T>(none, tried) : none, some = over | done ? some : vec_min<T>(some, hit ? tried : above);
        done |= over ? above >= some : below <= none;
        const Vec<T> distance = (top - tried) * kind.slope;
        const Vec<T> step = exp2_of(vec_min<T>(broadcast(T(64)), -log2_of(total) * total * kind.slope / (slope * distance)));
        const Vec<T> far = vec_min<T>((top - none) * kind.slope, broadcast(T(1))), near = vec_max<T>((top - some) * kind.slope, broadcast(nearest > tiny ? nearest : tiny));
        Vec<T> next = top - distance * step / kind.slope;
        auto inside = (next > none) & (next < some);
        if (pass % 3 == 2) inside = Ints<T>{};
        next = inside ? next : top - sqrt_of(far) * sqrt_of(near) / kind.slope;
        tried = done ? tried : over ? vec_max<T>(next, above) : vec_min<T>(next, below);
    }
    return some;
}

// Search for alpha above 2: the weight of the smallest score that has one.
template <typename T>
static Anchor<T> search(const T* scores, int64_t columns, Vec<T> top, const Entmax<T, Power::steep>& kind) {
    const Vec<T> score = smallest_weighed(scores, columns, top, kind);
    Vec<T> weight{}, low{}, high = broadcast(T(1));
    Ints<T> done = ~is_finite<T>(top);
    for (int pass = 0; pass < MAX_PASSES && !all_lanes<T>(done); ++pass) {
        const Anchor<T> at = kind.anchor(score, weight);
        const Vec<T> of_base = power<T>(weight, kind.slope - 1);
        Sum<T> sums;
        Vec<T> slope{}, count{}, of_total{}, of_slope{}, of_count{};
        for_steps_of_columns(
            columns,
            [&](int64_t i) {
                const Vec<T> x = load(scores + i * SIDE), share = kind.weight(x, at);
                of_total += share, of_count += x >= score ? broadcast(T(1)) : Vec<T>{};
                of_slope += x > score ? of_base * share / kind.root(x, at) : x == score ? broadcast(T(1)) : Vec<T>{};
            },
            [&] { sums.add(of_total), slope += of_slope, count += of_count, of_total = of_slope = of_count = Vec<T>{}; });
        const Vec<T> total = sums.total();
        const Vec<T> step = (T(1) - total) / slope;
        if (pass == 0) {
            const Vec<T> rest = T(1) - total > T(0) ? T(1) - total : Vec<T>{};
            low = rest / count, high = vec_min<T>(step, 1 / count), high = high > T(0) ? high : Vec<T>{};
            weight = done ? broadcast(T(1)) : high;
            done |= near_one<T>(total, pass);
            continue;
        }
        const auto over = total > T(1);
        high = over ? weight : high, low = over ? low : weight;
        const Vec<T> next = guarded<T>(weight + step, low, high, pass);
        done |= near_one<T>(total, pass) | converged<T>(next, weight);
        weight = done ? weight : next;
    }
    return kind.anchor(score, weight);
}

// Entmax of full rows: scores to weights, in place, and the anchor of each row.
template <typename T, Power P>
static void entmax_weights(const Block& block, int64_t columns, const Entmax<T, P>& kind, T* strip, T* anchor_scores, T* anchor_weights) {
    for (int64_t r = 0; r < block.padded; r += LANES<T>) {
        Vec<T> top[4];  // four independent chains, to hide latency
        for (int j = 0; j < 4; ++j) top[j] = broadcast(T(-INFINITE));
        int64_t i = 0;
        for (; i + 4 <= columns; i += 4)
            for (int j = 0; j < 4; ++j) top[j] = vec_max<T>(top[j], load(strip + (i + j) * SIDE + r));
        for (; i < columns; ++i) top[0] = vec_max<T>(top[0], load(strip + i * SIDE + r));
        const Vec<T> largest = vec_max<T>(vec_max<T>(top[0], top[1]), vec_max<T>(top[2], top[3]));
        const Anchor<T> solution = search(strip + r, columns, largest, kind);
        const Anchor<T> at = kind.anchor(largest == T(-INFINITE) ? Vec<T>{} : solution.score, solution.weight);
        store(anchor_scores + r, at.score), store(anchor_weights + r, at.weight);
        for (i = 0; i < columns; ++i) store(strip + i * SIDE + r, kind.weight(load(strip + i * SIDE + r), at));
    }
}

}  // namespace regard::REGARD_ISA
