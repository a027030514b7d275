/* Attributes, alignment, powers of two, and the other small helpers that DPDK programs use everywhere.
 *
 * Thread-safety: plain computations. Unless said otherwise, a macro evaluates each argument once.
 */
#ifndef EXTMEM_DPDK_RTE_COMMON_H
#define EXTMEM_DPDK_RTE_COMMON_H

#include <limits.h>
#include <stddef.h>
#include <stdint.h>

#include <rte_config.h>
#include <rte_os.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- the compiler ---- */

#ifndef typeof
#define typeof __typeof__
#endif
#if !defined(__cplusplus) && !defined(asm)
#define asm __asm__
#endif

#if !defined(__STDC_VERSION__) || __STDC_VERSION__ < 201112L
#define RTE_STD_C11 __extension__
#else
#define RTE_STD_C11
#endif

#if defined(__clang__)
#define RTE_CC_CLANG
#define RTE_CC_IS_GNU 0
#elif defined(__GNUC__)
#define RTE_CC_GCC
#define RTE_CC_IS_GNU 1
#define GCC_VERSION (__GNUC__ * 10000 + __GNUC_MINOR__ * 100 + __GNUC_PATCHLEVEL__)
#else
#define RTE_CC_IS_GNU 0
#endif

#define __rte_aligned(a) __attribute__((__aligned__(a)))
#define __rte_packed __attribute__((__packed__))
#define __rte_may_alias __attribute__((__may_alias__))
#define __rte_deprecated __attribute__((__deprecated__))
#define __rte_deprecated_msg(msg) __attribute__((__deprecated__(msg)))
#define __rte_weak __attribute__((__weak__))
#define __rte_used __attribute__((used))
#define __rte_unused __attribute__((__unused__))
#define __rte_noreturn __attribute__((noreturn))
#define __rte_warn_unused_result __attribute__((warn_unused_result))
#define __rte_always_inline inline __attribute__((always_inline))
#define __rte_noinline __attribute__((noinline))
#define __rte_hot __attribute__((hot))
#define __rte_cold __attribute__((cold))
#define __rte_no_asan
#define __rte_alloc_size(...) __attribute__((alloc_size(__VA_ARGS__)))
#if !defined(__STDC_VERSION__) || __STDC_VERSION__ < 199901L
#define __rte_restrict __restrict
#else
#define __rte_restrict restrict
#endif
#if RTE_CC_IS_GNU
#define __rte_format_printf(format_index, first_arg) \
  __attribute__((format(gnu_printf, format_index, first_arg)))
#else
#define __rte_format_printf(format_index, first_arg) __attribute__((format(printf, format_index, first_arg)))
#endif

#define RTE_PRAGMA(x) _Pragma(#x)
#define RTE_PRAGMA_WARNING(w) RTE_PRAGMA(GCC warning #w)
#define RTE_DEPRECATED(x) RTE_PRAGMA_WARNING(#x is deprecated)

#define RTE_SET_USED(x) (void)(x)

/* Functions that run before main() and after it, in the order of their priority. */
#define RTE_PRIORITY_LOG 101
#define RTE_PRIORITY_BUS 110
#define RTE_PRIORITY_CLASS 120
#define RTE_PRIORITY_LAST 65535
#define RTE_PRIO(prio) RTE_PRIORITY_##prio
#ifndef RTE_INIT_PRIO
#define RTE_INIT_PRIO(func, prio) static void __attribute__((constructor(RTE_PRIO(prio)), used)) func(void)
#endif
#define RTE_INIT(func) RTE_INIT_PRIO(func, LAST)
#ifndef RTE_FINI_PRIO
#define RTE_FINI_PRIO(func, prio) static void __attribute__((destructor(RTE_PRIO(prio)), used)) func(void)
#endif
#define RTE_FINI(func) RTE_FINI_PRIO(func, LAST)

/* Fails to compile where the condition, a constant, holds. */
#define RTE_BUILD_BUG_ON(condition) ((void)sizeof(char[1 - 2 * !!(condition)]))

#define RTE_STR_(x) #x
#define RTE_STR(x) RTE_STR_(x)
#define _RTE_STR(x) #x

/* One printf format made of two: RTE_FMT(RTE_FMT_HEAD(__VA_ARGS__,), RTE_FMT_TAIL(__VA_ARGS__,)). */
#define RTE_FMT(fmt, ...) fmt "%.0s", __VA_ARGS__ ""
#define RTE_FMT_HEAD(fmt, ...) fmt
#define RTE_FMT_TAIL(fmt, ...) __VA_ARGS__

