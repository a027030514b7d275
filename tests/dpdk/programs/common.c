/* rte_common.h, rte_bitops.h, rte_byteorder.h, rte_memcpy.h, rte_prefetch.h, rte_version.h, rte_compat.h. */
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include <rte_bitops.h>
#include <rte_branch_prediction.h>
#include <rte_byteorder.h>
#include <rte_common.h>
#include <rte_compat.h>
#include <rte_memcpy.h>
#include <rte_prefetch.h>
#include <rte_version.h>

#include "check.h"

struct __rte_cache_aligned line {
  char c;
};
struct __rte_packed packed {
  char c;
  uint32_t u;
};
struct outer {
  int a;
  RTE_MARKER here;
  int b;
};

static int constructed = 0;
RTE_INIT(before_main) { constructed++; }
RTE_INIT_PRIO(before_others, BUS) { constructed += 10; }

__rte_experimental static int experimental(void) { return 4; }
__rte_internal static int internal(void) { return 5; }
static __rte_always_inline int inlined(int __rte_unused unused) { return 6; }
static __rte_noinline int not_inlined(void) { return 7; }

static int alignment(void) {
  uint64_t v = 4097;
  char* p = (char*)(uintptr_t)0x10001;
  CHECK(RTE_ALIGN(v, 4096) == 8192);
  CHECK(RTE_ALIGN_CEIL(v, 4096) == 8192);
  CHECK(RTE_ALIGN_FLOOR(v, 4096) == 4096);
  CHECK(RTE_ALIGN_CEIL((uint64_t)1 << 40, (uint64_t)1 << 40) == (uint64_t)1 << 40);
  CHECK(RTE_PTR_ALIGN(p, 64) == (char*)(uintptr_t)0x10040);
  CHECK(RTE_PTR_ALIGN_CEIL(p, 64) == (char*)(uintptr_t)0x10040);
  CHECK(RTE_PTR_ALIGN_FLOOR(p, 64) == (char*)(uintptr_t)0x10000);
  CHECK(RTE_ALIGN_MUL_CEIL(v, 1000) == 5000);
  CHECK(RTE_ALIGN_MUL_FLOOR(v, 1000) == 4000);
  CHECK(RTE_ALIGN_MUL_NEAR(v, 1000) == 4000);
  CHECK(RTE_ALIGN_MUL_NEAR((uint64_t)4600, 1000) == 5000);
  CHECK(RTE_PTR_ADD(p, 15) == (void*)(uintptr_t)0x10010);
  CHECK(RTE_PTR_SUB(p, 1) == (void*)(uintptr_t)0x10000);
  CHECK(RTE_PTR_DIFF(p + 9, p) == 9);
  CHECK(rte_is_aligned((void*)(uintptr_t)0x1000, 4096) == 1);
  CHECK(rte_is_aligned(p, 2) == 0);
  CHECK(RTE_CACHE_LINE_SIZE == 64 && RTE_CACHE_LINE_MASK == 63 && RTE_CACHE_LINE_SIZE_LOG2 == 6);
  CHECK(RTE_CACHE_LINE_ROUNDUP(65) == 128 && RTE_CACHE_LINE_MIN_SIZE == 64);
  CHECK(sizeof(struct line) == 64 && sizeof(struct packed) == 5);
  CHECK(offsetof(struct outer, here) == offsetof(struct outer, b));
  return 0;
}

