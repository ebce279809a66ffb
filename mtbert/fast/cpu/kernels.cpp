// What the CPU computes between matrix products, in one pass over memory each. build.py compiles this file and loads it through ctypes.
//
// Shapes: T tokens of a stream, D or F features, N sequences of L tokens, H heads of width K. A product z has no bias yet: the pass
// that reads it computes y = factor * z + bias (factor is DoRA's m / ||.||, or null).
// Activations (type A) are float or bf16; all arithmetic is float. Dropout keeps an element if its 16 random bits, as a signed
// number, are at least `threshold`, and multiplies it by `scale`; words == null means no dropout.
// Sums over T are added up over PARTS fixed parts of the rows, in order, so they do not depend on the number of threads.

#include <omp.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <vector>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

namespace {

#ifdef __AVX512F__
constexpr int W = 16;  // lanes
#else
constexpr int W = 8;
#endif
typedef float Vec __attribute__((vector_size(4 * W)));
typedef uint32_t Bits __attribute__((vector_size(4 * W)));
typedef int32_t Ints __attribute__((vector_size(4 * W)));
typedef uint16_t Half __attribute__((vector_size(2 * W)));
typedef int16_t Words __attribute__((vector_size(2 * W)));
struct bf16 {
  uint16_t bits;
};
constexpr int64_t PARTS = 16;

// Before a loop over an array of vectors: g++ -O2 keeps the array in registers only if the loop is unrolled.
#define UNROLL _Pragma("GCC unroll 16")

inline Vec splat(float x) { return Vec{} + x; }
inline Vec select(Ints mask, Vec yes, Vec no) { return mask ? yes : no; }
inline Vec only(Ints mask, Vec x) { return (Vec)((Ints)x & mask); }
inline Vec maximum(Vec a, Vec b) { return select(a > b, a, b); }

inline Vec load(const float* p) {
  Vec v;
  std::memcpy(&v, p, sizeof v);
  return v;
}
inline Vec load(const bf16* p) {
  Half h;
  std::memcpy(&h, p, sizeof h);
  return (Vec)(__builtin_convertvector(h, Bits) << 16);
}
inline void store(float* p, Vec v) { std::memcpy(p, &v, sizeof v); }
inline void store(bf16* p, Vec v) {
#ifdef __AVX512BF16__
  const __m256bh h = _mm512_cvtneps_pbh((__m512)v);
#else
  const Bits u = (Bits)v;
  const Bits nan = (Bits)(v != v), rounded = u + 0x7fff + ((u >> 16) & 1);
  const Half h = __builtin_convertvector(((rounded & ~nan) | (0x7fc00000 & nan)) >> 16, Half);
#endif
  std::memcpy(p, &h, sizeof h);
}

inline float total(Vec v) {
  float x[W];
  std::memcpy(x, &v, sizeof x);
  for (int s = W / 2; s; s /= 2)
    for (int l = 0; l < s; ++l) x[l] += x[l + s];
  return x[0];
}
inline float largest(Vec v) {
  float most = v[0];
  for (int l = 1; l < W; ++l) most = v[l] > most ? v[l] : most;
  return most;
}

// e^x to 1 ulp for x <= 0 or so; NaN stays NaN.
inline Vec exponential(Vec x) {
  x = select(x < splat(-87.0f), splat(-87.0f), x);
  const Vec magic = splat(12582912.0f);  // 1.5 * 2^23: adding it rounds to an integer
  const Vec n = (x * 1.44269504f + magic) - magic;
  const Vec r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Vec p = splat(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints power = __builtin_convertvector(n, Ints) + 127;
  return p * (Vec)(power << 23);
}

struct Normal {
  Vec cdf, density;
};

// The standard normal distribution's Phi(y), within 1e-7 (Abramowitz and Stegun 7.1.26), and its density; NaN stays NaN.
inline Normal normal(Vec y) {
  const Vec x = (Vec)((Bits)y & 0x7fffffff) * 0.70710678f, e = exponential(-(x * x)), t = 1.0f / (x * 0.3275911f + 1.0f);
  Vec p = splat(1.061405429f);
  p = p * t + -1.453152027f;
  p = p * t + 1.421413741f;
  p = p * t + -0.284496736f;
  p = p * t + 0.254829592f;
  const Vec tail = p * t * e * 0.5f;
  return {select(y < splat(0), tail, 1.0f - tail), e * 0.39894228f};
}

template <int S>
inline void exchange(Vec (&m)[W]) {
  for (int r = 0; r < W; ++r)
    if (!(r & S)) {
      const Vec a = m[r], b = m[r + S];
      Ints low, high;
      for (int l = 0; l < W; ++l) low[l] = l & S ? W + l - S : l, high[l] = l & S ? W + l : l + S;
      m[r] = __builtin_shuffle(a, b, low);
      m[r + S] = __builtin_shuffle(a, b, high);
    }
}
inline void transpose(Vec (&m)[W]) {
  if constexpr (W == 16) exchange<8>(m);
  exchange<4>(m);
  exchange<2>(m);
  exchange<1>(m);
}

struct Dropout {
  const int16_t* words;
  int threshold;
  float scale;
  Vec operator()(int64_t at, Vec v) const {
    if (!words) return v;
    Words w;
    std::memcpy(&w, words + at, sizeof w);
    return v * only(__builtin_convertvector(w, Ints) >= threshold, splat(scale));  // NaN * 0 stays NaN
  }
};

struct Affine {
  const float *factor, *bias;
  Vec operator()(int64_t at, Vec z) const {
    if (factor) z *= load(factor + at);
    return bias ? z + load(bias + at) : z;
  }
  Vec backward(int64_t at, Vec g) const { return factor ? g * load(factor + at) : g; }
};

// Adds up the PARTS rows of partial sums (each `count` long) into out.
void add_parts(const float* parts, int64_t count, float* out) {
  for (int64_t i = 0; i < count; i += W) {
    Vec sum = load(parts + i);
    for (int64_t part = 1; part < PARTS; ++part) sum += load(parts + part * count + i);
    store(out + i, sum);
  }
}

inline int64_t first_row(int64_t part, int64_t rows) { return part * rows / PARTS; }

// ---- residual sum and LayerNorm: x^ = (x + dropout(y) - mean) * rstd; out = x^ * gamma + beta. x^ is `normalised`, out is `wide`
// in float and `narrow` in bf16

template <typename A>
void residual_norm(const float* x, const A* z, Affine affine, Dropout dropout, const float* gamma, const float* beta,
                   float eps, int64_t rows, int64_t D, float* normalised, float* rstd, float* means, float* wide, A* narrow) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; ++t) {
    float* hat = normalised + t * D;
    Vec sum{};
    for (int64_t d = 0; d < D; d += W) {
      const int64_t at = t * D + d;
      Vec y = load(x + at);
      if (z) y += dropout(at, affine(d, load(z + at)));
      sum += y;
      store(hat + d, y);
    }
    const float mean = means[t] = total(sum) / D;
    Vec squares{};
    for (int64_t d = 0; d < D; d += W) {
      const Vec y = load(hat + d) - mean;
      squares += y * y;
    }
    const float r = 1 / std::sqrt(total(squares) / D + eps);
    rstd[t] = r;
    for (int64_t d = 0; d < D; d += W) {
      const Vec h = (load(hat + d) - mean) * r;
      store(hat + d, h);
      const Vec out = h * load(gamma + d) + load(beta + d);
      store(wide + t * D + d, out);
      if (narrow) store(narrow + t * D + d, out);
    }
  }
}

