#include "parallel.hpp"

#include <dlfcn.h>
#ifdef __linux__
#include <link.h>
#endif

#include <cstring>
#include <string>

namespace regard {
namespace {

struct Runtime {
    void (*parallel)(void (*)(void*), void*, unsigned threads, unsigned flags) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;
    int (*inside)() = nullptr;
    std::string path;
};

#ifdef __linux__
int match_runtime(dl_phdr_info* info, size_t, void* path) {
    const char* name = std::strrchr(info->dlpi_name, '/');
    name = name ? name + 1 : info->dlpi_name;
    for (const char* known : {"libgomp", "libiomp5", "libomp"})
        if (std::strncmp(name, known, std::strlen(known)) == 0) {
            *static_cast<std::string*>(path) = info->dlpi_name;
            return 1;
        }
    return 0;
}
#endif

Runtime find_runtime() {
    Runtime runtime;
#ifdef __linux__
    // Another package may have loaded a runtime of its own: look for PyTorch's first, among its library's dependencies.
    void* library = dlopen("libtorch_cpu.so", RTLD_LAZY | RTLD_NOLOAD);
    if (!library || !dlsym(library, "GOMP_parallel")) {
        dl_iterate_phdr(match_runtime, &runtime.path);
        if (runtime.path.empty()) return runtime;
        library = dlopen(runtime.path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
        if (!library) return runtime;
    }
    // Every OpenMP runtime provides GNU's entry points.
    void* entry = dlsym(library, "GOMP_parallel");
    Dl_info info;
    if (entry && dladdr(entry, &info)) runtime.path = info.dli_fname;
    runtime.parallel = reinterpret_cast<decltype(runtime.parallel)>(entry);
    runtime.thread = reinterpret_cast<int (*)()>(dlsym(library, "omp_get_thread_num"));
    runtime.threads = reinterpret_cast<int (*)()>(dlsym(library, "omp_get_num_threads"));
    runtime.inside = reinterpret_cast<int (*)()>(dlsym(library, "omp_in_parallel"));
#endif
    return runtime;
}

const Runtime& runtime() {
    static const Runtime instance = find_runtime();  // PyTorch is imported before the kernels are used
    return instance;
}

struct Work {
    void (*work)(void*, int, int);
    void* data;
};

void run(void* data) {
    const Work& one = *static_cast<Work*>(data);
    one.work(one.data, runtime().thread(), runtime().threads());
}

}  // namespace

void parallel(int threads, void (*work)(void*, int, int), void* data) {
    const Runtime& r = runtime();
    if (threads <= 1 || !r.parallel || !r.thread || !r.threads || !r.inside || r.inside()) {
        work(data, 0, 1);
        return;
    }
    Work one{work, data};
    r.parallel(run, &one, unsigned(threads), 0);
}

const char* runtime_path() { return runtime().path.c_str(); }

}  // namespace regard
