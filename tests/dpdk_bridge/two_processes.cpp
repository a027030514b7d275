// A primary process of DPDK, which lends a heap, and secondary ones, which it starts and which lend it, too.
//
//   two_processes [EAL OPTIONS]
//
// Ends with 0, 1 and what failed, or 77 where EAL does not start. A secondary process withdraws, or is stopped while it
// lends, or killed, as EXTMEM_ROLE says.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_memory.h>
#include <rte_mempool.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "extmem/dpdk_bridge.h"

extern char** environ;

namespace {

int failures = 0;

#define EXPECT(condition)                                                                          \
  do {                                                                                             \
    if (!(condition)) {                                                                            \
      std::printf("%s:%d, process %d: %s does not hold: %s; %s\n", __FILE__, __LINE__, ::getpid(), \
                  #condition, extmem_dpdk_last_error_message(), extmem_last_error_message());      \
      ++failures;                                                                                  \
    }                                                                                              \
  } while (false)

extmem_domain_t* open_domain() {
  extmem_open_options_t options = EXTMEM_OPEN_OPTIONS_INIT;
  options.same_address = true;
  extmem_domain_t* domain = nullptr;
  EXPECT(extmem_domain_open("two", &options, &domain) == 0);
  if (domain == nullptr) std::exit(1);
  return domain;
}

void be_secondary() {
  extmem_domain_t* const domain = open_domain();
  extmem_heap_t heap{};
  EXPECT(extmem_heap_find(domain, "h", &heap) == 0);
  void* const p = extmem_malloc(heap, 100);
  EXPECT(p != nullptr);
  extmem_dpdk_lease_t* lease = nullptr;
  EXPECT(extmem_dpdk_lend(domain, heap, 0, &lease) == 0);
  if (lease == nullptr) std::exit(1);
  const rte_memseg* const segment = rte_mem_virt2memseg(p, nullptr);
  EXPECT(segment != nullptr && segment->iova == 0x7000'0000);  // as the primary process has lent it
  const std::string role = std::getenv("EXTMEM_ROLE");
  if (role == "dies") (void)::kill(::getpid(), SIGKILL);
  if (role == "stops") (void)::kill(::getpid(), SIGSTOP);
  rte_mempool* const pool = rte_mempool_lookup("p");
  EXPECT((pool != nullptr) == (role == "withdraws"));
  rte_mbuf* const mbuf = pool != nullptr ? rte_pktmbuf_alloc(pool) : nullptr;
  EXPECT((mbuf != nullptr) == (pool != nullptr));
  if (mbuf != nullptr) {
    extmem_region_id_t region{};
    EXPECT(extmem_region_find(domain, mbuf->buf_addr, &region) == 0);
    std::memset(rte_pktmbuf_append(mbuf, 100), 7, 100);
    rte_pktmbuf_free(mbuf);
  }
  EXPECT(extmem_dpdk_withdraw(lease) == 0);
  EXPECT(extmem_free(heap, p) == 0);
  EXPECT(extmem_domain_close(domain) == 0);
}

/// Starts a secondary process. Returns: its id.
pid_t start(std::vector<std::string> words, const char* role) {
  EXPECT(::setenv("EXTMEM_ROLE", role, 1) == 0);
  words.emplace_back("--proc-type=secondary");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  arguments.push_back(nullptr);
  pid_t pid = -1;
  EXPECT(::posix_spawn(&pid, "/proc/self/exe", nullptr, nullptr, arguments.data(), environ) == 0);
  return pid;
}

int wait_for(pid_t pid) {
  int status = -1;
  EXPECT(::waitpid(pid, &status, WUNTRACED) == pid);
  return status;
}

void be_primary(const std::vector<std::string>& words) {
  extmem_domain_t* const domain = open_domain();
  extmem_heap_t heap{};
  EXPECT(extmem_heap_create(domain, "h", nullptr, &heap) == 0);
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.length = std::size_t{4} << 20;
  extmem_region_id_t region{};
  EXPECT(extmem_region_add_backing(domain, heap, &backing, &region) == 0);
  extmem_region_info_t info{};
  EXPECT(extmem_region_get_info(domain, region, &info, sizeof info) == 0);
  extmem_dpdk_lease_t* lease = nullptr;
  EXPECT(extmem_dpdk_lend(domain, heap, 0, &lease) == 0);
  if (lease == nullptr) std::exit(1);
  // A mark by which the others know that the pages' descriptions are this process'.
  rte_memseg* segment = nullptr;
  for (std::size_t at = 0; at < info.length; at += 4096) {
    segment = rte_mem_virt2memseg(static_cast<char*>(info.base) + at, nullptr);
    EXPECT(segment != nullptr);
    if (segment != nullptr) segment->iova = 0x7000'0000;
  }
  rte_mempool* pool = nullptr;
  extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  options.name = "p";
  options.count = 255;
  EXPECT(extmem_dpdk_pktmbuf_pool_create(domain, heap, &options, &pool) == 0);

  EXPECT(wait_for(start(words, "withdraws")) == 0);
  const int killed = wait_for(start(words, "dies"));
  EXPECT(WIFSIGNALED(killed));
  EXPECT(extmem_dpdk_pktmbuf_pool_destroy(pool, nullptr) == 0);
  const pid_t stopped = start(words, "stops");
  const int status = wait_for(stopped);
  EXPECT(WIFSTOPPED(status));
  const int busy = extmem_dpdk_withdraw(lease);
  EXPECT(busy == -EBUSY);
  EXPECT(std::strstr(extmem_dpdk_last_error_message(), "every DPDK process") != nullptr);
  EXPECT(rte_mem_virt2memseg_list(info.base) != nullptr);
  EXPECT(::kill(stopped, SIGCONT) == 0);
  EXPECT(wait_for(stopped) == 0);
  if (busy != 0) EXPECT(extmem_dpdk_withdraw(lease) == 0);  // a lease that has ended is gone
  EXPECT(rte_mem_virt2memseg_list(info.base) == nullptr);
  EXPECT(extmem_domain_close(domain) == 0);
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> words(argv, argv + argc);
  if (rte_eal_init(argc, argv) < 0) {
    std::printf("rte_eal_init: %s\n", rte_strerror(rte_errno));
    return rte_eal_process_type() == RTE_PROC_SECONDARY ? 1 : 77;
  }
  if (rte_eal_process_type() == RTE_PROC_SECONDARY) {
    be_secondary();
  } else {
    be_primary(words);
  }
  (void)rte_eal_cleanup();
  return failures != 0;
}
