// The instructions of AMX in plain code, for tests of a build with REGARD_EMULATE_TILES on processors without them. Included
// before all else.
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
#undef _tile_dpbf16ps
#define _tile_loadconfig(config) emulated::begin()
#define _tile_release() emulated::end()
#define _tile_zero emulated::zero
#define _tile_loadd emulated::load
#define _tile_stored emulated::store
#define _tile_dpbssd emulated::bytes
#define _tile_dpbf16ps emulated::halves

namespace emulated {

struct Tiles {
    alignas(64) uint8_t rows[8][16][64];
    bool configured = false;
};
static thread_local Tiles tiles;

static inline void need() {
    if (!tiles.configured) __builtin_trap();  // as the processor does
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
static inline void bytes(int sums, int a, int b) {
    need();
    int32_t c[16];
    for (int m = 0; m < 16; ++m) {
        std::memcpy(c, tiles.rows[sums][m], 64);
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 16; ++n)
                for (int j = 0; j < 4; ++j) c[n] += int8_t(tiles.rows[a][m][4 * k + j]) * int8_t(tiles.rows[b][k][4 * n + j]);
        std::memcpy(tiles.rows[sums][m], c, 64);
    }
}
static inline float wide(const uint8_t* half) {
    uint32_t bits = 0;
    std::memcpy(reinterpret_cast<char*>(&bits) + 2, half, 2);
    float found;
    std::memcpy(&found, &bits, 4);
    return found;
}
static inline void halves(int sums, int a, int b) {
    need();
    float c[16];
    for (int m = 0; m < 16; ++m) {
        std::memcpy(c, tiles.rows[sums][m], 64);
        for (int k = 0; k < 16; ++k)
            for (int n = 0; n < 16; ++n)
                for (int j = 0; j < 2; ++j) c[n] += wide(tiles.rows[a][m] + 4 * k + 2 * j) * wide(tiles.rows[b][k] + 4 * n + 2 * j);
        std::memcpy(tiles.rows[sums][m], c, 64);
    }
}

}  // namespace emulated