// The previous norm's x^, gamma and beta, from which the input is x = x^ * gamma + beta.
struct Before {
  const float *normalised, *gamma, *beta;
};

// `sums` holds the gradients of gamma, beta, bias and factor, D each. The factor's needs z; if z is null, it is recomputed from x and
// the norm's input x + dropout(y).
template <typename A>
void residual_norm_backward(const float* g_wide, const A* g_narrow, const float* normalised, const float* rstd, const float* means,
                            const A* z, Affine affine, Before before, Dropout dropout, const float* gamma, int64_t rows,
                            int64_t D, float* grad_x, A* grad_z, float* sums) {
  std::vector<float> parts(PARTS * 4 * D, 0.0f);
#pragma omp parallel for schedule(static)
  for (int64_t part = 0; part < PARTS; ++part) {
    float* s = parts.data() + part * 4 * D;
    for (int64_t t = first_row(part, rows); t < first_row(part + 1, rows); ++t) {
      const float* hat = normalised + t * D;
      float* gx = grad_x + t * D;
      Vec mean{}, along{};
      for (int64_t d = 0; d < D; d += W) {
        const int64_t at = t * D + d;
        Vec g = g_wide ? load(g_wide + at) : Vec{};
        if (g_narrow) g += load(g_narrow + at);
        const Vec h = load(hat + d);
        store(s + d, load(s + d) + g * h);
        store(s + D + d, load(s + D + d) + g);
        g *= load(gamma + d);
        mean += g;
        along += g * h;
        store(gx + d, g);
      }
      const float m = total(mean) / D, a = total(along) / D, r = rstd[t], deviation = 1 / r, middle = means[t];
      for (int64_t d = 0; d < D; d += W) {
        const int64_t at = t * D + d;
        const Vec h = load(hat + d), g = (load(gx + d) - m - h * a) * r;
        store(gx + d, g);
        if (!grad_z) continue;
        const Vec dropped = dropout(at, g);
        store(s + 2 * D + d, load(s + 2 * D + d) + dropped);
        if (affine.factor) {
          Vec y;
          if (z) y = load(z + at);
          else y = h * deviation + middle - load(before.normalised + at) * load(before.gamma + d) - load(before.beta + d);
          store(s + 3 * D + d, load(s + 3 * D + d) + dropped * y);
        }
        store(grad_z + at, affine.backward(d, dropped));
      }
    }
  }
  add_parts(parts.data(), 4 * D, sums);
  if (!affine.factor || z) return;
  for (int64_t d = 0; d < D; d += W) {  // from the sum over scale * y to the sum over z
    Vec sum = load(sums + 3 * D + d) * (1 / dropout.scale);
    if (affine.bias) sum -= load(sums + 2 * D + d) * load(affine.bias + d);
    store(sums + 3 * D + d, sum / load(affine.factor + d));
  }
}

// ---- gelu(y) = y Phi(y)

