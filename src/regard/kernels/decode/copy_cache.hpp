// Copies of sequences between KV caches.
#pragma once

#include <cstdint>
#include <cstring>

#include "parallel.hpp"

namespace regard {

// Contiguous run of bytes for each (batch, head); strides in bytes.
struct Runs {
    char* data;
    int64_t batch, head;
};

constexpr int64_t RUNS_PER_CHUNK = 64;          // runs that a thread takes at once
constexpr int64_t MIN_PARALLEL_BYTES = 1 << 17;  // fewer bytes are copied by one thread

// For i < count and each head: copies sequence sources[i] of `from` to sequence targets[i] of `to`. Null stands for i itself.
static void copy_runs(const Runs& to, const int64_t* targets, const Runs& from, const int64_t* sources, int64_t count, int64_t heads,
                      int64_t bytes, int threads) {
    const int64_t runs = count * heads;
    parallel_for(runs, RUNS_PER_CHUNK, runs * bytes < MIN_PARALLEL_BYTES ? 1 : threads, [&](int64_t i) {
        const int64_t n = i / heads, h = i % heads, target = targets ? targets[n] : n, source = sources ? sources[n] : n;
        std::memcpy(to.data + target * to.batch + h * to.head, from.data + source * from.batch + h * from.head, size_t(bytes));
    });
}

}  // namespace regard
