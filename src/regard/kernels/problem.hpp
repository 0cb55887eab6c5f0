// Plain descriptions of calls: addresses, sizes and strides. Layout: query (B, H, L, E), key (B, G, S, E), value (B, G, S, V);
// strides count elements.
#pragma once

#include <cstdint>

namespace regard {

enum class Type : int { f32 = 0, f64 = 1, f16 = 2, bf16 = 3 };

struct View {
    void* data = nullptr;  // null: absent
    int64_t batch = 0, head = 0, row = 0, column = 0;  // strides

    template <typename T>
    __attribute__((always_inline)) T* at(int64_t b, int64_t h) const {  // inlined: no symbol that instruction sets could share
        return static_cast<T*>(data) + b * batch + h * head;
    }
};

// Mask: a pair is visible if all conditions hold. Columns and rows count from 0.
struct Mask {
    int64_t min_offset = INT64_MIN, max_offset = INT64_MAX;  // bounds of column - row - start
    const int64_t* starts = nullptr;              // (B,) query_start - key_start of each sequence; null: `start`
    int64_t start = 0;
    const int64_t* lengths = nullptr;  // (B,) columns that are not padding; null: all
    const int64_t* query_ids = nullptr;  // document ids (B or 1, L), and
    const int64_t* key_ids = nullptr;    // (B or 1, S): equal where visible; null: no documents
    int64_t query_ids_batch = 0, key_ids_batch = 0;  // strides
    // All other patterns, by tiles of 64 x 64: (B or 1, H or 1, blocks of rows, panels of columns); null: none.
    const int32_t* tiles = nullptr;  // EMPTY, FULL, or the index of a tile's bits
    const uint64_t* bits = nullptr;  // (tiles, 64 columns): a bit a row
    int64_t tiles_batch = 0, tiles_head = 0;  // strides

    static constexpr int32_t EMPTY = -1, FULL = -2;
};

// Bias added to the scores; float or double, as the scores.
struct Bias {
    View dense;        // (B, H, L, S), strides 0 where it is broadcast
    View by_distance;  // (B, H, L + S - 1): entry row - column + S - 1
};

// Gaussian prior: factor exp(-(column + shift - center)^2 / (2 sigma^2)) on the weights; numbers as the scores.
struct Gaussian {
    View center;  // (B, H, L)
    const void* sigmas = nullptr;  // (H,); null: no prior
    int64_t shift = 0;  // the first key's position
};

// Sparse weights of a block of queries, listed by the forward pass of a sparse normalizer for the backward pass.
struct SparseWeights {
    static constexpr int64_t ROWS = 64, CAPACITY = 32 * ROWS, COLUMNS = int64_t(1) << 26;
    int64_t count;          // -1: not listed
    uint32_t positions[CAPACITY];  // column * ROWS + row
    float weights[CAPACITY];

