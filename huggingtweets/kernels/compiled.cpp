// What the fused engine computes between matrix products, on one thread of a CPU.
//
// Each function does in one pass what takes PyTorch's operators five to fifteen; reference.py says
// what is computed, and tests hold both to the same numbers. T is float or bf16; sums are in fp32
// at least. Plain loops that any C++ compiler turns into vector instructions: no library, no state.
// Cut in two where GCC would otherwise turn the bounds of an exponent into branches.

#include <cmath>
#include <cstdint>
#include <cstring>

namespace {

constexpr int64_t MAX_COLUMNS = 8192;  // of a row of places, see dropout.py
constexpr int64_t CHUNK = 512;         // values that are worked on at once

struct bf16 {
    uint16_t bits;
};

template <class To, class From> inline To bit_cast(From value) {
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

inline float load(float value) { return value; }
inline float load(bf16 value) { return bit_cast<float>(uint32_t(value.bits) << 16); }
inline void store(float &place, float value) { place = value; }
inline void store(bf16 &place, float value) {
    const uint32_t bits = bit_cast<uint32_t>(value);
    place.bits = uint16_t((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // nearest, ties to even
}

// 2^x, good to 1e-7 of its value, for -126 <= x <= 127; NaN stays NaN.
inline float power_of_2(float x) {
    const float shifted = x + 12582912.0f;  // the nearest integer is in the low bits
    const float f = x - (shifted - 12582912.0f);
    float p = 1.53457917e-4f;
    p = p * f + 1.33999294e-3f;
    p = p * f + 9.61848901e-3f;
    p = p * f + 5.55032878e-2f;
    p = p * f + 2.40226469e-1f;
    p = p * f + 6.93147206e-1f;
    p = p * f + 1.0f;
    return bit_cast<float>(bit_cast<uint32_t>(p) + (bit_cast<uint32_t>(shifted) << 23));
}

constexpr float LOG2_E = 1.44269504f;

// Replace x by exp(x - largest) where that is at most 1, 0 where it is below 2^-126; the sum of all.
inline float exponentials(float *x, float largest, int64_t num) {
    float sum = 0;
#pragma omp simd
    for (int64_t i = 0; i < num; i++) {
        const float power = (x[i] - largest) * LOG2_E;
        x[i] = power < -126.0f ? -126.0f : power;
    }
#pragma omp simd reduction(+ : sum)
    for (int64_t i = 0; i < num; i++) {
        x[i] = x[i] == -126.0f ? 0.0f : power_of_2(x[i]);
        sum += x[i];
    }
    return sum;
}

constexpr float GELU_1 = 1.5957691216057308f;  // 2 sqrt(2 / pi)
constexpr float GELU_3 = GELU_1 * 0.044715f;

// Write s with GELU(x) = x s, the sigmoid of x (GELU_1 + GELU_3 x^2), for up to CHUNK values.
template <class T> inline void gates(float *out, const T *in, int64_t num) {
#pragma omp simd
    for (int64_t i = 0; i < num; i++) {
        const float x = load(in[i]);
        const float power = -x * (GELU_1 * LOG2_E + GELU_3 * LOG2_E * x * x);
        out[i] = power < -126.0f ? -126.0f : power;
    }
#pragma omp simd
    for (int64_t i = 0; i < num; i++) {
        const float power = out[i] > 126.0f ? 126.0f : out[i];
        out[i] = 1.0f / (1.0f + power_of_2(power));
    }
}

// 16 random bits for each column of one row of a dropout mask; see keep_mask in dropout.py.
struct Row {
    int32_t bits[MAX_COLUMNS / 2];

    void draw(const int32_t *keys, int64_t row, int64_t first_column, int64_t columns) {
        const uint32_t first = uint32_t(row * MAX_COLUMNS + first_column / 2);
        const uint32_t key_1 = uint32_t(keys[0]), key_2 = uint32_t(keys[1]);
        const int64_t pairs = (columns + 1) / 2;
#pragma omp simd
        for (int64_t pair = 0; pair < pairs; pair++) {
            uint32_t x = (first + uint32_t(pair)) ^ key_1;
            x *= uint32_t(-1640531535);
            x ^= uint32_t(int32_t(x) >> 15);
            x *= uint32_t(-2048144777);
            x ^= key_2;
            x ^= uint32_t(int32_t(x) >> 13);
            x *= uint32_t(-1028477379);
            bits[pair] = int32_t(x);
        }
    }
    const int16_t *halves() const { return reinterpret_cast<const int16_t *>(bits); }
};

template <class T> void gelu(T *out, const T *in, int64_t num) {
    float s[CHUNK];
    for (int64_t start = 0; start < num; start += CHUNK) {
        const int64_t size = num - start < CHUNK ? num - start : CHUNK;
        gates(s, in + start, size);
#pragma omp simd
        for (int64_t i = 0; i < size; i++) store(out[start + i], load(in[start + i]) * s[i]);
    }
}

template <class T> void gelu_backward(T *out, const T *grad, const T *in, int64_t num) {
    float s[CHUNK];
    for (int64_t start = 0; start < num; start += CHUNK) {
        const int64_t size = num - start < CHUNK ? num - start : CHUNK;
        gates(s, in + start, size);
#pragma omp simd
        for (int64_t i = 0; i < size; i++) {
            const float x = load(in[start + i]), slope = x * (GELU_1 + 3.0f * GELU_3 * x * x);
            store(out[start + i], load(grad[start + i]) * (s[i] + s[i] * (1.0f - s[i]) * slope));
        }
    }
}

template <class T>
void norm(float *normalised, float *inverse, T *out, const float *x, const float *weight,
          const float *bias, int64_t K, int64_t R, int64_t C, int64_t weight_stride,
          int64_t bias_stride, float eps) {
    for (int64_t k = 0; k < K; k++, weight += weight_stride, bias += bias_stride)
        for (int64_t r = 0; r < R; r++, x += C, normalised += C, out += C) {
            float sum = 0, squares = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t c = 0; c < C; c++) sum += x[c];
            const float mean = sum / float(C);
#pragma omp simd reduction(+ : squares)
            for (int64_t c = 0; c < C; c++) squares += (x[c] - mean) * (x[c] - mean);
            const float scale = 1.0f / sqrtf(squares / float(C) + eps);
            *inverse++ = scale;
#pragma omp simd
            for (int64_t c = 0; c < C; c++) {
                normalised[c] = (x[c] - mean) * scale;
                store(out[c], normalised[c] * weight[c] + bias[c]);
            }
        }
}

template <class T>
void norm_backward(float *grad, float *grad_weight, float *grad_bias, const T *grad_out,
                   const float *normalised, const float *inverse, const float *weight, int64_t K,
                   int64_t R, int64_t C, int64_t weight_stride, int64_t grad_weight_stride,
                   int64_t grad_bias_stride, int64_t accumulate, int64_t add) {
    float weights[MAX_COLUMNS], biases[MAX_COLUMNS], g[MAX_COLUMNS];
    for (int64_t k = 0; k < K; k++, weight += weight_stride) {
        for (int64_t c = 0; c < C; c++) weights[c] = biases[c] = 0;
        for (int64_t r = 0; r < R; r++, grad += C, grad_out += C, normalised += C) {
            float sum = 0, product = 0;
#pragma omp simd reduction(+ : sum, product)
            for (int64_t c = 0; c < C; c++) {
                const float of_out = load(grad_out[c]);
                weights[c] += of_out * normalised[c];
                biases[c] += of_out;
                g[c] = of_out * weight[c];
                sum += g[c];
                product += g[c] * normalised[c];
            }
            const float scale = *inverse++, mean = sum / float(C), slope = product / float(C);
#pragma omp simd
            for (int64_t c = 0; c < C; c++) {
                const float of_x = scale * (g[c] - mean - normalised[c] * slope);
                grad[c] = add ? grad[c] + of_x : of_x;
            }
        }
        if (!grad_weight) continue;
        float *to_weight = grad_weight + k * grad_weight_stride;
        float *to_bias = grad_bias + k * grad_bias_stride;
        for (int64_t c = 0; c < C; c++) {
            to_weight[c] = (accumulate ? to_weight[c] : 0.0f) + weights[c];
            to_bias[c] = (accumulate ? to_bias[c] : 0.0f) + biases[c];
        }
    }
}

template <class T>
void column_sums(float *out, const T *x, int64_t K, int64_t R, int64_t C, int64_t out_stride,
                 int64_t accumulate) {
    float sums[CHUNK];
    for (int64_t k = 0; k < K; k++, out += out_stride, x += R * C)
        for (int64_t start = 0; start < C; start += CHUNK) {
            const int64_t size = C - start < CHUNK ? C - start : CHUNK;
            for (int64_t c = 0; c < size; c++) sums[c] = accumulate ? out[start + c] : 0.0f;
            for (int64_t r = 0; r < R; r++) {
                const T *row = x + r * C + start;
#pragma omp simd
                for (int64_t c = 0; c < size; c++) sums[c] += load(row[c]);
            }
            for (int64_t c = 0; c < size; c++) out[start + c] = sums[c];
        }
}

// Call use(place, scale) for each of the n * rows * C places, with scale 0 where it is dropped.
template <class Use>
inline void with_dropout(const int32_t *keys, const int16_t *thresholds, const float *scales,
                         int64_t n, int64_t rows, int64_t C, Use use) {
    Row random;
    int64_t place = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t r = 0; r < rows; r++, place += C) {
            random.draw(keys + 2 * i, r, 0, C);
            const int16_t *halves = random.halves(), threshold = thresholds[i];
            const float scale = scales[i];
#pragma omp simd
            for (int64_t c = 0; c < C; c++) use(place + c, halves[c] >= threshold ? scale : 0.0f);
        }
}

template <class T>
void drop(T *out, const float *x, const int32_t *keys, const int16_t *thresholds,
          const float *scales, int64_t n, int64_t rows, int64_t C) {
    with_dropout(keys, thresholds, scales, n, rows, C,
                 [=](int64_t i, float scale) { store(out[i], x[i] * scale); });
}

template <class T> void add(float *x, const T *branch, int64_t num) {
#pragma omp simd
    for (int64_t i = 0; i < num; i++) x[i] += load(branch[i]);
}

template <class T>
void add_dropped(float *x, const T *branch, const int32_t *keys, const int16_t *thresholds,
                 const float *scales, int64_t n, int64_t rows, int64_t C) {
    with_dropout(keys, thresholds, scales, n, rows, C,
                 [=](int64_t i, float scale) { x[i] += load(branch[i]) * scale; });
}

// `scores` are (n * heads, Q, J); `bias` (n or 1, Q, biased) is added to their last columns.
template <class T>
void softmax(T *weights, T *dropped, const T *scores, const float *bias, const int32_t *keys,
             const int16_t *thresholds, int64_t n, int64_t heads, int64_t Q, int64_t J,
             int64_t biased, int64_t bias_stride, int64_t first_row, int64_t first_column) {
    Row random;
    float row[MAX_COLUMNS];
    for (int64_t i = 0; i < n * heads; i++)
        for (int64_t q = 0; q < Q; q++, scores += J, weights += J, dropped += J) {
            const float *added = bias + i / heads * bias_stride + q * biased;
            const int64_t plain = J - biased;
#pragma omp simd
            for (int64_t j = 0; j < plain; j++) row[j] = load(scores[j]);
#pragma omp simd
            for (int64_t j = 0; j < biased; j++) row[plain + j] = load(scores[plain + j]) + added[j];
            float largest = row[0];
#pragma omp simd reduction(max : largest)
            for (int64_t j = 0; j < J; j++) largest = row[j] > largest ? row[j] : largest;
            const float scale = 1.0f / exponentials(row, largest, J);
#pragma omp simd
            for (int64_t j = 0; j < J; j++) store(weights[j], row[j] * scale);
            if (!keys) continue;
            random.draw(keys + 2 * i, first_row + q, first_column, J);
            const int16_t *halves = random.halves(), threshold = thresholds[i];
#pragma omp simd
            for (int64_t j = 0; j < J; j++)
                store(dropped[j], halves[j] >= threshold ? load(weights[j]) : 0.0f);
        }
}

template <class T>
void softmax_backward(T *grad_scores, const T *grad_dropped, const T *weights, const int32_t *keys,
                      const int16_t *thresholds, int64_t n, int64_t Q, int64_t J,
                      int64_t first_row, int64_t first_column) {
    Row random;
    float g[MAX_COLUMNS];
    for (int64_t i = 0; i < n; i++)
        for (int64_t q = 0; q < Q; q++, grad_scores += J, grad_dropped += J, weights += J) {
            if (keys) {
                random.draw(keys + 2 * i, first_row + q, first_column, J);
                const int16_t *halves = random.halves(), threshold = thresholds[i];
#pragma omp simd
                for (int64_t j = 0; j < J; j++)
                    g[j] = halves[j] >= threshold ? load(grad_dropped[j]) : 0.0f;
            } else {
#pragma omp simd
                for (int64_t j = 0; j < J; j++) g[j] = load(grad_dropped[j]);
            }
            float sum = 0;
#pragma omp simd reduction(+ : sum)
            for (int64_t j = 0; j < J; j++) sum += g[j] * load(weights[j]);
#pragma omp simd
            for (int64_t j = 0; j < J; j++)
                store(grad_scores[j], load(weights[j]) * (g[j] - sum));
        }
}

// `logits` (K, R, V) become exp(logit - largest), less the row's total at the target.
template <class T>
void cross_entropy(T *logits, const int64_t *targets, const float *weight, float *losses,
                   float *scales, int64_t K, int64_t R, int64_t V, int64_t vocab_size) {
    float chunk[CHUNK];
    for (int64_t k = 0; k < K; k++) {
        double loss = 0;
        for (int64_t r = 0; r < R; r++, logits += V) {
            const int64_t target = *targets++;
            const bool counts = target >= 0;
            if (target >= vocab_size) {  // no such word: the model is given up, and nothing written
                loss = NAN;
                *scales++ = NAN;
                continue;
            }
            const float of_target = load(logits[counts ? target : 0]);
            float largest = load(logits[0]), total = 0;
#pragma omp simd reduction(max : largest)
            for (int64_t v = 0; v < vocab_size; v++) {
                const float value = load(logits[v]);
                largest = value > largest ? value : largest;
            }
            for (int64_t start = 0; start < vocab_size; start += CHUNK) {
                const int64_t size = vocab_size - start < CHUNK ? vocab_size - start : CHUNK;
#pragma omp simd
                for (int64_t v = 0; v < size; v++) chunk[v] = load(logits[start + v]);
                total += exponentials(chunk, largest, size);
#pragma omp simd
                for (int64_t v = 0; v < size; v++) store(logits[start + v], chunk[v]);
            }
            for (int64_t v = vocab_size; v < V; v++) store(logits[v], 0.0f);
            *scales++ = counts ? weight[k] / total : 0.0f;
            if (!counts) continue;
            loss += double(logf(total) - (of_target - largest));
            store(logits[target], expf(of_target - largest) - total);
        }
        losses[k] = float(loss);
    }
}

// The next token of each of n sequences: keep its key and value, and attend to all up to it.
// `qkv` (n, 3 * heads * D); `keys` and `values` (all rows, heads, P, D), of which `rows` (n) says
// whose is whose. A position below 0 is nobody's: its result is 0, and nothing is kept.
template <class T>
void attend_rows(T *out, const T *qkv, T *keys, T *values, const int64_t *rows,
                 const int64_t *positions, int64_t n, int64_t heads, int64_t P, int64_t D,
                 float scale) {
    float weights[MAX_COLUMNS], query[CHUNK], mixed[CHUNK];
    const int64_t C = heads * D;
    for (int64_t i = 0; i < n; i++, qkv += 3 * C, out += C) {
        const int64_t last = positions[i];
        if (last < 0) {
            for (int64_t c = 0; c < C; c++) store(out[c], 0.0f);
            continue;
        }
        for (int64_t h = 0; h < heads; h++) {
            T *own_keys = keys + (rows[i] * heads + h) * P * D;
            T *own_values = values + (rows[i] * heads + h) * P * D;
            memcpy(own_keys + last * D, qkv + C + h * D, D * sizeof(T));
            memcpy(own_values + last * D, qkv + 2 * C + h * D, D * sizeof(T));
            for (int64_t d = 0; d < D; d++) query[d] = load(qkv[h * D + d]) * scale, mixed[d] = 0;
            float largest = -INFINITY;
            for (int64_t j = 0; j <= last; j++) {
                float score = 0;
                const T *key = own_keys + j * D;
#pragma omp simd reduction(+ : score)
                for (int64_t d = 0; d < D; d++) score += query[d] * load(key[d]);
                weights[j] = score;
                largest = score > largest ? score : largest;
            }
            const float share = 1.0f / exponentials(weights, largest, last + 1);
            for (int64_t j = 0; j <= last; j++) {
                const float weight = weights[j] * share;
                const T *value = own_values + j * D;
#pragma omp simd
                for (int64_t d = 0; d < D; d++) mixed[d] += weight * load(value[d]);
            }
            for (int64_t d = 0; d < D; d++) store(out[h * D + d], mixed[d]);
        }
    }
}

// Sum what of x is above `cut`, CHUNK by CHUNK into `sums`; the whole sum.
inline double sums_above(double *sums, const float *x, float cut, int64_t num) {
    double whole = 0;
    for (int64_t start = 0; start < num; start += CHUNK) {
        const int64_t size = num - start < CHUNK ? num - start : CHUNK;
        float sum = 0;
#pragma omp simd reduction(+ : sum)
        for (int64_t v = 0; v < size; v++) sum += x[start + v] > cut ? x[start + v] : 0.0f;
        whole += *sums++ = sum;
    }
    return whole;
}

// A token of each of n rows of logits (n, V) from its nucleus; see RowOps.draw. `scratch` has room for
// `vocab_size` floats, `sums` for one double a CHUNK of them.
template <class T>
void draw_rows(int64_t *tokens, const T *logits, const float *temperatures, const float *top_ps,
               const int64_t *banned, const double *uniforms, float *scratch, double *sums,
               int64_t n, int64_t V, int64_t vocab_size, int64_t num_draws) {
    for (int64_t i = 0; i < n; i++, logits += V, uniforms += num_draws) {
        const float inverse = 1.0f / temperatures[i];
#pragma omp simd
        for (int64_t v = 0; v < vocab_size; v++) scratch[v] = load(logits[v]) * inverse;
        if (banned[i] >= 0) scratch[banned[i]] = -INFINITY;
        float largest = -INFINITY;
#pragma omp simd reduction(max : largest)
        for (int64_t v = 0; v < vocab_size; v++)
            largest = scratch[v] > largest ? scratch[v] : largest;
        exponentials(scratch, largest, vocab_size);
        const double whole = sums_above(sums, scratch, -1.0f, vocab_size);
        double open = whole;
        float cut = -1.0f;
        int64_t token = -1;
        for (int64_t draw = 0; draw < num_draws && token < 0; draw++) {
            double left = uniforms[draw] * open;
            int64_t chunk = 0, last = -1;
            const int64_t num_chunks = (vocab_size + CHUNK - 1) / CHUNK;
            while (chunk < num_chunks - 1 && left >= sums[chunk]) left -= sums[chunk++];
            // From here on one by one; rounding may lead past the chunk, or past the end.
            for (int64_t v = chunk * CHUNK; v < vocab_size; v++) {
                if (!(scratch[v] > cut && scratch[v] > 0)) continue;
                last = v;
                left -= scratch[v];
                if (left < 0) break;
            }
            if (last < 0) break;
            open = sums_above(sums, scratch, scratch[last], vocab_size);
            if (open < double(top_ps[i]) * whole) token = last;
            cut = scratch[last];
        }
        if (token < 0)
            for (int64_t v = 0; v < vocab_size && token < 0; v++)
                if (scratch[v] == 1.0f) token = v;
        tokens[i] = token < 0 ? 0 : token;  // of logits that are not finite
    }
}

// Nats of the target of each of n rows of logits (n, V), and whether it is the likeliest.
template <class T>
void score_rows(float *nats, uint8_t *hits, const T *logits, const int64_t *targets, int64_t n,
                int64_t V, int64_t vocab_size) {
    float chunk[CHUNK];
    for (int64_t i = 0; i < n; i++, logits += V) {
        const int64_t target = targets[i];
        if (target < 0 || target >= vocab_size) {  // no such word: the model is given up
            nats[i] = NAN;
            hits[i] = false;
            continue;
        }
        float largest = load(logits[0]), total = 0;
#pragma omp simd reduction(max : largest)
        for (int64_t v = 0; v < vocab_size; v++) {
            const float value = load(logits[v]);
            largest = value > largest ? value : largest;
        }
        for (int64_t start = 0; start < vocab_size; start += CHUNK) {
            const int64_t size = vocab_size - start < CHUNK ? vocab_size - start : CHUNK;
#pragma omp simd
            for (int64_t v = 0; v < size; v++) chunk[v] = load(logits[start + v]);
            total += exponentials(chunk, largest, size);
        }
        const float of_target = load(logits[target]) - largest;
        nats[i] = logf(total) - of_target;
        hits[i] = of_target == 0;  // and of equal ones, as in bf16, the first, as argmax has it
        for (int64_t v = 0; v < target && hits[i]; v++) hits[i] = load(logits[v]) < largest;
    }
}

}  // namespace

// The order is that of _SIGNATURES in compiled.py.
#define KERNELS(T)                                                                                 \
    {                                                                                              \
        (void *)gelu<T>, (void *)gelu_backward<T>, (void *)norm<T>, (void *)norm_backward<T>,      \
            (void *)column_sums<T>, (void *)drop<T>, (void *)add<T>, (void *)add_dropped<T>,       \
            (void *)softmax<T>, (void *)softmax_backward<T>, (void *)cross_entropy<T>,             \
            (void *)attend_rows<T>, (void *)draw_rows<T>, (void *)score_rows<T>                    \
    }

extern "C" {
void *kernels_fp32[] = KERNELS(float);
void *kernels_bf16[] = KERNELS(bf16);
}
