// Linear maps in int8, compiled once for each instruction set, as isa.cpp is.
#include "int8/int8_linear.hpp"
#include "kernel_table.hpp"

#define REGARD_TEXT_OF(x) #x
#define REGARD_TEXT(x) REGARD_TEXT_OF(x)

namespace regard::REGARD_ISA {

extern const Int8Table int8_table;
const Int8Table int8_table{REGARD_TEXT(REGARD_ISA), int8_linear};

}  // namespace regard::REGARD_ISA