static int powers(void) {
  uint32_t pos = 99;
  CHECK(RTE_IS_POWER_OF_2(64) && !RTE_IS_POWER_OF_2(65) && !RTE_IS_POWER_OF_2(0));
  CHECK(rte_is_power_of_2(1) == 1 && rte_is_power_of_2(0) == 0 && rte_is_power_of_2(0x80000000u) == 1 &&
        rte_is_power_of_2(3) == 0);
  CHECK(rte_combine32ms1b(0x90) == 0xff && rte_combine32ms1b(0) == 0);
  CHECK(rte_combine64ms1b((uint64_t)1 << 63) == UINT64_MAX && rte_combine64ms1b(0) == 0);
  CHECK(rte_align32pow2(0) == 0 && rte_align32pow2(1) == 1 && rte_align32pow2(33) == 64 &&
        rte_align32pow2(64) == 64);
  CHECK(rte_align64pow2(0) == 0 && rte_align64pow2(1) == 1 &&
        rte_align64pow2(((uint64_t)1 << 40) + 1) == (uint64_t)1 << 41);
  CHECK(rte_align32prevpow2(0) == 0 && rte_align32prevpow2(63) == 32 && rte_align32prevpow2(64) == 64);
  CHECK(rte_align64prevpow2(0) == 0 && rte_align64prevpow2(((uint64_t)1 << 41) - 1) == (uint64_t)1 << 40);
  CHECK(rte_bsf32(0x50) == 4 && rte_bsf64((uint64_t)1 << 50) == 50);
  CHECK(rte_bsf32_safe(0, &pos) == 0 && pos == 99 && rte_bsf32_safe(8, &pos) == 1 && pos == 3);
  CHECK(rte_bsf64_safe(0, &pos) == 0 && pos == 3 && rte_bsf64_safe((uint64_t)1 << 40, &pos) == 1 &&
        pos == 40);
  CHECK(rte_fls_u32(0) == 0 && rte_fls_u32(1) == 1 && rte_fls_u32(UINT32_MAX) == 32);
  CHECK(rte_fls_u64(0) == 0 && rte_fls_u64(1) == 1 && rte_fls_u64(UINT64_MAX) == 64);
  CHECK(rte_log2_u32(0) == 0 && rte_log2_u32(1) == 0 && rte_log2_u32(5) == 3 && rte_log2_u32(8) == 3);
  CHECK(rte_log2_u64(0) == 0 && rte_log2_u64(1) == 0 && rte_log2_u64((uint64_t)1 << 40) == 40);
  CHECK(RTE_LEN2MASK(12, uint16_t) == 0xfff && RTE_LEN2MASK(64, uint64_t) == UINT64_MAX);
  return 0;
}

static int values(void) {
  int a = 3, b = 5, array[7];
  struct outer outer = {1, {}, 2};
  uint32_t u32 = 0;
  uint64_t u64 = 0;
  RTE_SET_USED(array);
  CHECK(RTE_MIN(a, b) == 3 && RTE_MAX(a++, b) == 5 && a == 4 && RTE_MIN(RTE_MAX(a, b), 9) == 5);
  RTE_SWAP(a, b);
  CHECK(a == 5 && b == 4);
  CHECK(RTE_DIM(array) == 7 && RTE_SIZEOF_FIELD(struct packed, u) == 4);
  CHECK(container_of(&outer.b, struct outer, b) == &outer);
  CHECK(RTE_CAST_FIELD(&outer, b, unsigned) == 2);
  CHECK(strcmp(RTE_STR(RTE_MAX_LCORE), "128") == 0);
  RTE_BUILD_BUG_ON(sizeof(rte_iova_t) != 8);
  CHECK(RTE_BAD_IOVA == UINT64_MAX && RTE_BAD_PHYS_ADDR == UINT64_MAX);
  CHECK(likely(a == 5) && !unlikely(a == 6));
  CHECK(constructed == 11);
  CHECK(experimental() + internal() + inlined(0) + not_inlined() == 22);

  CHECK(RTE_BIT64(40) == (uint64_t)1 << 40 && RTE_BIT32(31) == 0x80000000u);
  rte_bit_relaxed_set32(5, &u32);
  CHECK(u32 == 32 && rte_bit_relaxed_get32(5, &u32) == 32 && rte_bit_relaxed_get32(6, &u32) == 0);
  CHECK(rte_bit_relaxed_test_and_set32(5, &u32) == 32 && rte_bit_relaxed_test_and_clear32(5, &u32) == 32 &&
        u32 == 0);
  rte_bit_relaxed_set32(1, &u32);
  rte_bit_relaxed_clear32(1, &u32);
  CHECK(u32 == 0);
  rte_bit_relaxed_set64(50, &u64);
  CHECK(rte_bit_relaxed_get64(50, &u64) == RTE_BIT64(50));
  CHECK(rte_bit_relaxed_test_and_set64(51, &u64) == 0 &&
        rte_bit_relaxed_test_and_clear64(51, &u64) == RTE_BIT64(51));
  rte_bit_relaxed_clear64(50, &u64);
  CHECK(u64 == 0);
  return 0;
}

