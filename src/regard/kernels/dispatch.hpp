// The instruction set in use.
#pragma once

#include <string>
#include <vector>

#include "kernel_table.hpp"

namespace regard {

// Those that were built and that this processor has, from the least to the best.
std::vector<const Table*> tables();

// The best of them, or the one chosen.
const Table& table();

// Use one by name from now on; false if there is none of that name.
bool choose(const std::string& name);

}  // namespace regard
