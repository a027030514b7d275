/* Nanoseconds and struct timespec; counters of cycles that are read as nanoseconds.
 *
 * Thread-safety: plain computations.
 */
#ifndef EXTMEM_DPDK_RTE_TIME_H
#define EXTMEM_DPDK_RTE_TIME_H

#include <stdint.h>
#include <time.h>

#ifdef __cplusplus
extern "C" {
#endif

#define NSEC_PER_SEC 1000000000L

/* A counter that wraps at cc_mask and was last read as cycle_last. */
struct rte_timecounter {
  uint64_t cycle_last;
  uint64_t nsec; /* the time at cycle_last */
  uint64_t nsec_mask;
  uint64_t nsec_frac; /* what is left over, in units of 2^-cc_shift ns */
  uint64_t cc_mask;
  uint32_t cc_shift; /* cycles to units: they are ns shifted left by this */
};

/* Cycles as ns, with the fraction that was left over, and what is left over now kept. */
static inline uint64_t rte_cyclecounter_cycles_to_ns(struct rte_timecounter* tc, uint64_t cycles) {
  uint64_t units = cycles + tc->nsec_frac;
  tc->nsec_frac = units & tc->nsec_mask;
  return units >> tc->cc_shift;
}

/* Takes a new reading. Returns: the time then. A reading that lies less than half the range back is an older one. */
static inline uint64_t rte_timecounter_update(struct rte_timecounter* tc, uint64_t cycle_now) {
  uint64_t delta = (cycle_now - tc->cycle_last) & tc->cc_mask;
  if (delta > tc->cc_mask / 2) {
    delta = (tc->cycle_last - cycle_now) & tc->cc_mask;
    return tc->nsec - rte_cyclecounter_cycles_to_ns(tc, delta);
  }
  tc->cycle_last = cycle_now;
  tc->nsec += rte_cyclecounter_cycles_to_ns(tc, delta);
  return tc->nsec;
}

static inline uint64_t rte_timespec_to_ns(const struct timespec* ts) {
  return (uint64_t)ts->tv_sec * NSEC_PER_SEC + (uint64_t)ts->tv_nsec;
}
static inline struct timespec rte_ns_to_timespec(uint64_t nsec) {
  struct timespec ts = {0, 0};
  ts.tv_sec = (time_t)(nsec / NSEC_PER_SEC);
  ts.tv_nsec = (long)(nsec % NSEC_PER_SEC);
  return ts;
}

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_TIME_H */
