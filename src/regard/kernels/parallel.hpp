// Threads, from the OpenMP runtime that PyTorch has loaded: a second runtime would compete with it for the cores.
#pragma once

namespace regard {

// Calls work(data, thread, threads) on so many threads, at most; on this one alone inside another parallel region, or
// where no runtime is found.
void parallel(int threads, void (*work)(void* data, int thread, int threads), void* data);

// The path of the runtime in use; empty if there is none.
const char* runtime_path();

}  // namespace regard
