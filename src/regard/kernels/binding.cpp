// Python bindings: converts the arguments of `regard.attention.backends.native` to a Problem, and those of linear maps,
// decoding steps and cache copies likewise.
#include <nanobind/nanobind.h>
#include <nanobind/stl/array.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <array>
#include <tuple>

#include "arguments.hpp"
#include "decode/copy_cache.hpp"
#include "decode/stack_binding.hpp"
#include "dispatch.hpp"
#include "parallel.hpp"
#include "problem.hpp"

namespace nb = nanobind;

namespace regard {
namespace {

using MaskArguments = std::tuple<int64_t, int64_t, int64_t, Address, Address, Address, int64_t, Address, int64_t, Address,
                                 int64_t, int64_t, Address>;

Mask mask(const MaskArguments& x) {
    const auto& [min_offset, max_offset, start, starts, lengths, query_ids, query_step, key_ids, key_step, tiles, tiles_batch,
                 tiles_head, bits] = x;
    Mask result;
    result.min_offset = min_offset, result.max_offset = max_offset, result.start = start;
    result.starts = at<int64_t>(starts), result.lengths = at<int64_t>(lengths);
    result.query_ids = at<int64_t>(query_ids), result.query_ids_batch = query_step;
    result.key_ids = at<int64_t>(key_ids), result.key_ids_batch = key_step;
    result.tiles = at<int32_t>(tiles), result.tiles_batch = tiles_batch, result.tiles_head = tiles_head;
    result.bits = at<uint64_t>(bits);
    return result;
}

#define REGARD_PROBLEM                                                                                              \
    int type, const std::array<int64_t, 7>&sizes, const Strided &query, const Strided &key, const Strided &value,   \
        const Strided &output, const Strided &row_max_log_sum, double scale, double softcap, Address vector, int activation, int normalizer, Address parameters, \
        const MaskArguments &seen, const Strided &dense, const Strided &by_distance, const Strided &center,         \
        Address sigmas, int64_t shift, double dropout, int64_t seed, int threads, bool relaxed, nb::handle
#define REGARD_PASSED                                                                                            \
    type, sizes, query, key, value, output, row_max_log_sum, scale, softcap, vector, activation, normalizer, parameters, seen, dense, by_distance, \
        center, sigmas, shift, dropout, seed, threads, relaxed

Problem plain_problem(int type, const std::array<int64_t, 7>& sizes, const Strided& query, const Strided& key, const Strided& value,
                      const Strided& output, double scale, int threads, bool relaxed) {
    Problem p;
    p.type = Type(type);
    p.batch = sizes[0], p.heads = sizes[1], p.groups = sizes[2], p.rows = sizes[3], p.columns = sizes[4];
    p.dim = sizes[5], p.value_dim = sizes[6];
    p.query = view(query), p.key = view(key), p.value = view(value), p.output = view(output);
    p.scale = scale, p.threads = threads, p.relaxed = relaxed;
    return p;
}

Problem problem(int type, const std::array<int64_t, 7>& sizes, const Strided& query, const Strided& key,
                const Strided& value, const Strided& output, const Strided& row_max_log_sum, double scale, double softcap,
                Address vector, int activation, int normalizer, Address parameters, const MaskArguments& seen, const Strided& dense,
                const Strided& by_distance, const Strided& center, Address sigmas, int64_t shift, double dropout,
                int64_t seed, int threads, bool relaxed) {
    Problem p = plain_problem(type, sizes, query, key, value, output, scale, threads, relaxed);
    p.row_max_log_sum = view(row_max_log_sum);
    p.softcap = softcap;
    p.vector = at(vector), p.activation = Activation(activation);
    p.normalizer = Normalizer(normalizer);
    const bool entmax = p.normalizer == Normalizer::entmax, sample = p.normalizer == Normalizer::sample;
    (entmax ? p.alphas : sample ? p.temperatures : p.offsets) = at(parameters);
    p.mask = mask(seen);
    p.bias.dense = view(dense), p.bias.by_distance = view(by_distance);
    p.prior.center = view(center), p.prior.sigmas = at(sigmas), p.prior.shift = shift;
    p.dropout = dropout, p.seed = uint64_t(seed);
    return p;
}

}  // namespace
}  // namespace regard