template <typename A>
void gelu(const A* z, Affine affine, int64_t rows, int64_t F, A* out) {
#pragma omp parallel for schedule(static)
  for (int64_t t = 0; t < rows; ++t)
    for (int64_t f = 0; f < F; f += W) {
      const Vec y = affine(f, load(z + t * F + f));
      store(out + t * F + f, y * normal(y).cdf);
    }
}

template <typename A>
void gelu_backward(const A* grad, const A* z, Affine affine, int64_t rows, int64_t F, A* grad_z, float* sums) {
  std::vector<float> parts(PARTS * 2 * F, 0.0f);
#pragma omp parallel for schedule(static)
  for (int64_t part = 0; part < PARTS; ++part) {
    float* s = parts.data() + part * 2 * F;
    for (int64_t t = first_row(part, rows); t < first_row(part + 1, rows); ++t)
      for (int64_t f = 0; f < F; f += W) {
        const int64_t at = t * F + f;
        const Vec raw = load(z + at), y = affine(f, raw);
        const Normal at_y = normal(y);
        const Vec g = load(grad + at) * (at_y.cdf + y * at_y.density);
        store(s + f, load(s + f) + g);
        if (affine.factor) store(s + F + f, load(s + F + f) + g * raw);
        store(grad_z + at, affine.backward(f, g));
      }
  }
  add_parts(parts.data(), 2 * F, sums);
}

// ---- attention: softmax(q k^T / sqrt K) v within each sequence, R rows at a time

constexpr int R = 4;

// Copy one head of one sequence to float: as rows (Lp, K), or transposed (K, Lp), padded with zeros.
template <int K, typename A>
void gather(const A* z, Affine affine, int64_t column, int64_t E, int64_t L, int64_t Lp, float* rows, float* turned) {
  for (int64_t first = 0; first < Lp; first += W)
    for (int v = 0; v < K / W; ++v) {
      Vec block[W];
      for (int64_t r = 0; r < W; ++r) {
        const int64_t i = first + r, c = column + v * W;
        block[r] = i < L ? affine(c, load(z + i * E + c)) : Vec{};
        if (rows) store(rows + i * K + v * W, block[r]);
      }
      if (!turned) continue;
      transpose(block);
      for (int64_t k = 0; k < W; ++k) store(turned + (v * W + k) * Lp + first, block[k]);
    }
}

// Attention's products keep R x TILE vectors of sums in registers, of which there are 16 without AVX-512.
constexpr int TILE = 2;

// out (R, N) = a (R, M) b (M, N) for TILE vectors of columns, or for one if only one is left; out(r, column, sum) takes each sum.
template <int N, typename Out>
inline void tile(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t M, Out out) {
  Vec sum[R][N];
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int v = 0; v < N; ++v) sum[r][v] = Vec{};
  for (int64_t m = 0; m < M; ++m) {
    Vec row[N];
    UNROLL for (int v = 0; v < N; ++v) row[v] = load(b + m * ldb + v * W);
    UNROLL for (int r = 0; r < R; ++r)
      UNROLL for (int v = 0; v < N; ++v) sum[r][v] += a[r * lda + m] * row[v];
  }
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int v = 0; v < N; ++v) out(r, v * W, sum[r][v]);
}
template <typename Out>
inline void multiply(const float* a, int64_t lda, const float* b, int64_t ldb, int64_t M, int64_t columns, Out out) {
  int64_t j = 0;
  for (; j + TILE * W <= columns; j += TILE * W)
    tile<TILE>(a, lda, b + j, ldb, M, [&](int r, int64_t at, Vec v) { out(r, j + at, v); });
  if (j < columns) tile<1>(a, lda, b + j, ldb, M, [&](int r, int64_t at, Vec v) { out(r, j + at, v); });
}

// out (L, one vector of K columns) += a^T (L, R) b (R, the same columns)
inline void add_outer(const float* a, int64_t lda, const float* b, int64_t K, int64_t L, float* out) {
  Vec row[R];
  UNROLL for (int r = 0; r < R; ++r) row[r] = load(b + r * K);
  for (int64_t j = 0; j < L; ++j) {
    Vec sum = load(out + j * K);
    UNROLL for (int r = 0; r < R; ++r) sum += a[r * lda + j] * row[r];
    store(out + j * K, sum);
  }
}

inline Ints lanes() {
  Ints lane;
  for (int l = 0; l < W; ++l) lane[l] = l;
  return lane;
}

struct Heads {
  const int32_t* offsets;  // (N + 1)
  const int64_t* places;   // (N): where each sequence's random words start
  int64_t N, H, E;         // E = 3 H K
};

// Replace scores (R, Lp), of which L are real, by e^(scale * (score - row maximum)), and sum each row. Subtract before scaling: with
// large scores, scale * score loses the digits of the difference. The backward recomputes the sums instead of storing their logarithm
// for the same reason: weights that do not sum to 1 give a wrong gradient.
inline void exponentials(float* s, int64_t L, int64_t Lp, float scale, float (&whole)[R]) {
  Vec top[R], sum[R];
  UNROLL for (int r = 0; r < R; ++r) top[r] = splat(-INFINITY), sum[r] = Vec{};
  for (int64_t j = 0; j < Lp; j += W) {
    const Ints inside = lanes() < int32_t(L - j);
    UNROLL for (int r = 0; r < R; ++r) top[r] = maximum(top[r], select(inside, load(s + r * Lp + j), splat(-INFINITY)));
  }
  float m[R];
  UNROLL for (int r = 0; r < R; ++r) m[r] = largest(top[r]);
  for (int64_t j = 0; j < Lp; j += W) {
    const Ints inside = lanes() < int32_t(L - j);
    UNROLL for (int r = 0; r < R; ++r) {
      const Vec e = only(inside, exponential((load(s + r * Lp + j) - m[r]) * scale));
      store(s + r * Lp + j, e);
      sum[r] += e;
    }
  }
  UNROLL for (int r = 0; r < R; ++r) whole[r] = total(sum[r]);
}

