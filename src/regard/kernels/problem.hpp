// One call of attention as the kernels see it: addresses, sizes and strides. Layout: query (B, H, L, E), key
// (B, G, S, E), value (B, G, S, V); strides count elements.
#pragma once

#include <cstdint>

namespace regard {

enum class Type : int { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

struct View {
    void* data = nullptr;  // null: not there
    int64_t batch = 0, head = 0, row = 0, column = 0;  // strides

    template <typename T>
    __attribute__((always_inline)) T* at(int64_t b, int64_t h) const {  // no symbol that instruction sets could share
        return static_cast<T*>(data) + b * batch + h * head;
    }
};

// Which keys a query sees: all parts together. Columns and rows count from 0.
struct Mask {
    int64_t min_offset = INT64_MIN, max_offset = INT64_MAX;  // of column - row - the sequence's start
    const int64_t* starts = nullptr;              // (B,) query_start - key_start of each sequence; null: `start`
    int64_t start = 0;
    const int64_t* lengths = nullptr;  // (B,) columns that are not padding; null: all
    const int64_t* query_ids = nullptr;  // (B or 1, L), and
    const int64_t* key_ids = nullptr;    // (B or 1, S): equal where visible; null: no such part
    int64_t query_ids_batch = 0, key_ids_batch = 0;  // strides
    // Anything else, by tiles of 64 x 64: (B or 1, H or 1, blocks of rows, panels of columns); null: no such part.
    const int32_t* tiles = nullptr;  // EMPTY, FULL, or the number of its bits
    const uint64_t* bits = nullptr;  // (tiles, 64 columns): a bit a row
    int64_t tiles_batch = 0, tiles_head = 0;  // strides

    static constexpr int32_t EMPTY = -1, FULL = -2;
};

// What is added to the scores. Numbers are float or double, as the scores.
struct Bias {
    View dense;        // (B, H, L, S), strides 0 where it is broadcast
    View by_distance;  // (B, H, L + S - 1): entry row - column + S - 1
};

// A factor on the weights, exp(-(column + shift - center)^2 / (2 sigma^2)); numbers as the scores.
struct Gaussian {
    View center;  // (B, H, L)
    const void* sigmas = nullptr;  // (H,); null: no prior
    int64_t shift = 0;  // the first key's position
};

// What a block of queries weighs where a sparse normalizer leaves almost nothing: the forward pass lists it for the backward pass.
struct SparseWeights {
    static constexpr int64_t ROWS = 64, CAPACITY = 32 * ROWS, COLUMNS = int64_t(1) << 26;
    int64_t count;          // -1: not listed
    uint32_t positions[CAPACITY];  // column * ROWS + row
    float weights[CAPACITY];

    int64_t column(int64_t n) const { return positions[n] / ROWS; }
    int64_t row(int64_t n) const { return positions[n] % ROWS; }
};

enum class Activation : int { tanh = 0, relu = 1, sigmoid = 2 };

enum class Normalizer : int { softmax = 0, sigmoid = 1, entmax = 2 };

struct Problem {
    Type type = Type::f32;
    int64_t batch = 0, heads = 0, groups = 0, rows = 0, columns = 0, dim = 0, value_dim = 0;
    View query, key, value, output;
    // (B, H, L, 2), float or double: the largest score of a row, or one near it, and the logarithm of the sum of exponentials
    // relative to it, its level; of entmax a score and the weight of its key. The level is -inf where the row sees nothing.
    View row_max_log_sum;
    double scale = 1;
    double softcap = 0;            // 0: none
    const void* vector = nullptr;  // (H, E), float or double: additive scores, not products
    Activation activation = Activation::tanh;
    Normalizer normalizer = Normalizer::softmax;
    const void* offsets = nullptr;  // (H,), float or double: added to the scores by sigmoid
    const void* alphas = nullptr;   // (H,), float or double: of entmax
    SparseWeights* sparse_weights = nullptr;     // (B, H, blocks of rows)
    Mask mask;
    Bias bias;
    Gaussian prior;
    double dropout = 0;
    uint64_t seed = 0;
    int threads = 1;
    bool relaxed = false;  // products of float32 may be less exact than floats' own
    uint64_t call = 0;     // by which threads know what they keep of it
};

// Backward: what comes in and what is wanted besides.
struct Gradients {
    View output;  // incoming, as Problem::output, which holds the forward pass's result
    View log_sum;   // incoming, of each row's level, (B, H, L); may be missing
    View query, key, value;             // to be written, in the inputs' type
    // Float or double, zeros at first; null where not wanted.
    View dense;             // of the bias, (B, H, L, S), strides 0 in L and S where it is broadcast
    View by_distance;       // (B, H, L + S - 1)
    void* vector = nullptr;   // (B, H, E)
    void* offsets = nullptr;  // (B, H)
    void* alphas = nullptr;   // (B, H)
    void* center = nullptr;   // (B, H, L)
    void* sigma = nullptr;    // (B, H, L): to be summed over the rows
};

// What is asked for besides the output: float or double, contiguous; zeros at first, but for the weights. Null where not
// wanted. The problem's output is null where it and the statistics have been computed before; else they are now.
struct Summary {
    void* entropy = nullptr;         // (B, H, L)
    void *mean = nullptr, *variance = nullptr;  // of the key's position, (B, H, L)
    void* key_mass = nullptr;        // (B, H, S)
    int64_t top_k = 0;
    void *top_keys = nullptr, *top_weights = nullptr;  // (B, H, L, top_k), the keys int64
    void* grid = nullptr;            // (B, H, query_bins, key_bins)
    int64_t query_bins = 0, key_bins = 0;
    void* weights = nullptr;         // (B, H, L, S)
    int64_t key_start = 0;           // the first key's position
};

// What a linear map does to each of its outputs.
enum class LinearActivation : int { none = 0, relu = 1, swish = 2, gelu_tanh = 3 };

// x W^T + b, of float32.
struct Weights {
    int64_t outputs = 0, depth = 0;
    const float* weight = nullptr;  // null: there is no such map
    int64_t row = 0;                // from one output to the next, in numbers
    const float* bias = nullptr;    // or null
};

// y (rows x outputs) = unit(x (rows x depth) W^T + b + added); strides between rows, in numbers.
struct LinearMap {
    Weights of;
    int64_t rows = 0;
    const float* x = nullptr;
    int64_t x_row = 0;
    float* y = nullptr;
    const float* added = nullptr;  // like y, and may be y; or null
    LinearActivation activation = LinearActivation::none;
    bool relaxed = false;  // products may be less exact than floats' own
};

// The most probable of `size` tokens by each of the rows of logits; how probable, as logarithms, and which: (rows, count).
struct TopkLogProbs {
    int64_t rows = 0, size = 0;
    const float* logits = nullptr;
    int64_t row = 0;  // from one row to the next, in numbers
    const int64_t* excluded = nullptr;  // tokens that are none of them
    int64_t excluded_count = 0, count = 0;
    float* values = nullptr;
    int64_t* tokens = nullptr;
    int threads = 1;
};

// A norm over the features of a row, before or after a part of a layer.
struct Norm {
    const float *gain = nullptr, *shift = nullptr;
    double eps = 0;
    bool before = false;
};

// A layer's attention with its projections, its norm and the sum with its input, for one token more.
struct FusedAttention {
    Norm norm;
    Weights query, key, value, output;  // without key and value in attention to a memory, which stays as it is
};

// A layer's feed-forward network likewise.
struct FusedFeedForward {
    Norm norm;
    Weights expand, contract;
    LinearActivation activation = LinearActivation::none;
};

}  // namespace regard