NB_MODULE(_native, module) {
    using namespace regard;
    module.def("isa", [] { return std::string(table().name); });
    module.def("isas", [] {
        std::vector<std::string> result;
        for (const Table* one : tables()) result.push_back(one->name);
        return result;
    });
    module.def("choose", &choose);
    module.def("runtime_path", [] { return std::string(runtime_path()); });
    module.def("threads", [](int threads) {  // number of threads of a parallel region, for tests
        int result = 0;
        parallel(threads, [](void* data, int thread, int of) { if (thread == 0) *static_cast<int*>(data) = of; }, &result);
        return result;
    });
    module.def("compact_call", [](int type, const std::array<int64_t, 7>& sizes, const Strided& query, const Strided& key, const Strided& value,
                           const Strided& output, double scale, double softcap, int64_t min_offset, int64_t max_offset, int64_t start, int threads,
                           bool relaxed) {
        Problem p = plain_problem(type, sizes, query, key, value, output, scale, threads, relaxed);
        p.softcap = softcap, p.mask.min_offset = min_offset, p.mask.max_offset = max_offset, p.mask.start = start;
        nb::gil_scoped_release unlocked;
        table().forward(p);
    });
    module.def("forward", [](REGARD_PROBLEM, Address sparse_weights, const Strided& chosen) {
        Problem p = problem(REGARD_PASSED);
        p.sparse_weights = at<SparseWeights>(sparse_weights), p.chosen = view(chosen);
        nb::gil_scoped_release unlocked;
        table().forward(p);
    });
    module.def("backward", [](REGARD_PROBLEM, const Strided& d_output, const Strided& d_log_sum, const Strided& d_query,
                              const Strided& d_key, const Strided& d_value, const Strided& d_dense,
                              const Strided& d_by_distance, Address d_vector, Address d_parameters, Address d_center, Address d_sigma,
                              Address sparse_weights) {
        Problem p = problem(REGARD_PASSED);
        p.sparse_weights = at<SparseWeights>(sparse_weights);
        Gradients g;
        g.output = view(d_output), g.log_sum = view(d_log_sum);
        g.query = view(d_query), g.key = view(d_key), g.value = view(d_value);
        g.dense = view(d_dense), g.by_distance = view(d_by_distance);
        (p.normalizer == Normalizer::entmax ? g.alphas : g.offsets) = at(d_parameters);
        g.vector = at(d_vector);
        g.center = at(d_center), g.sigma = at(d_sigma);
        nb::gil_scoped_release unlocked;
        table().backward(p, g);
    });
    module.attr("SPARSE_WEIGHTS_BYTES") = sizeof(SparseWeights);  // of a block of `SparseWeights::ROWS` queries
    module.def("summarize", [](REGARD_PROBLEM, Address entropy, Address mean, Address variance, Address key_mass,
                               int64_t top_k, Address top_keys, Address top_weights, Address grid, int64_t query_bins,
                               int64_t key_bins, Address weights, int64_t key_start) {
        const Problem p = problem(REGARD_PASSED);
        const Summary request{at(entropy), at(mean), at(variance), at(key_mass), top_k, at(top_keys), at(top_weights),
                             at(grid), query_bins, key_bins, at(weights), key_start};
        nb::gil_scoped_release unlocked;
        table().summarize(p, request);
    });
    module.def("visibility", [](REGARD_PROBLEM, Address queries, Address keys) {
        const Problem p = problem(REGARD_PASSED);
        nb::gil_scoped_release unlocked;
        table().visibility(p, at<bool>(queries), at<bool>(keys));
    });
    module.def("linear", [](int64_t rows, int64_t outputs, int64_t depth, Address x, int64_t x_row, Address weight,
                            int64_t weight_row, Address bias, Address y, int threads) {
        const LinearMap map{{outputs, depth, at<float>(weight), weight_row, at<float>(bias)}, rows, at<float>(x), x_row, at<float>(y)};
        nb::gil_scoped_release unlocked;
        table().linear(&map, 1, threads);
    });
    // Maps of the same rows, each with its output.
    module.def("int8_linear", [](int64_t rows, Address x, int64_t x_row, const std::vector<std::pair<WeightsArguments, Address>>& maps, int threads) {
        std::vector<LinearMap> all;
        for (const auto& [of, y] : maps) all.push_back({weights(of), rows, at<float>(x), x_row, at<float>(y)});
        nb::gil_scoped_release unlocked;
        int8_table().linear(all.data(), int(all.size()), threads);
    });
    module.def("int8_isa", [] { return std::string(int8_table().name); });
    module.def("int8_isas", [] {
        std::vector<std::string> result;
        for (const Int8Table* one : int8_tables()) result.push_back(one->name);
        return result;
    });
    module.def("choose_int8", &choose_int8);
    module.def("int8_split_bytes", [](int64_t outputs, int64_t depth) {  // bytes of a split weight; 0: not supported here
        return table().int8_split_bytes ? table().int8_split_bytes(outputs, depth) : 0;
    });
    module.def("make_int8_split", [](int64_t outputs, int64_t depth, Address weight, int64_t weight_row, Address to, int threads) {
        nb::gil_scoped_release unlocked;
        return table().make_int8_split({outputs, depth, at<float>(weight), weight_row, nullptr}, at(to), threads);
    });
    module.def("int8_split_linear", [](int64_t rows, int64_t outputs, int64_t depth, Address x, int64_t x_row, Address split, Address weight,
                                  int64_t weight_row, Address bias, Address y, int threads, bool relaxed) {
        LinearMap map{{outputs, depth, at<float>(weight), weight_row, at<float>(bias)}, rows, at<float>(x), x_row, at<float>(y)};
        map.relaxed = relaxed;
        nb::gil_scoped_release unlocked;
        table().int8_split_linear(map, at(split), threads);
    });
    module.def("topk_log_probs", [](int64_t rows, int64_t size, Address logits, int64_t row, const std::vector<int64_t>& excluded,
                               int64_t count, Address values, Address tokens, int threads) {
        const TopkLogProbs request{rows, size, at<float>(logits), row, excluded.data(), int64_t(excluded.size()), count,
                               at<float>(values), at<int64_t>(tokens), threads};
        nb::gil_scoped_release unlocked;
        table().topk_log_probs(request);
    });
    // Sequences of several buffers, each by (address, strides of sequences and heads, heads, bytes of a run), copied within them.
    module.def("copy_sequences", [](const std::vector<std::array<int64_t, 5>>& buffers, Address targets, Address sources, int64_t batch,
                                    int64_t count, int threads) {
        for (const int64_t* chosen : {at<int64_t>(targets), at<int64_t>(sources)})
            for (int64_t i = 0; i < count; ++i)
                if (chosen[i] < 0 || chosen[i] >= batch) throw nb::index_error("sequences that a cache does not hold");
        nb::gil_scoped_release unlocked;
        for (const auto& [address, sequence, head, heads, bytes] : buffers) {
            const Runs runs{at<char>(Address(address)), sequence, head};
            copy_runs(runs, at<int64_t>(targets), runs, at<int64_t>(sources), count, heads, bytes, threads);
        }
    });
    module.def("copy_runs", [](const std::array<int64_t, 3>& to, Address targets, const std::array<int64_t, 3>& from, Address sources,
                               int64_t batch, int64_t count, int64_t heads, int64_t bytes, int threads) {
        for (const int64_t* chosen : {at<int64_t>(targets), at<int64_t>(sources)})
            for (int64_t i = 0; chosen && i < count; ++i)
                if (chosen[i] < 0 || chosen[i] >= batch) throw nb::index_error("sequences that a cache does not hold");
        const auto runs = [](const std::array<int64_t, 3>& x) { return Runs{at<char>(Address(x[0])), x[1], x[2]}; };
        nb::gil_scoped_release unlocked;
        copy_runs(runs(to), at<int64_t>(targets), runs(from), at<int64_t>(sources), count, heads, bytes, threads);
    });
    // The objects below hold addresses: the tensors must outlive them.
    nb::class_<FusedAttention>(module, "FusedAttention")
        .def("__init__", [](FusedAttention* self, const NormArguments& norm, const WeightsArguments& query,
                            const WeightsArguments& key, const WeightsArguments& value, const WeightsArguments& output) {
            new (self) FusedAttention{norm_of(norm), weights(query), weights(key), weights(value), weights(output)};
        })
        .def("step", [](const FusedAttention& part, Address x, const std::array<int64_t, 7>& sizes, const Strided& key,
                        const Strided& value, double scale, Address lengths, int threads) {
            Problem p;
            p.batch = sizes[0], p.heads = sizes[1], p.groups = sizes[2], p.rows = sizes[3], p.columns = sizes[4];
            p.dim = sizes[5], p.value_dim = sizes[6];
            p.key = view(key), p.value = view(value);
            p.scale = scale, p.mask.lengths = at<int64_t>(lengths), p.threads = threads;
            nb::gil_scoped_release unlocked;
            table().fused_attention(part, at<float>(x), p);
        });
    nb::class_<FusedFeedForward>(module, "FusedFeedForward")
        .def("__init__", [](FusedFeedForward* self, const NormArguments& norm, const WeightsArguments& expand,
                            const WeightsArguments& contract, int activation) {
            new (self) FusedFeedForward{norm_of(norm), weights(expand), weights(contract), LinearActivation(activation)};
        })
        .def("step", [](const FusedFeedForward& part, Address x, int64_t rows, int threads) {
            nb::gil_scoped_release unlocked;
            table().fused_feed_forward(part, rows, at<float>(x), threads);
        });
    bind_decoder_stack(module);
}
