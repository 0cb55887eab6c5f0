#include "dispatch.hpp"

#ifdef REGARD_WITH_amx
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace regard {

#define REGARD_DECLARE(name)     \
    namespace name {             \
    extern const Table table;    \
    }
#ifdef REGARD_WITH_baseline
REGARD_DECLARE(baseline)
#endif
#ifdef REGARD_WITH_avx2
REGARD_DECLARE(avx2)
#endif
#ifdef REGARD_WITH_avx512
REGARD_DECLARE(avx512)
#endif
#ifdef REGARD_WITH_avx512_bf16
REGARD_DECLARE(avx512_bf16)
#endif

#ifdef REGARD_WITH_amx
REGARD_DECLARE(amx)
#ifdef REGARD_EMULATE_TILES
constexpr bool EMULATED = true;
#else
constexpr bool EMULATED = false;
#endif

// Whether the processor has bf16 and int8 tiles, and Linux grants this process their registers (arch_prctl).
static bool has_tiles() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
    constexpr unsigned VBMI = 1u << 1, BF16 = 1u << 22, TILE = 1u << 24, INT8 = 1u << 25;
    constexpr long REQUEST_PERMISSION = 0x1023, TILE_DATA = 18;
    const bool tiles = EMULATED || ((d & BF16) && (d & TILE) && (d & INT8) &&
                                    syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0);
    return (c & VBMI) && tiles;
}
#endif

std::vector<const Table*> tables() {
    std::vector<const Table*> available;
#ifdef REGARD_WITH_baseline
    available.push_back(&baseline::table);
#endif
#if defined(__x86_64__)
    __builtin_cpu_init();
#ifdef REGARD_WITH_avx2
    for (bool has : {bool(__builtin_cpu_supports("avx2")), bool(__builtin_cpu_supports("fma")),
                     bool(__builtin_cpu_supports("bmi")), bool(__builtin_cpu_supports("bmi2")),
                     bool(__builtin_cpu_supports("f16c")), bool(__builtin_cpu_supports("lzcnt"))})
        if (!has) return available;
    available.push_back(&avx2::table);
#endif
#ifdef REGARD_WITH_avx512
    for (bool has : {bool(__builtin_cpu_supports("avx512f")), bool(__builtin_cpu_supports("avx512bw")),
                     bool(__builtin_cpu_supports("avx512dq")), bool(__builtin_cpu_supports("avx512vl")),
                     bool(__builtin_cpu_supports("avx512cd"))})
        if (!has) return available;
    available.push_back(&avx512::table);
#endif
#ifdef REGARD_WITH_avx512_bf16
    if (!__builtin_cpu_supports("avx512bf16")) return available;
    available.push_back(&avx512_bf16::table);
#endif
#ifdef REGARD_WITH_amx
    if (has_tiles()) available.push_back(&amx::table);
#endif
#endif
    return available;
}

static const Table*& current() {
    static const Table* chosen = tables().back();
    return chosen;
}

const Table& table() { return *current(); }

bool choose(const std::string& name) {
    for (const Table* one : tables())
        if (name == one->name) {
            current() = one;
            return true;
        }
    return false;
}

}  // namespace regard