/* ---- types ---- */

typedef uint64_t unaligned_uint64_t;
typedef uint32_t unaligned_uint32_t;
typedef uint16_t unaligned_uint16_t;

typedef uint64_t phys_addr_t;
#define RTE_BAD_PHYS_ADDR ((phys_addr_t)-1)

/* An address as a device sees it; RTE_BAD_IOVA: none is known. */
typedef uint64_t rte_iova_t;
#define RTE_BAD_IOVA ((rte_iova_t)-1)

/* Places in a struct that take no room. */
__extension__ typedef void* RTE_MARKER[0];
__extension__ typedef uint8_t RTE_MARKER8[0];
__extension__ typedef uint16_t RTE_MARKER16[0];
__extension__ typedef uint32_t RTE_MARKER32[0];
__extension__ typedef uint64_t RTE_MARKER64[0];

/* ---- pointers ---- */

#define RTE_PTR_ADD(ptr, x) ((void*)((uintptr_t)(ptr) + (x)))
#define RTE_PTR_SUB(ptr, x) ((void*)((uintptr_t)(ptr) - (x)))
#define RTE_PTR_DIFF(ptr1, ptr2) ((uintptr_t)(ptr1) - (uintptr_t)(ptr2))

/* The member `field` of what `var` points to, read as a `type`. */
#define RTE_CAST_FIELD(var, field, type) (*(type*)((uintptr_t)(var) + offsetof(typeof(*(var)), field)))

/* ---- alignment: `align` is a power of two, `mul` any positive number; arguments are evaluated more than once ---- */

#define RTE_ALIGN_FLOOR(val, align) (typeof(val))((val) & (~((typeof(val))((align)-1))))
#define RTE_ALIGN_CEIL(val, align) RTE_ALIGN_FLOOR(((val) + ((typeof(val))(align)-1)), align)
#define RTE_ALIGN(val, align) RTE_ALIGN_CEIL(val, align)
#define RTE_PTR_ALIGN_FLOOR(ptr, align) ((typeof(ptr))RTE_ALIGN_FLOOR((uintptr_t)(ptr), align))
#define RTE_PTR_ALIGN_CEIL(ptr, align) RTE_PTR_ALIGN_FLOOR((typeof(ptr))RTE_PTR_ADD(ptr, (align)-1), align)
#define RTE_PTR_ALIGN(ptr, align) RTE_PTR_ALIGN_CEIL(ptr, align)
#define RTE_ALIGN_MUL_CEIL(v, mul) ((((v) + (typeof(v))(mul)-1) / ((typeof(v))(mul))) * (typeof(v))(mul))
#define RTE_ALIGN_MUL_FLOOR(v, mul) (((v) / ((typeof(v))(mul))) * (typeof(v))(mul))
#define RTE_ALIGN_MUL_NEAR(v, mul)                           \
  __extension__({                                            \
    typeof(v) rte_up_ = RTE_ALIGN_MUL_CEIL(v, mul);          \
    typeof(v) rte_down_ = RTE_ALIGN_MUL_FLOOR(v, mul);       \
    (rte_up_ - (v)) > ((v)-rte_down_) ? rte_down_ : rte_up_; \
  })

/* 1 where `ptr` is a multiple of `align`, a power of two; else 0. */
static inline int rte_is_aligned(const void* const __rte_restrict ptr, const unsigned int align) {
  return ((uintptr_t)ptr & (uintptr_t)(align - 1)) == 0;
}

#define RTE_CACHE_LINE_MASK (RTE_CACHE_LINE_SIZE - 1)
#define RTE_CACHE_LINE_ROUNDUP(size) RTE_ALIGN_CEIL(size, RTE_CACHE_LINE_SIZE)
#define RTE_CACHE_LINE_SIZE_LOG2 6
#define RTE_CACHE_LINE_MIN_SIZE 64
#define __rte_cache_aligned __rte_aligned(RTE_CACHE_LINE_SIZE)
#define __rte_cache_min_aligned __rte_aligned(RTE_CACHE_LINE_MIN_SIZE)

/* ---- bits and powers of two ---- */

/* All bits below the highest one that is set, and that one. */
static inline uint32_t rte_combine32ms1b(uint32_t x) { return x == 0 ? 0 : UINT32_MAX >> __builtin_clz(x); }
static inline uint64_t rte_combine64ms1b(uint64_t v) { return v == 0 ? 0 : UINT64_MAX >> __builtin_clzll(v); }

