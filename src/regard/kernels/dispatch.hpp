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

// Selects an instruction set by name, and the int8 table that belongs to it; returns false if there is none.
bool choose(const std::string& name);

// Int8 tables that were built and that this processor supports, in ascending order; and the choice of another one by name.
std::vector<const Int8Table*> int8_tables();
bool choose_int8(const std::string& name);

}  // namespace regard
