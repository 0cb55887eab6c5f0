// Compiled once for each instruction set, with its own flags and -DREGARD_ISA=<name>. Everything included is static or in
// the namespace of that name: a function that two instruction sets share by name would be linked for one of them only.
#include "digit_linear.hpp"
#include "likeliest.hpp"
#include "step.hpp"
#include "table.hpp"

#define REGARD_TEXT_OF(x) #x
#define REGARD_TEXT(x) REGARD_TEXT_OF(x)

namespace regard::REGARD_ISA {

extern const Table table;
const Table table{REGARD_TEXT(REGARD_ISA), forward, backward, summarize, seen, linear,
                  digits_bytes, make_digits, digit_linear, likeliest, attention_part, feed_forward_part};

}  // namespace regard::REGARD_ISA