#define RTE_IS_POWER_OF_2(n) ((n) && !(((n)-1) & (n))) /* evaluates `n` more than once */

static inline int rte_is_power_of_2(uint32_t n) { return n != 0 && (n & (n - 1)) == 0; }

/* The least power of two that is not below the number; 0 where that does not fit. */
static inline uint32_t rte_align32pow2(uint32_t x) { return rte_combine32ms1b(x - 1) + 1; }
static inline uint64_t rte_align64pow2(uint64_t v) { return rte_combine64ms1b(v - 1) + 1; }

/* The greatest power of two that is not above the number; 0 for 0. */
static inline uint32_t rte_align32prevpow2(uint32_t x) {
  x = rte_combine32ms1b(x);
  return x - (x >> 1);
}
static inline uint64_t rte_align64prevpow2(uint64_t v) {
  v = rte_combine64ms1b(v);
  return v - (v >> 1);
}

/* The index of the lowest bit that is set. Requires: v != 0. */
static inline uint32_t rte_bsf32(uint32_t v) { return (uint32_t)__builtin_ctz(v); }
static inline uint32_t rte_bsf64(uint64_t v) { return (uint32_t)__builtin_ctzll(v); }

/* The same for any number: 1 and the index in *pos, or 0 where no bit is set. */
static inline int rte_bsf32_safe(uint32_t v, uint32_t* pos) {
  if (v == 0) return 0;
  *pos = rte_bsf32(v);
  return 1;
}
static inline int rte_bsf64_safe(uint64_t v, uint32_t* pos) {
  if (v == 0) return 0;
  *pos = rte_bsf64(v);
  return 1;
}

/* The number of the highest bit that is set, counted from 1; 0 where none is. */
static inline uint32_t rte_fls_u32(uint32_t x) { return x == 0 ? 0 : 32u - (uint32_t)__builtin_clz(x); }
static inline uint32_t rte_fls_u64(uint64_t x) { return x == 0 ? 0 : 64u - (uint32_t)__builtin_clzll(x); }

/* The base-2 logarithm, rounded up; 0 for 0. */
static inline uint32_t rte_log2_u32(uint32_t v) { return v == 0 ? 0 : rte_fls_u32(v - 1); }
static inline uint32_t rte_log2_u64(uint64_t v) { return v == 0 ? 0 : rte_fls_u64(v - 1); }

/* The `ln` lowest bits, 1 to 64 of them, as a `tp`. */
#define RTE_LEN2MASK(ln, tp) ((tp)((uint64_t)-1 >> (sizeof(uint64_t) * CHAR_BIT - (ln))))

/* ---- values ---- */

#define RTE_MIN(a, b)                                  \
  __extension__({                                      \
    typeof(a) rte_min_a_ = (a);                        \
    typeof(b) rte_min_b_ = (b);                        \
    rte_min_a_ < rte_min_b_ ? rte_min_a_ : rte_min_b_; \
  })
#define RTE_MAX(a, b)                                  \
  __extension__({                                      \
    typeof(a) rte_max_a_ = (a);                        \
    typeof(b) rte_max_b_ = (b);                        \
    rte_max_a_ > rte_max_b_ ? rte_max_a_ : rte_max_b_; \
  })
#define RTE_SWAP(a, b)       \
  __extension__({            \
    typeof(a) rte_swap_ = a; \
    a = b;                   \
    b = rte_swap_;           \
  })

#define RTE_DIM(a) (sizeof(a) / sizeof((a)[0]))
#define RTE_SIZEOF_FIELD(type, field) (sizeof(((type*)0)->field))

/* The struct of which `ptr` is the member. */
#ifndef container_of
#define container_of(ptr, type, member)                       \
  __extension__({                                             \
    const typeof(((type*)0)->member)* rte_member_ = (ptr);    \
    (type*)((uintptr_t)rte_member_ - offsetof(type, member)); \
  })
#endif

/* ---- functions ---- */

/* Reads a number of bytes, as strtoull() with base 0 reads it, with one of the suffixes k, m, g (either case; powers
 * of 1024). Returns: 0 for NULL, a negative number, or one that does not fit, with errno set (EINVAL, ERANGE). */
uint64_t rte_str_to_size(const char* str);

/* Writes the message to stderr and the log, releases what rte_eal_init() took, and ends the process with that
 * exit status. */
__rte_noreturn void rte_exit(int exit_code, const char* format, ...) __rte_format_printf(2, 3);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_COMMON_H */
