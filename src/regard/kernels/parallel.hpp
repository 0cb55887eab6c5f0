// Threads, from the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

#include <cstdint>

namespace regard {

// Calls work(data, thread, threads) on so many threads, at most; on this one alone inside another parallel region, or
// where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// Pieces that threads take one after the other, neighbors together: work(piece).
template <typename Work>
static void shared_out(int64_t pieces, int64_t together, int threads, const Work& work) {
    struct Shared {
        int64_t next, pieces, together;
        const Work* work;
    } shared{0, pieces, together, &work};
    const int64_t useful = (pieces + together - 1) / together;
    parallel(
        useful < threads ? int(useful) : threads,
        [](void* data, int, int) {
            Shared& s = *static_cast<Shared*>(data);
            for (;;) {
                const int64_t from = __atomic_fetch_add(&s.next, s.together, __ATOMIC_RELAXED);
                if (from >= s.pieces) return;
                const int64_t to = from + s.together < s.pieces ? from + s.together : s.pieces;
                for (int64_t i = from; i < to; ++i) (*s.work)(i);
            }
        },
        &shared);
}

// The path of the runtime in use; empty if there is none.
const char* runtime_path();

}  // namespace regard
