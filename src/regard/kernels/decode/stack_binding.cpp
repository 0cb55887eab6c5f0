#include "decode/stack_binding.hpp"

#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <utility>

#include "arguments.hpp"
#include "decode/decoder_stack.hpp"

namespace nb = nanobind;

namespace regard {
namespace {

using HeadArguments = std::tuple<int64_t, int64_t, int64_t, double>;
using BufferArguments = std::vector<std::pair<Strided, Strided>>;

HeadSizes heads_of(const HeadArguments& x) {
    const auto& [heads, groups, dim, scale] = x;
    return {heads, groups, dim, scale};
}

std::vector<CacheBuffers> buffers(const BufferArguments& all) {
    std::vector<CacheBuffers> result;
    for (const auto& [key, value] : all) result.push_back({view(key), view(value)});
    return result;
}

void step(const DecoderStack& stack, const std::array<int64_t, 2>& sizes, Address tokens, Address slots, Address position,
          const std::vector<std::pair<int64_t, int64_t>>& past, int64_t memory_length, Address lengths, Address hidden, Address logits, int threads) {
    std::vector<CacheSpan> spans;
    for (const auto& [first, end] : past) spans.push_back({first, end});
    const bool has_memory = !stack.layers.empty() && stack.layers[0].memory.query.outputs > 0;
    if (spans.size() != stack.layers.size() || stack.past.size() != spans.size() || (has_memory && stack.memory.size() != spans.size()))
        throw nb::value_error("a decoder's step needs a cache for each layer");
    const StackStep request{sizes[0], sizes[1], at<int64_t>(tokens), at<int64_t>(slots), at<float>(position), spans.data(), memory_length,
                            at<int64_t>(lengths), at<float>(hidden), at<float>(logits), threads};
    if (!stack.has_rows(request)) throw nb::index_error("token ids that the embedding does not have");
    nb::gil_scoped_release unlocked;
    stack.step(request);
}

}  // namespace

void bind_decoder_stack(nb::module_& module) {
    using namespace nb::literals;
    // It holds addresses: the tensors must outlive it.
    nb::class_<DecoderStack>(module, "DecoderStack")
        .def("__init__", [](DecoderStack* self, const WeightsArguments& embedding, double factor, const NormArguments& norm, const WeightsArguments& output) {
            new (self) DecoderStack;
            self->embedding = weights(embedding), self->embedding_factor = float(factor), self->norm = norm_of(norm), self->output = weights(output);
        })
        .def("add", [](DecoderStack& self, const FusedAttention& past, const HeadArguments& past_heads, const FusedAttention* memory,
                       const HeadArguments& memory_heads, const FusedFeedForward& feed_forward) {
            self.layers.push_back({past, heads_of(past_heads), memory ? *memory : FusedAttention{}, heads_of(memory_heads), feed_forward});
        }, "past"_a, "past_heads"_a, "memory"_a.none(), "memory_heads"_a, "feed_forward"_a)
        .def("bind_past", [](DecoderStack& self, const BufferArguments& all) { self.past = buffers(all); })
        .def("bind_memory", [](DecoderStack& self, const BufferArguments& all) { self.memory = buffers(all); })
        .def("step", &step);
}

}  // namespace regard
