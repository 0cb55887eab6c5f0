// Python binding of DecoderStack.
#pragma once

#include <nanobind/nanobind.h>

namespace regard {

// Adds the class to the module, after those of the parts of layers.
void bind_decoder_stack(nanobind::module_& module);

}  // namespace regard