static int bytes(void) {
  static const uint16_t constant = RTE_STATIC_BSWAP16(0x1234);
  const unsigned char wire[4] = {1, 2, 3, 4};
  char from[256], to[256];
  uint32_t word;
  memcpy(&word, wire, sizeof word);
  CHECK(rte_be_to_cpu_32(word) == 0x01020304 && rte_le_to_cpu_32(word) == 0x04030201);
  CHECK(rte_cpu_to_be_32(0x01020304) == word && rte_cpu_to_le_32(0x04030201) == word &&
        RTE_BE32(0x01020304) == word);
  CHECK(constant == 0x3412 && rte_bswap16(0x1234) == 0x3412 && rte_bswap32(0x12345678) == 0x78563412);
  CHECK(rte_bswap64(1) == (uint64_t)1 << 56 && rte_constant_bswap64(1) == (uint64_t)1 << 56);
  CHECK(RTE_STATIC_BSWAP64(0x0102030405060708) == 0x0807060504030201);
  CHECK(rte_be_to_cpu_16(rte_cpu_to_be_16(77)) == 77 && rte_le_to_cpu_64(rte_cpu_to_le_64(77)) == 77);
  CHECK(RTE_BYTE_ORDER == RTE_LITTLE_ENDIAN || RTE_BYTE_ORDER == RTE_BIG_ENDIAN);
  memset(from, 'x', sizeof from);
  memset(to, 0, sizeof to);
  CHECK(rte_memcpy(to, from, 100) == to && to[99] == 'x' && to[100] == 0);
  rte_mov256((uint8_t*)to, (const uint8_t*)from);
  CHECK(memcmp(from, to, 256) == 0);
  rte_prefetch0(to);
  rte_prefetch1(to);
  rte_prefetch2(to);
  rte_prefetch_non_temporal(to);
  rte_prefetch0_write(to);
  rte_cldemote(to);
  CHECK(memcmp(from, to, 256) == 0);
  return 0;
}

static int sizes(void) {
  CHECK(rte_str_to_size("10k") == 10240 && rte_str_to_size("1G") == 1u << 30 &&
        rte_str_to_size(" 12m") == 12u << 20);
  CHECK(rte_str_to_size("0x10") == 16 && rte_str_to_size("") == 0 && rte_str_to_size("abc") == 0);
  CHECK(rte_str_to_size("-5") == 0);
  errno = 0;
  CHECK(rte_str_to_size("99999999999999999999") == 0 && errno == ERANGE);
  errno = 0;
  CHECK(rte_str_to_size("17179869184G") == 0 && errno == ERANGE);
  return 0;
}

static int version(void) {
  CHECK(RTE_VERSION == RTE_VERSION_NUM(22, 11, RTE_VER_MINOR, RTE_VER_RELEASE));
  CHECK(RTE_VERSION >= RTE_VERSION_NUM(22, 11, 0, 0) && RTE_VERSION < RTE_VERSION_NUM(23, 0, 0, 0));
  CHECK(strncmp(rte_version(), "DPDK 22.11", 10) == 0 && strstr(rte_version(), "extmem") != NULL);
  CHECK(rte_version_year() == 22 && rte_version_month() == 11 && rte_version_minor() == RTE_VER_MINOR);
  CHECK(strcmp(rte_version_prefix(), "DPDK") == 0 && strcmp(rte_version_suffix(), RTE_VER_SUFFIX) == 0);
  CHECK(rte_version_release() == RTE_VER_RELEASE && RTE_LIB_EXTMEM);
  return 0;
}

int main(void) { return alignment() || powers() || values() || bytes() || sizes() || version(); }
