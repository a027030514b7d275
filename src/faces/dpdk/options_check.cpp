// The rules over several options, and the lcores that are left to be chosen.
#include <rte_log.h>

#include "faces/dpdk/options.hpp"

namespace extmem::dpdk {
namespace {

struct Rule {
  bool broken;
  const char* what;
};

// One lcore for each processor that the process may use, by its number; on a machine where all of those are too high
// to be an id, by their order.
void choose_lcores(LcoreOptions& lcores, const cpu_set_t& available) noexcept {
  const bool by_number = first_cpu(available) < kMaxLcores;
  unsigned next = 0;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &available)) continue;
    const unsigned id = by_number ? cpu : next++;
    if (id >= kMaxLcores) break;
    lcores.wanted[id] = true;
    CPU_ZERO(&lcores.cpus[id]);
    CPU_SET(cpu, &lcores.cpus[id]);
  }
}

bool check_lcores(LcoreOptions& lcores, const ProcessCpus& cpus) noexcept {
  if (!lcores.named) choose_lcores(lcores, cpus.now);
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    if (!lcores.wanted[id]) {
      lcores.service[id] = false;
      continue;
    }
    cpu_set_t usable;
    CPU_AND(&usable, &lcores.cpus[id], &cpus.allowed);
    if (CPU_EQUAL(&usable, &lcores.cpus[id]) == 0) {
      RTE_LOG(ERR, EAL, "lcore %u: this process may not use all of its processors\n", id);
      return false;
    }
  }
  if (lcores.main) {
    if (!lcores.wanted[*lcores.main] || lcores.service[*lcores.main]) {
      RTE_LOG(ERR, EAL, "--main-lcore=%u is not among the lcores\n", *lcores.main);
      return false;
    }
    return true;
  }
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    if (!lcores.wanted[id] || lcores.service[id]) continue;
    lcores.main = id;
    return true;
  }
  RTE_LOG(ERR, EAL, "no lcore is left to be the main one\n");
  return false;
}

}  // namespace

bool check_options(CommandLine& line, const ProcessCpus& cpus, bool mem_given, bool unlink_never) {
  EalOptions& eal = line.eal;
  const Rule rules[] = {
      {mem_given && eal.has_socket_mem, "-m and --socket-mem: give one of them"},
      {eal.no_huge && eal.has_socket_mem, "--no-huge takes no --socket-mem: use -m"},
      {eal.no_huge && eal.huge_unlink && !eal.in_memory, "--no-huge takes no --huge-unlink: it has no files"},
      {eal.no_huge && eal.match_allocations, "--no-huge takes no --match-allocations"},
      {eal.legacy_mem && eal.match_allocations,
       "--legacy-mem takes no --match-allocations: its memory is fixed"},
      {eal.single_file_segments && eal.huge_unlink && !eal.in_memory,
       "--single-file-segments takes no --huge-unlink: its file must stay"},
      {eal.in_memory && unlink_never, "--in-memory takes no --huge-unlink=never: it has no files"},
      {eal.process == RTE_PROC_SECONDARY && !eal.shared(),
       "--proc-type=secondary needs a shared configuration: not with --in-memory or --no-shconf"},
  };
  for (const Rule& rule : rules) {
    if (!rule.broken) continue;
    RTE_LOG(ERR, EAL, "%s\n", rule.what);
    return false;
  }
  return check_lcores(line.lcores, cpus);
}

}  // namespace extmem::dpdk
