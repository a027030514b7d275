/* rte_hexdump.h, rte_time.h, rte_io.h, rte_test.h; and what programs get from a header without asking for it. */
#include <rte_hexdump.h>
#include <rte_io.h>
#include <rte_prefetch.h>
#include <rte_rwlock.h>
#include <rte_test.h>
#include <rte_time.h>

#include <string.h>

#include "check.h"

/* rte_rwlock.h, and with it rte_fbarray.h and rte_malloc.h, brings all of these in DPDK. */
static int brought_along(void) {
  void* p = malloc(10);
  assert(p != NULL);
  free(p);
  CHECK(rte_lcore_id() == LCORE_ID_ANY && rte_get_tsc_cycles() != 0 &&
        RTE_LOG(DEBUG, EAL, "not written\n") == 0);
  RTE_VERIFY(RTE_MAX_LCORE > 0 && EBUSY > 0);
  return 0;
}

static int dumps(void) {
  const unsigned char bytes[] = "0123456789abcdef\001z";
  char text[1024], title[64];
  size_t length;
  FILE* f = tmpfile();
  CHECK(f != NULL);
  rte_hexdump(f, "title", bytes, 18);
  rte_memdump(f, "line", bytes + 15, 3);
  rte_memdump(f, NULL, bytes, 0);
  rewind(f);
  length = fread(text, 1, sizeof text - 1, f);
  text[length] = '\0';
  fclose(f);
  snprintf(title, sizeof title, "title at [%p], len=18\n", (const void*)bytes);
  CHECK(strncmp(text, title, strlen(title)) == 0);
  CHECK(strcmp(text + strlen(title),
               "00000000: 30 31 32 33 34 35 36 37 38 39 61 62 63 64 65 66 | 0123456789abcdef\n"
               "00000010: 01 7A                                           | .z\n"
               "line: 66:01:7a\n\n") == 0);
  return 0;
}

static int times(void) {
  struct timespec ts = rte_ns_to_timespec(3000000007ULL);
  /* 8-bit counter, four cycles a nanosecond. */
  struct rte_timecounter tc = {250, 1000, 3, 0, 255, 2};
  CHECK(ts.tv_sec == 3 && ts.tv_nsec == 7 && rte_timespec_to_ns(&ts) == 3000000007ULL);
  CHECK(rte_timecounter_update(&tc, 4) == 1002 && tc.nsec_frac == 2); /* 10 cycles over the end */
  CHECK(rte_timecounter_update(&tc, 10) == 1004 && tc.nsec_frac == 0);
  CHECK(rte_timecounter_update(&tc, 6) == 1003 && tc.cycle_last == 10); /* an older reading */
  return 0;
}

static int registers(void) {
  uint64_t device = 0;
  rte_write8(1, &device);
  CHECK(rte_read8(&device) == 1);
  rte_write16(0x102, &device);
  CHECK(rte_read16(&device) == 0x102);
  rte_write32(0x1020304, &device);
  CHECK(rte_read32(&device) == 0x1020304);
  rte_write64(UINT64_MAX, &device);
  CHECK(rte_read64(&device) == UINT64_MAX);
  rte_write32_wc(5, &device);
  rte_write32_wc_relaxed(6, &device);
  CHECK(rte_read32_relaxed(&device) == 6);
  return 0;
}

/* Which of the assertions fails: those before it hold. */
static int assertions(int fails) {
  const int* none = NULL;
  RTE_TEST_ASSERT(fails != 1, "one");
  RTE_TEST_ASSERT_EQUAL(fails == 2, 0, "%d", fails);
  RTE_TEST_ASSERT_NOT_EQUAL(fails, 3, "%d is %s", fails, "three");
  RTE_TEST_ASSERT_SUCCESS(fails == 4, "four");
  RTE_TEST_ASSERT_FAIL(fails != 5, "five");
  RTE_TEST_ASSERT_NULL(fails == 6 ? &fails : none, "six");
  RTE_TEST_ASSERT_NOT_NULL(fails == 7 ? none : &fails, "seven");
  return fails;
}

static int testing(void) {
  int i;
  for (i = 1; i <= 7; i++) CHECK(assertions(i) == -1);
  CHECK(assertions(0) == 0 && assertions(8) == 8);
  rte_prefetch0(&i);
  return 0;
}

int main(void) { return brought_along() || dumps() || times() || registers() || testing(); }
