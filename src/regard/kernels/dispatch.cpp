#include "dispatch.hpp"

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#ifdef REGARD_WITH_amx
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

#define REGARD_DECLARE_INT8(name)           \
    namespace name {                        \
    extern const Int8Table int8_table;      \
    }
REGARD_DECLARE_INT8(int8_baseline)
REGARD_DECLARE_INT8(int8_avx2)
REGARD_DECLARE_INT8(int8_avx_vnni)
REGARD_DECLARE_INT8(int8_avx512_vnni)
REGARD_DECLARE_INT8(int8_amx)

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

#ifdef REGARD_WITH_int8_avx_vnni
static bool has_avx_vnni() {
    unsigned a = 0, b = 0, c = 0, d = 0;
    return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 4);
}
#endif

// Int8 tables for an instruction set: those of lesser ones too, in ascending order.
static std::vector<const Int8Table*> int8_tables_of(const std::string& isa) {
    std::vector<const Int8Table*> available;
#ifdef REGARD_WITH_int8_baseline
    available.push_back(&int8_baseline::int8_table);
#endif
    if (isa == "baseline") return available;
#ifdef REGARD_WITH_int8_avx2
    available.push_back(&int8_avx2::int8_table);
#endif
#ifdef REGARD_WITH_int8_avx_vnni
    if (has_avx_vnni()) available.push_back(&int8_avx_vnni::int8_table);
#endif
    if (isa == "avx2") return available;
#ifdef REGARD_WITH_int8_avx512_vnni
    if (__builtin_cpu_supports("avx512vnni")) available.push_back(&int8_avx512_vnni::int8_table);
#endif
#ifdef REGARD_WITH_int8_amx
    if (isa == "amx") available.push_back(&int8_amx::int8_table);
#endif
    return available;
}

// Tables in use.
struct Current {
    const Table* table = tables().back();
    const Int8Table* int8 = int8_tables_of(table->name).back();
};
static Current& current() {
    static Current chosen;
    return chosen;
}

const Table& table() { return *current().table; }
const Int8Table& int8_table() { return *current().int8; }
std::vector<const Int8Table*> int8_tables() { return int8_tables_of(tables().back()->name); }

bool choose(const std::string& name) {
    for (const Table* one : tables())
        if (name == one->name) {
            current() = {one, int8_tables_of(name).back()};
            return true;
        }
    return false;
}

bool choose_int8(const std::string& name) {
    for (const Int8Table* one : int8_tables())
        if (name == one->name) {
            current().int8 = one;
            return true;
        }
    return false;
}

}  // namespace regard
