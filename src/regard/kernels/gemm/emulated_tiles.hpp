// AMX instructions in plain code, to test a build with REGARD_EMULATE_TILES on processors without AMX. Included before all
// other headers.
#pragma once

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#undef _tile_loadconfig
#undef _tile_release
#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbssd
#undef _tile_dpbusd
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulated::begin()
#define _tile_release() emulated::end()
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbssd emulated::bytes
#define _tile_dpbusd emulated::unsigned_bytes
#define _tile_dpbf16ps emulated::halves

namespace emulated {

struct Tiles {
    alignas(64) uint8_t rows[8][16][64];
    bool configured = false;
};
static thread_local Tiles tiles;

static inline void need() {
    if (!tiles.configured) __builtin_trap();  // unconfigured tiles trap, as on the processor
}
static inline void begin() { std::memset(tiles.rows, 0, sizeof(tiles.rows)), tiles.configured = true; }
static inline void end() { tiles.configured = false; }
static inline void zero(int t) { need(), std::memset(tiles.rows[t], 0, sizeof(tiles.rows[t])); }
static inline void load(int t, const void* from, int64_t row) {
    need();
    for (int m = 0; m < 16; ++m) std::memcpy(tiles.rows[t][m], static_cast<const char*>(from) + m * row, 64);
}
static inline void store(int t, void* to, int64_t row) {
    need();
    for (int m = 0; m < 16; ++m) std::memcpy(static_cast<char*>(to) + m * row, tiles.rows[t][m], 64);
}
// Sums += A B, multiplying corresponding numbers of the 4-byte words of A and B.
template <typename Sum, typename Number, typename Other = Number, typename Value>
static inline void multiply(int sums, int a, int b, const Value& value) {
    constexpr int EACH = 4 / sizeof(Number);
    need();
    for (int m = 0; m < 16; ++m) {
        Sum* c = reinterpret_cast<Sum*>(tiles.rows[sums][m]);
        const Number* left = reinterpret_cast<const Number*>(tiles.rows[a][m]);
        for (int k = 0; k < 16; ++k) {
            const Other* right = reinterpret_cast<const Other*>(tiles.rows[b][k]);
            for (int n = 0; n < 16; ++n)
                for (int j = 0; j < EACH; ++j) c[n] += value(left[EACH * k + j]) * value(right[EACH * n + j]);
        }
    }
}
static inline void bytes(int sums, int a, int b) {
    multiply<int32_t, int8_t>(sums, a, b, [](int8_t x) { return int32_t(x); });
}
static inline void unsigned_bytes(int sums, int a, int b) {
    multiply<int32_t, uint8_t, int8_t>(sums, a, b, [](auto x) { return int32_t(x); });
}
static inline void halves(int sums, int a, int b) {
    multiply<float, uint16_t>(sums, a, b, [](uint16_t x) {
        const uint32_t bits = uint32_t(x) << 16;
        float number;
        std::memcpy(&number, &bits, 4);
        return number;
    });
}

}  // namespace emulated
