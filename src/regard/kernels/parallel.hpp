// Threads, from the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

#include <cstdint>

namespace regard {

// Calls work(data, thread, threads) on so many threads, at most; on this one alone inside another parallel region, or
// where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// Pieces that threads take one after the other, neighbors together: work(piece). How many: a share of those that are left, from
// `max_chunk` at first to `min_chunk` in the end, when no thread should wait long for another.
template <typename Work>
static void parallel_for(int64_t pieces, int64_t min_chunk, int64_t max_chunk, int threads, const Work& work) {
    struct Shared {
        int64_t next, pieces, min_chunk, max_chunk;
        const Work* work;

        int64_t chunk_size(int64_t left, int threads) const {
            const int64_t share = left / (2 * threads), size = share < min_chunk ? min_chunk : share > max_chunk ? max_chunk : share;
            return size < left ? size : left;
        }
    } shared{0, pieces, min_chunk, max_chunk, &work};
    const int64_t useful = (pieces + min_chunk - 1) / min_chunk;
    parallel(
        useful < threads ? int(useful) : threads,
        [](void* data, int, int threads) {
            Shared& s = *static_cast<Shared*>(data);
            int64_t from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            while (from < s.pieces) {
                const int64_t to = from + s.chunk_size(s.pieces - from, threads);
                if (!__atomic_compare_exchange_n(&s.next, &from, to, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
                for (int64_t i = from; i < to; ++i) (*s.work)(i);
                from = __atomic_load_n(&s.next, __ATOMIC_RELAXED);
            }
        },
        &shared);
}

// The same, always so many together.
template <typename Work>
static void parallel_for(int64_t pieces, int64_t chunk, int threads, const Work& work) {
    parallel_for(pieces, chunk, chunk, threads, work);
}

// The path of the runtime in use; empty if there is none.
const char* runtime_path();

}  // namespace regard
