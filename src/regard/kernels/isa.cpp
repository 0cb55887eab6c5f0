// All kernels, compiled once for each instruction set with its own flags and -DREGARD_ISA=<name>. Everything included is static
// or in the namespace of that name: the linker would keep only one copy of a function that two instruction sets share by name.
#include "linear/int8_split_linear.hpp"
#include "decode/topk_log_probs.hpp"
#include "decode/fused_layer_step.hpp"
#include "kernel_table.hpp"

#define REGARD_TEXT_OF(x) #x
#define REGARD_TEXT(x) REGARD_TEXT_OF(x)

namespace regard::REGARD_ISA {

extern const Table table;
const Table table{REGARD_TEXT(REGARD_ISA), forward, backward, summarize, visibility, linear,
                  int8_split_bytes, make_int8_split, int8_split_linear, topk_log_probs, normalize, fused_attention, fused_feed_forward};

}  // namespace regard::REGARD_ISA