template <int K, typename A>
void attention(const A* qkv, Affine affine, Dropout dropout, Heads shape, A* mixed) {
  const float scale = 1 / std::sqrt(float(K));
  const int64_t D = shape.H * K;
#pragma omp parallel
  {
    std::vector<float> room;
#pragma omp for schedule(dynamic, 8)
    for (int64_t task = 0; task < shape.N * shape.H; ++task) {
      const int64_t n = task / shape.H, h = task % shape.H;
      const int64_t start = shape.offsets[n], L = shape.offsets[n + 1] - start, Lp = (L + W - 1) / W * W;
      room.resize(3 * K * Lp + R * Lp);
      float *q = room.data(), *k = q + K * Lp, *v = k + K * Lp, *s = v + K * Lp;
      const A* z = qkv + start * shape.E;
      gather<K>(z, affine, h * K, shape.E, L, Lp, q, nullptr);
      gather<K>(z, affine, D + h * K, shape.E, L, Lp, nullptr, k);
      gather<K>(z, affine, 2 * D + h * K, shape.E, L, Lp, v, nullptr);
      for (int64_t i = 0; i < L; i += R) {
        multiply(q + i * K, K, k, Lp, K, Lp, [&](int r, int64_t j, Vec sum) { store(s + r * Lp + j, sum); });
        const int rows = int(std::min<int64_t>(R, L - i));  // the other rows are padding, computed and discarded
        float whole[R];
        exponentials(s, L, Lp, scale, whole);
        for (int r = 0; r < rows && dropout.words; ++r) {
          const int64_t at = shape.places[n] + (h * L + i + r) * L;
          for (int64_t j = 0; j < Lp; j += W) store(s + r * Lp + j, dropout(at + j, load(s + r * Lp + j)));
        }
        multiply(s, Lp, v, K, L, K, [&](int r, int64_t c, Vec sum) {
          if (r < rows) store(mixed + (start + i + r) * D + h * K + c, sum * (1 / whole[r]));
        });
      }
    }
  }
}

// `sums` holds the gradients of bias and factor, E each. The sequences are split into PARTS parts, like rows elsewhere.
template <int K, typename A>
void attention_backward(const A* grad, const A* qkv, Affine affine, Dropout dropout, Heads shape, A* grad_z, float* sums) {
  const float scale = 1 / std::sqrt(float(K));
  const int64_t D = shape.H * K, E = shape.E;
  std::vector<float> parts(PARTS * 2 * E, 0.0f);
#pragma omp parallel
  {
    std::vector<float> room;
#pragma omp for schedule(dynamic, 1)
    for (int64_t task = 0; task < PARTS * shape.H; ++task) {
      const int64_t part = PARTS - 1 - task / shape.H, h = task % shape.H;  // longest sequences first
      float* s = parts.data() + part * 2 * E;
      for (int64_t n = first_row(part, shape.N); n < first_row(part + 1, shape.N); ++n) {
        const int64_t start = shape.offsets[n], L = shape.offsets[n + 1] - start, Lp = (L + W - 1) / W * W;
        room.resize(8 * K * Lp + 3 * R * Lp);
        float *q = room.data(), *k = q + K * Lp, *g = k + K * Lp, *kt = g + K * Lp, *vt = kt + K * Lp, *dq = vt + K * Lp,
              *dk = dq + K * Lp, *dv = dk + K * Lp, *p = dv + K * Lp, *kept = p + R * Lp, *dp = kept + R * Lp;
        const A* z = qkv + start * E;
        gather<K>(z, affine, h * K, E, L, Lp, q, nullptr);
        gather<K>(z, affine, D + h * K, E, L, Lp, k, kt);
        gather<K>(z, affine, 2 * D + h * K, E, L, Lp, nullptr, vt);
        gather<K>(grad + start * D, Affine{nullptr, nullptr}, h * K, D, L, Lp, g, nullptr);
        std::memset(dk, 0, sizeof(float) * 2 * K * Lp);
        for (int64_t i = 0; i < L; i += R) {
          multiply(q + i * K, K, kt, Lp, K, Lp, [&](int r, int64_t j, Vec sum) { store(p + r * Lp + j, sum); });
          multiply(g + i * K, K, vt, Lp, K, Lp, [&](int r, int64_t j, Vec sum) { store(dp + r * Lp + j, sum); });
          const int rows = int(std::min<int64_t>(R, L - i));
          float whole[R];
          exponentials(p, L, Lp, scale, whole);
          for (int r = 0; r < R; ++r) {
            float *weight = p + r * Lp, *factor = kept + r * Lp, *slope = dp + r * Lp;
            if (r >= rows) {
              std::memset(weight, 0, sizeof(float) * Lp);
              std::memset(factor, 0, sizeof(float) * Lp);
              std::memset(slope, 0, sizeof(float) * Lp);
              continue;
            }
            const float by = 1 / whole[r];
            const int64_t at = dropout.words ? shape.places[n] + (h * L + i + r) * L : 0;
            Vec inner{};
            for (int64_t j = 0; j < Lp; j += W) {
              const Vec w = load(weight + j) * by;
              const Vec d = dropout(at + j, load(slope + j));
              store(weight + j, w);
              store(factor + j, dropout(at + j, w));
              store(slope + j, d);
              inner += w * d;
            }
            const float delta = total(inner);
            for (int64_t j = 0; j < Lp; j += W)
              store(slope + j, load(weight + j) * (load(slope + j) - delta) * scale);
          }
          multiply(dp, Lp, k, K, L, K, [&](int r, int64_t c, Vec sum) { store(dq + (i + r) * K + c, sum); });
          for (int c = 0; c < K; c += W) {
            add_outer(kept, Lp, g + i * K + c, K, L, dv + c);
            add_outer(dp, Lp, q + i * K + c, K, L, dk + c);
          }
        }
        const float* grads[3] = {dq, dk, dv};
        for (int which = 0; which < 3; ++which) {
          const int64_t first = which * D + h * K;
          Vec sum[K / W] = {}, along_z[K / W] = {};
          for (int64_t i = 0; i < L; ++i)
            for (int c = 0; c < K / W; ++c) {
              const int64_t column = first + c * W, at = (start + i) * E + column;
              const Vec d = load(grads[which] + i * K + c * W);
              sum[c] += d;
              if (affine.factor) along_z[c] += d * load(qkv + at);
              store(grad_z + at, affine.backward(column, d));
            }
          for (int c = 0; c < K / W; ++c) {
            float* column = s + first + c * W;
            store(column, load(column) + sum[c]);
            store(column + E, load(column + E) + along_z[c]);
          }
        }
      }
    }
  }
  add_parts(parts.data(), 2 * E, sums);
}

