// AMX tile registers.
#pragma once

#include <cstdint>

#if defined(__AMX_TILE__)
#include <immintrin.h>
#endif

namespace regard::REGARD_ISA {

constexpr int64_t TILE_ROWS = 16;  // of 64 bytes

#if defined(__AMX_TILE__)

// Tile configuration: eight tiles of 16 rows of 64 bytes.
struct TileConfig {
    uint8_t palette = 1, start = 0, reserved[14] = {};
    uint16_t bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
alignas(64) static const TileConfig TILE_CONFIG;

struct TileRegisters {
    TileRegisters() {
        written();
        _tile_loadconfig(&TILE_CONFIG);
    }
    ~TileRegisters() { _tile_release(); }  // leaves the tile registers in their initial state

    // Compiler barrier before tile loads: the compiler does not know that they read memory.
    static void written() { asm volatile("" ::"r"(&TILE_CONFIG) : "memory"); }
};

#endif

}  // namespace regard::REGARD_ISA