    int64_t column(int64_t n) const { return positions[n] / ROWS; }
    int64_t row(int64_t n) const { return positions[n] % ROWS; }
};

enum class Activation : int { tanh = 0, relu = 1, sigmoid = 2 };

// `argmax` and `sample` choose one key a row; `sample` draws it from softmax(score / temperature).
enum class Normalizer : int { softmax = 0, sigmoid = 1, entmax = 2, argmax = 3, sample = 4 };

struct Problem {
    Type type = Type::f32;
    int64_t batch = 0, heads = 0, groups = 0, rows = 0, columns = 0, dim = 0, value_dim = 0;
    View query, key, value, output;
    // (B, H, L, 2), float or double: row max, or a score close to it, and log-sum, the logarithm of sum exp(score - row max);
    // for entmax the anchor's score and weight. The log-sum is -inf where a row sees nothing.
    View row_max_log_sum;
    double scale = 1;
    double softcap = 0;            // 0: none
    const void* vector = nullptr;  // (H, E), float or double: additive scores; null: dot products
    Activation activation = Activation::tanh;
    Normalizer normalizer = Normalizer::softmax;
    const void* offsets = nullptr;  // (H,), float or double: offsets of sigmoid
    const void* alphas = nullptr;   // (H,), float or double: of entmax
    const void* temperatures = nullptr;  // (H,), float or double: of `sample`
    View chosen;                    // (B, H, L), int64: columns of the chosen keys, -1 for none; may be absent
    SparseWeights* sparse_weights = nullptr;     // (B, H, blocks of rows)
    Mask mask;
    Bias bias;
    Gaussian prior;
    double dropout = 0;
    uint64_t seed = 0;
    int threads = 1;
    bool relaxed = false;  // products may be less exact than plain float32
    uint64_t call = 0;     // number of the call, which identifies per-thread caches
};

// Incoming and requested gradients of a backward pass.
struct Gradients {
    View output;  // incoming, laid out as Problem::output, which holds the forward pass's result
    View log_sum;   // incoming, of each row's log-sum, (B, H, L); may be absent
    View query, key, value;             // outgoing, in the inputs' dtype
    // Outgoing, float or double, zeros at first; null where not requested.
    View dense;             // of the bias, (B, H, L, S), strides 0 in L and S where it is broadcast
    View by_distance;       // (B, H, L + S - 1)
    void* vector = nullptr;   // (B, H, E)
    void* offsets = nullptr;  // (B, H)
    void* alphas = nullptr;   // (B, H)
    void* center = nullptr;   // (B, H, L)
    void* sigma = nullptr;    // (B, H, L): to be summed over the rows
};

// Requested summaries: float or double, contiguous, zeros at first except for the weights; null where not requested. If the
// problem's output is null, output, row max and log-sum have been computed before; else they are computed now.
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

// Activation fused into a linear map.
enum class LinearActivation : int { none = 0, relu = 1, swish = 2, gelu_tanh = 3, gelu = 4 };

// Layout of int8 codes: blocks of 16 outputs; in a block, for every four features, the four codes of each output. Features are
// zero-padded to a multiple of 64.
constexpr int64_t BLOCK_OUTPUTS = 16, QUAD = 4, LINE = BLOCK_OUTPUTS * QUAD;  // LINE: bytes of four features of a block
constexpr int64_t DEPTH_STEP = 64;

// Weight and bias of a linear map x W^T + b, in float32 or, where `codes` is not null, in int8: output n's codes times scales[n].
struct Weights {
    int64_t outputs = 0, depth = 0;  // no outputs: no such map
    const float* weight = nullptr;
    int64_t row = 0;                // stride between outputs, in numbers
    const float* bias = nullptr;    // or null
    const int8_t* codes = nullptr;  // in the layout above
    const float* scales = nullptr;  // of each output
    const int32_t* sums = nullptr;  // of each output's codes
};

// y (rows x outputs) = activation(x (rows x depth) W^T + b + added); strides between rows, in numbers.
struct LinearMap {
    Weights of;
    int64_t rows = 0;
    const float* x = nullptr;
    int64_t x_row = 0;
    float* y = nullptr;
    const float* added = nullptr;  // residual, laid out as y, may be y; or null
    LinearActivation activation = LinearActivation::none;
    bool relaxed = false;  // products may be less exact than plain float32
};

// Top-k of rows of logits over `size` tokens: log-probabilities and tokens, (rows, count) each.
struct TopkLogProbs {
    int64_t rows = 0, size = 0;
    const float* logits = nullptr;
    int64_t row = 0;  // stride between rows, in numbers
    const int64_t* excluded = nullptr;  // tokens to leave out
    int64_t excluded_count = 0, count = 0;
    float* values = nullptr;
    int64_t* tokens = nullptr;
    int threads = 1;
};

// Layer norm, before or after a part of a layer.
struct Norm {
    const float *gain = nullptr, *shift = nullptr;
    double eps = 0;
    bool before = false;
};

// Attention of a layer with projections, norm and residual sum, for one more token.
struct FusedAttention {
    Norm norm;
    Weights query, key, value, output;  // key and value are absent in cross-attention, whose memory is constant
};

// Feed-forward network of a layer with norm and residual sum.
struct FusedFeedForward {
    Norm norm;
    Weights expand, contract;
    LinearActivation activation = LinearActivation::none;
};

}  // namespace regard
