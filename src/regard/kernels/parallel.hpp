// Threads of the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

#include <cstdint>

namespace regard {

// Calls work(data, thread, threads) on at most this many threads; on the calling thread alone inside another parallel region,
// or where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// Dynamic parallel for: work(piece) for each piece, neighbors together. Chunks are a share of the pieces left, from `max_chunk`
// at first down to `min_chunk`, so that no thread waits long for another at the end.
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

// Dynamic parallel for with chunks of fixed size.
template <typename Work>
static void parallel_for(int64_t pieces, int64_t chunk, int threads, const Work& work) {
    parallel_for(pieces, chunk, chunk, threads, work);
}

// Path of the OpenMP runtime in use; empty if none.
const char* runtime_path();

}  // namespace regard
