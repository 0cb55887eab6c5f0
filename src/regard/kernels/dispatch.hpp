// Run-time choice of the instruction set.
#pragma once

#include <string>
#include <vector>

#include "kernel_table.hpp"

namespace regard {

// Tables of the instruction sets that were built and that this processor supports, in ascending order.
std::vector<const Table*> tables();

// Table in use: the best one, or the one chosen.
const Table& table();

// Selects an instruction set by name; returns false if there is none.
bool choose(const std::string& name);

}  // namespace regard
