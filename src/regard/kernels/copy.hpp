// Memory of large tensors: what caches of keys and values hold is moved, and pages are asked for.
#pragma once

#include <cstdint>
#include <cstring>
#ifdef __linux__
#include <sys/mman.h>
#endif

#include "parallel.hpp"

namespace regard {

// Planes (batch, head) with a run of contiguous bytes each; strides count bytes.
struct Runs {
    char* data;
    int64_t batch, head;
};

constexpr int64_t RUNS_TOGETHER = 64;          // that a thread takes at once
constexpr int64_t BYTES_FOR_THREADS = 1 << 17;  // below, another thread is not worth waking

// Asks for large pages where memory is not touched yet: one takes a fault for 2 MiB, small ones a fault for 4 KiB each.
static void ask_for_large_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t PAGE = 1 << 21;
    const uintptr_t start = (uintptr_t(data) + PAGE - 1) / PAGE * PAGE, stop = (uintptr_t(data) + uintptr_t(bytes)) / PAGE * PAGE;
    if (start < stop) madvise(reinterpret_cast<void*>(start), stop - start, MADV_HUGEPAGE);  // advice: it may be declined
#endif
}

// For i < count and each head: of `from` the sequence sources[i] to the sequence targets[i] of `to`. Null stands for i itself.
static void copy_runs(const Runs& to, const int64_t* targets, const Runs& from, const int64_t* sources, int64_t count, int64_t heads,
                      int64_t bytes, int threads) {
    const int64_t runs = count * heads;
    shared_out(runs, RUNS_TOGETHER, runs * bytes < BYTES_FOR_THREADS ? 1 : threads, [&](int64_t i) {
        const int64_t n = i / heads, h = i % heads, target = targets ? targets[n] : n, source = sources ? sources[n] : n;
        std::memcpy(to.data + target * to.batch + h * to.head, from.data + source * from.batch + h * from.head, size_t(bytes));
    });
}

}  // namespace regard
