// Threads, from the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

#include <cstdint>

namespace regard {

// Calls work(data, thread, threads) on so many threads, at most; on this one alone inside another parallel region, or
// where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// Pieces that threads take one after the other: work(piece). Neighbors go together, which often read the same: at first a
// part of all that are left, in the end as few as said, so that no thread waits long for another.
template <typename Work>
static void shared_out(int64_t pieces, int64_t fewest, int threads, const Work& work) {
    struct Shared {
        int64_t next, pieces, fewest;
        const Work* work;
    } shared{0, pieces, fewest, &work};
    const int64_t useful = (pieces + fewest - 1) / fewest;
    parallel(
        useful < threads ? int(useful) : threads,
        [](void* data, int, int threads) {
            Shared& s = *static_cast<Shared*>(data);
            int64_t from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            while (from < s.pieces) {
                const int64_t left = s.pieces - from, share = left / (2 * threads);
                const int64_t taken = share > s.fewest ? share : s.fewest < left ? s.fewest : left, to = from + taken;
                if (!__atomic_compare_exchange_n(&s.next, &from, to, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
                for (int64_t i = from; i < to; ++i) (*s.work)(i);
                from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            }
        },
        &shared);
}

// The path of the runtime in use; empty if there is none.
const char* runtime_path();

}  // namespace regard