// ---- DoRA: ||W0 + s B A|| and its gradient, for N layers side by side, each with A (r, I) and B (O, r)

inline Vec root(Vec v) {
  for (int l = 0; l < W; ++l) v[l] = std::sqrt(v[l]);
  return v;
}

// The elements of one multiply-add: one float, or two adjacent bf16.
inline Vec product(Vec sum, Vec a, Vec b) { return sum + a * b; }
inline Vec product(Vec sum, Bits a, Bits b) {
#ifdef __AVX512BF16__
  return (Vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#else
  return sum + (Vec)(a << 16) * (Vec)(b << 16) + (Vec)(a & 0xffff0000) * (Vec)(b & 0xffff0000);
#endif
}
template <typename T>
struct Unit;
template <>
struct Unit<float> {
  typedef Vec Lanes;
  static constexpr int64_t COUNT = 1;
  // One unit of each of W columns.
  static Vec rows(const float* p, int64_t) { return load(p); }
  static void write(float* p, const Vec* v) { store(p, *v); }
  static Vec all(const void* p) {
    float x;
    std::memcpy(&x, p, sizeof x);
    return splat(x);
  }
};
template <>
struct Unit<bf16> {
  typedef Bits Lanes;
  static constexpr int64_t COUNT = 2;
  static Bits widen(const bf16* p) {
    Half h;
    std::memcpy(&h, p, sizeof h);
    return __builtin_convertvector(h, Bits);
  }
  static Bits rows(const bf16* p, int64_t row) { return widen(p) | widen(p + row) << 16; }
  static void write(float* p, const Vec* v) {
    bf16 narrow[2][W];
    store(narrow[0], v[0]), store(narrow[1], v[1]);
    const Bits bits = widen(narrow[0]) | widen(narrow[1]) << 16;
    std::memcpy(p, &bits, sizeof bits);
  }
  static Bits all(const void* p) {
    uint32_t x;
    std::memcpy(&x, p, sizeof x);
    return Bits{} + x;
  }
};

inline float number(float x) { return x; }
inline float number(bf16 x) {
  const uint32_t bits = uint32_t(x.bits) << 16;
  float f;
  std::memcpy(&f, &bits, sizeof f);
  return f;
}

inline int64_t padded(int64_t r) { return (r + 15) / 16 * 16; }  // to call.py's LANES
inline void scaled(const float* b, float s, int64_t r, float* out) {
  for (int64_t j = 0; j < padded(r); ++j) out[j] = j < r ? s * b[j] : 0;
}

// extended = [W0 | s B], (N O, I + N r); slope = (W0 + s B A) A^T, (N O, P), where P is r rounded up to 16; factor = m / ||.||.
template <typename T>
void dora_norm(const T* extended, const float* const* a, const float* const* b, const float* const* squared,
               const float* const* magnitude, float s, float least, int64_t N, int64_t r, int64_t I, int64_t O, float* slope,
               float* norm, float* factor) {
  constexpr int64_t C = Unit<T>::COUNT, Q = 8;
  const int64_t P = padded(r), width = I + N * r;
  std::vector<float> grams(N * r * P);  // A A^T
  const std::unique_ptr<float[]> units(new float[N * P * I / C]);  // A's columns in units
#pragma omp parallel
  {
#pragma omp for schedule(dynamic, 1) nowait
    for (int64_t nj = 0; nj < N * r; ++nj) {
      const float *of = a[nj / r], *row = of + nj % r * I;
      for (int64_t k = 0, j = nj % r; k <= j; ++k) {
        Vec sum{};
        for (int64_t i = 0; i < I; i += W) sum += load(row + i) * load(of + k * I + i);
        float* gram = grams.data() + nj / r * r * P;
        gram[j * P + k] = gram[k * P + j] = total(sum);
      }
    }
#pragma omp for schedule(static)
    for (int64_t tile = 0; tile < N * P * I / W / W; ++tile) {
      const int64_t n = tile / (P * I / W / W), first = tile / (I / W) % (P / W) * W, i = tile % (I / W) * W;
      Vec m[W];
      for (int l = 0; l < W; ++l) m[l] = first + l < r ? load(a[n] + (first + l) * I + i) : Vec{};
      transpose(m);
      float* out = units.get() + ((n * P + first) * I + i * W) / C;
      for (int64_t c = 0; c < W / C; ++c) Unit<T>::write(out + c * W, m + c * C);
    }
    std::vector<float> room((Q + 1) * P);
    float *cross = room.data(), *sb = cross + Q * P;
#pragma omp for schedule(static)
    for (int64_t at = 0; at < N * O; at += Q) {
      const int64_t n = at / O;
      const float* gram = grams.data() + n * r * P;
      for (int64_t p = 0; p < P; p += W) {
        const T* w = extended + at * width;
        const float* unit = units.get() + (n * P + p) * I / C;
        Vec sum[Q] = {};
        for (int64_t i = 0; i < I; i += C, unit += W) {
          typename Unit<T>::Lanes lanes;
          std::memcpy(&lanes, unit, sizeof lanes);
          for (int q = 0; q < Q; ++q) sum[q] = product(sum[q], Unit<T>::all(w + q * width + i), lanes);
        }
        for (int q = 0; q < Q; ++q) store(cross + q * P + p, sum[q]);
      }
      for (int64_t q = 0, o = at % O; q < Q; ++q) {
        scaled(b[n] + (o + q) * r, s, r, sb);
        Vec sum{};
        for (int64_t p = 0; p < P; p += W) {
          const Vec base = load(cross + q * P + p);
          Vec whole = base;
          for (int64_t k = 0; k < r; ++k) whole += load(gram + k * P + p) * sb[k];
          store(slope + (at + q) * P + p, whole);
          sum += load(sb + p) * (base + whole);
        }
        const float square = squared[n][o + q] + total(sum);
        norm[at + q] = std::sqrt(square < least ? least : square);  // NaN stays NaN
        factor[at + q] = magnitude[n][o + q] / norm[at + q];
      }
    }
  }
}

// half = -m / ||.||^3 times the factor's gradient, or zero where the norm was clamped: half the gradient of the squared norm.
// all_a = g_a + half s B^T (W0 + s B A), (N, r, I); all_b = s (g_sb + half slope), (N, O, r).
template <typename T>
void dora_norm_backward(const T* extended, const float* const* a, const float* const* b, const float* const* magnitude, float s,
                        float least, int64_t N, int64_t r, int64_t I, int64_t O, const float* norm, const float* slope,
                        const float* g_factor, const T* g_a, const T* g_sb, float* all_a, float* all_b, float* g_m) {
  constexpr int64_t C = Unit<T>::COUNT;
  const int64_t P = padded(r), width = I + N * r;
  // s B and half s B, (N O, P); half s B's columns in units, (N O / C, P); half (s B)^T s B, (N r, P).
  const std::unique_ptr<float[]> room(new float[N * P * (2 * O + O / C + r)]);
  float *sb = room.get(), *half_b = sb + N * O * P, *units = half_b + N * O * P, *low = units + N * O / C * P;
#pragma omp parallel
  {
#pragma omp for schedule(static)
    for (int64_t first = 0; first < N * O; first += C)
      for (int64_t at = first; at < first + C; ++at) {
        const int64_t n = at / O, o = at % O;
        const float g = g_factor[at] / norm[at];
        const float half = norm[at] <= least ? 0 : -g * magnitude[n][o] / (norm[at] * norm[at]);
        g_m[at] = g;
        scaled(b[n] + o * r, s, r, sb + at * P);
        for (int64_t j = 0; j < r; ++j) all_b[at * r + j] = s * (number(g_sb[at * r + j]) + half * slope[at * P + j]);
        for (int64_t p = 0; p < P; p += W) {
          store(half_b + at * P + p, load(sb + at * P + p) * half);
          if (at + 1 < first + C) continue;
          Vec rows[C];
          for (int64_t c = 0; c < C; ++c) rows[c] = load(half_b + (first + c) * P + p);
          Unit<T>::write(units + first / C * P + p, rows);
        }
      }
#pragma omp for schedule(static)
    for (int64_t nj = 0; nj < N * r; ++nj)
      for (int64_t p = 0; p < P; p += W) {
        Vec sum{};
        for (int64_t at = nj / r * O; at < (nj / r + 1) * O; ++at) sum += load(sb + at * P + p) * half_b[at * P + nj % r];
        store(low + nj * P + p, sum);
      }
#pragma omp for collapse(2) schedule(static)
    for (int64_t n = 0; n < N; ++n)
      for (int64_t i = 0; i < I; i += W)
        for (int64_t p = 0; p < P; p += W) {
          Vec sum[W] = {};
          for (int64_t at = n * O; at < (n + 1) * O; at += C) {
            const auto rows = Unit<T>::rows(extended + at * width + i, width);
            for (int j = 0; j < W; ++j) sum[j] = product(sum[j], rows, Unit<T>::all(units + at / C * P + p + j));
          }
          for (int64_t j = n * r + p; j < n * r + std::min(p + W, r); ++j) {
            Vec all = load(g_a + j * I + i) + sum[j - n * r - p];
            for (int64_t k = 0; k < r; ++k) all += load(a[n] + k * I + i) * low[j * P + k];
            store(all_a + j * I + i, all);
          }
        }
  }
}

// ---- random words: numpy's Philox (4 x 64 bits, 10 rounds; Salmon et al. 2011), whose blocks can be drawn in any order

inline void philox(const uint64_t* key, uint64_t block, uint64_t* out) {
  uint64_t c0 = block, c1 = 0, c2 = 0, c3 = 0, k0 = key[0], k1 = key[1];
  for (int round = 0; round < 10; ++round) {
    const unsigned __int128 a = (unsigned __int128)0xD2E7470EE14C6C93u * c0, b = (unsigned __int128)0xCA5A826395121157u * c2;
    const uint64_t n0 = uint64_t(b >> 64) ^ c1 ^ k0, n2 = uint64_t(a >> 64) ^ c3 ^ k1;
    c1 = uint64_t(b), c3 = uint64_t(a), c0 = n0, c2 = n2;
    k0 += 0x9E3779B97F4A7C15u, k1 += 0xBB67AE8584CAA73Bu;
  }
  out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

// ---- AdamW without weight decay (Loshchilov and Hutter 2019), in the order of operations of torch's fused kernel

struct Adam {
  float rest1, beta2, rest2, eps, step_size, root2;  // 1 - beta1; 1 - beta2; lr / (1 - beta1^t); sqrt(1 - beta2^t)

  void operator()(float* p, Vec g, float* m, float* v, bf16* copy, int64_t i) const {
    const Vec first = load(m + i) + (g - load(m + i)) * rest1, second = load(v + i) * beta2 + g * g * rest2;
    const Vec out = load(p + i) - first * step_size / (root(second) / root2 + eps);
    store(m + i, first), store(v + i, second), store(p + i, out);
    if (copy) store(copy + i, out);
  }
};

template <typename G>
void adam_span(const Adam& adam, float* p, const G* g, float* m, float* v, bf16* copy, int64_t first, int64_t last) {
  int64_t i = first;
  for (; i + W <= last; i += W) adam(p, load(g + i), m, v, copy, i);
  if (i == last) return;
  float rest[4][W] = {};
  G gradient[W] = {};
  bf16 narrow[W];
  const int64_t n = last - i;
  std::memcpy(rest[0], p + i, 4 * n), std::memcpy(rest[1], m + i, 4 * n), std::memcpy(rest[2], v + i, 4 * n);
  std::memcpy(gradient, g + i, sizeof(G) * n);
  adam(rest[0], load(gradient), rest[1], rest[2], narrow, 0);
  std::memcpy(p + i, rest[0], 4 * n), std::memcpy(m + i, rest[1], 4 * n), std::memcpy(v + i, rest[2], 4 * n);
  if (copy) std::memcpy(copy + i, narrow, 2 * n);
}

}  // namespace

// One step for `count` tensors. Gradient n is bf16 if narrow[n] is set; copies[n] is the bf16 copy of the weight, or null.
// rows[n], if not null, lists the rows (of widths[n] elements) that can change; sizes[n] is then their number.
extern "C" void adamw(int64_t count, float* const* weights, const void* const* gradients, const int64_t* narrow,
                      float* const* means, float* const* squares, bf16* const* copies, const int64_t* const* rows,
                      const int64_t* sizes, const int64_t* widths, float rest1, float beta2, float rest2, float eps,
                      float step_size, float root2) {
  const Adam adam{rest1, beta2, rest2, eps, step_size, root2};
  struct Task {
    int64_t tensor, first, last;
  };
  std::vector<Task> tasks;
  for (int64_t n = 0; n < count; ++n) {
    const int64_t chunk = rows[n] ? 16384 / widths[n] + 1 : 16384;
    for (int64_t i = 0; i < sizes[n]; i += chunk) tasks.push_back({n, i, std::min(i + chunk, sizes[n])});
  }
#pragma omp parallel for schedule(dynamic, 4)
  for (size_t k = 0; k < tasks.size(); ++k) {
    const auto [n, first, last] = tasks[k];
    const auto span = [&](int64_t from, int64_t to) {
      if (narrow[n])
        adam_span(adam, weights[n], (const bf16*)gradients[n], means[n], squares[n], copies[n], from, to);
      else
        adam_span(adam, weights[n], (const float*)gradients[n], means[n], squares[n], copies[n], from, to);
    };
    if (!rows[n]) span(first, last);
    else
      for (int64_t i = first; i < last; ++i) span(rows[n][i] * widths[n], (rows[n][i] + 1) * widths[n]);
  }
}

// Four 64-bit numbers for each block from `first` on, equal to those of numpy's generator with this key.
extern "C" void random_words(const uint64_t* key, int64_t first, int64_t blocks, uint64_t* out) {
#pragma omp parallel for schedule(static)
  for (int64_t block = 0; block < blocks; ++block) philox(key, uint64_t(first + block + 1), out + 4 * block);
}

#define FOR_TYPE(A, suffix)                                                                                             \
  extern "C" void residual_norm_##suffix(const float* x, const A* z, const float* factor, const float* bias,            \
                                         const int16_t* words, int threshold, float scale, const float* gamma,          \
                                         const float* beta, float eps, int64_t rows, int64_t D, float* normalised,      \
                                         float* rstd, float* means, float* wide, A* narrow) {                           \
    residual_norm<A>(x, z, {factor, bias}, {words, threshold, scale}, gamma, beta, eps, rows, D, normalised, rstd,      \
                     means, wide, narrow);                                                                              \
  }                                                                                                                     \
  extern "C" void residual_norm_backward_##suffix(                                                                      \
      const float* g_wide, const A* g_narrow, const float* normalised, const float* rstd, const float* means,           \
      const A* z, const float* factor, const float* bias, const float* before, const float* before_gamma,               \
      const float* before_beta, const int16_t* words, int threshold, float scale, const float* gamma, int64_t rows,     \
      int64_t D, float* grad_x, A* grad_z, float* sums) {                                                               \
    residual_norm_backward<A>(g_wide, g_narrow, normalised, rstd, means, z, {factor, bias},                             \
                              {before, before_gamma, before_beta}, {words, threshold, scale}, gamma, rows, D, grad_x,   \
                              grad_z, sums);                                                                            \
  }                                                                                                                     \
  extern "C" void gelu_##suffix(const A* z, const float* factor, const float* bias, int64_t rows, int64_t F, A* out) {  \
    gelu<A>(z, {factor, bias}, rows, F, out);                                                                           \
  }                                                                                                                     \
  extern "C" void gelu_backward_##suffix(const A* grad, const A* z, const float* factor, const float* bias,             \
                                         int64_t rows, int64_t F, A* grad_z, float* sums) {                             \
    gelu_backward<A>(grad, z, {factor, bias}, rows, F, grad_z, sums);                                                   \
  }                                                                                                                     \
  extern "C" void attention_##suffix(const A* qkv, const float* factor, const float* bias, const int16_t* words,        \
                                     int threshold, float scale, const int32_t* offsets, const int64_t* places,         \
                                     int64_t N, int64_t H, int64_t K, A* mixed) {                                       \
    const Affine affine{factor, bias};                                                                                  \
    const Dropout dropout{words, threshold, scale};                                                                     \
    const Heads shape{offsets, places, N, H, 3 * H * K};                                                                \
    if (K == 16) attention<16, A>(qkv, affine, dropout, shape, mixed);                                                  \
    if (K == 32) attention<32, A>(qkv, affine, dropout, shape, mixed);                                                  \
    if (K == 64) attention<64, A>(qkv, affine, dropout, shape, mixed);                                                  \
  }                                                                                                                     \
  extern "C" void attention_backward_##suffix(const A* grad, const A* qkv, const float* factor,                         \
                                              const float* bias, const int16_t* words, int threshold, float scale,      \
                                              const int32_t* offsets, const int64_t* places, int64_t N, int64_t H,      \
                                              int64_t K, A* grad_z, float* sums) {                                      \
    const Affine affine{factor, bias};                                                                                  \
    const Dropout dropout{words, threshold, scale};                                                                     \
    const Heads shape{offsets, places, N, H, 3 * H * K};                                                                \
    if (K == 16) attention_backward<16, A>(grad, qkv, affine, dropout, shape, grad_z, sums);                            \
    if (K == 32) attention_backward<32, A>(grad, qkv, affine, dropout, shape, grad_z, sums);                            \
    if (K == 64) attention_backward<64, A>(grad, qkv, affine, dropout, shape, grad_z, sums);                            \
  }                                                                                                                     \
  extern "C" void dora_norm_##suffix(const A* extended, const float* const* a, const float* const* b,                   \
                                     const float* const* squared, const float* const* magnitude, float s,               \
                                     float least, int64_t N, int64_t r, int64_t I, int64_t O, float* slope,             \
                                     float* norm, float* factor) {                                                      \
    dora_norm<A>(extended, a, b, squared, magnitude, s, least, N, r, I, O, slope, norm, factor);                        \
  }                                                                                                                     \
  extern "C" void dora_norm_backward_##suffix(                                                                          \
      const A* extended, const float* const* a, const float* const* b, const float* const* magnitude, float s,          \
      float least, int64_t N, int64_t r, int64_t I, int64_t O, const float* norm, const float* slope,                   \
      const float* g_factor, const A* g_a, const A* g_sb, float* all_a, float* all_b, float* g_m) {                     \
    dora_norm_backward<A>(extended, a, b, magnitude, s, least, N, r, I, O, norm, slope, g_factor, g_a, g_sb, all_a,     \
                          all_b, g_m);                                                                                  \
  }

FOR_TYPE(float, f32)
FOR_TYPE(bf16, bf16)
