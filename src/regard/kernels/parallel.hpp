// Threads, from the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

#include <cstdint>

namespace regard {

// Calls work(data, thread, threads) on so many threads, at most; on this one alone inside another parallel region, or
// where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// Pieces that threads take one after the other, neighbors together: work(piece). How many: a share of those that are left, from
// `most` at first to `fewest` in the end, when no thread should wait long for another.
template <typename Work>
static void shared_out(int64_t pieces, int64_t fewest, int64_t most, int threads, const Work& work) {
    struct Shared {
        int64_t next, pieces, fewest, most;
        const Work* work;

        int64_t taken(int64_t left, int threads) const {
            const int64_t share = left / (2 * threads), found = share < fewest ? fewest : share > most ? most : share;
            return found < left ? found : left;
        }
    } shared{0, pieces, fewest, most, &work};
    const int64_t useful = (pieces + fewest - 1) / fewest;
    parallel(
        useful < threads ? int(useful) : threads,
        [](void* data, int, int threads) {
            Shared& s = *static_cast<Shared*>(data);
            int64_t from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            while (from < s.pieces) {
                const int64_t to = from + s.taken(s.pieces - from, threads);
                if (!__atomic_compare_exchange_n(&s.next, &from, to, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
                for (int64_t i = from; i < to; ++i) (*s.work)(i);
                from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            }
        },
        &shared);
}

// The same, always so many together.
template <typename Work>
static void shared_out(int64_t pieces, int64_t together, int threads, const Work& work) {
    shared_out(pieces, together, together, threads, work);
}

// The path of the runtime in use; empty if there is none.
const char* runtime_path();

}  // namespace regard
