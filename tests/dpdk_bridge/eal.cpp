#include "eal.hpp"

#include <dlfcn.h>
#include <fcntl.h>
#include <rte_dev.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_memory.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

#include "contract/runtime_directory.hpp"

// What AddressSanitizer asks for. An rte_eal_init that fails, as the tests make one do, leaks its device options in 22.11.
extern "C" const char* __lsan_default_suppressions();
extern "C" const char* __lsan_default_suppressions() { return "leak:librte_eal\n"; }

namespace bridge_test {
namespace {

BeforeEal answers_before, answers_after_failure;
std::string failure;

using DmaFn = int (*)(rte_device*, void*, std::uint64_t, std::size_t);

int handle(const char* name, bool map, rte_device* device, void* addr, std::uint64_t iova,
           std::size_t length) {
  DmaCall call{map, ::rte_dev_name(device), addr, iova, length, dpdk_knows(addr)};
  const int refused = dma().answer ? dma().answer(call) : 0;
  if (refused != 0) {
    rte_errno = refused;
    return -1;
  }
  dma().calls.push_back(std::move(call));
  return reinterpret_cast<DmaFn>(::dlsym(RTLD_NEXT, name))(device, addr, iova, length);
}

void ask(BeforeEal& answers) {
  extmem_domain_t* early = nullptr;
  ASSERT_EQ(extmem_domain_create(nullptr, &early), 0);
  extmem_heap_t heap{};
  ASSERT_EQ(extmem_heap_create(early, "early", nullptr, &heap), 0);
  extmem_dpdk_lease_t* lease = nullptr;
  answers.lend = extmem_dpdk_lend(early, heap, 0, &lease);
  answers.message = extmem_dpdk_last_error_message();
  char byte = 0;
  answers.give = extmem_dpdk_range_give(early, &byte, 1, "d");
  extmem_dpdk_pool_options_t options = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  options.name = "early";
  options.count = 7;
  rte_mempool* pool = nullptr;
  answers.pool = extmem_dpdk_pktmbuf_pool_create(early, heap, &options, &pool);
  ASSERT_EQ(extmem_domain_close(early), 0);
}

/// Starts EAL with an option that it does not have, which it tells at length, and where nobody listens.
int fail_to_start() {
  const int out = ::dup(1), error = ::dup(2), nowhere = ::open("/dev/null", O_WRONLY);
  std::fflush(stdout);
  ::dup2(nowhere, 1);
  ::dup2(nowhere, 2);
  std::string words[] = {"dpdk_bridge", "--no-such-option"};
  char* arguments[] = {words[0].data(), words[1].data(), nullptr};
  const int answer = ::rte_eal_init(2, arguments);
  std::fflush(stdout);
  ::dup2(out, 1);
  ::dup2(error, 2);
  for (const int fd : {out, error, nowhere}) ::close(fd);
  return answer;
}

}  // namespace

std::size_t Dma::count(const std::string& device, bool map) const {
  return static_cast<std::size_t>(
      std::ranges::count_if(calls, [&](const DmaCall& c) { return c.device == device && c.map == map; }));
}

int Dma::balance() const {
  int sum = 0;
  for (const DmaCall& call : calls) sum += call.map ? 1 : -1;
  return sum;
}

Dma& dma() {
  static Dma only;
  return only;
}

const BeforeEal& before_eal() { return answers_before; }
const BeforeEal& after_failed_eal() { return answers_after_failure; }

void Bridge::SetUpTestSuite() {
  static bool started = false;
  if (started) return;
  started = true;
  static const extmem::test::RuntimeDirectory of_dpdk;  // EAL leaves a folder for each file prefix
  ASSERT_EQ(::setenv("RUNTIME_DIRECTORY", of_dpdk.c_str(), 1), 0);
  ask(answers_before);
  ASSERT_LT(fail_to_start(), 0);
  ask(answers_after_failure);

  std::vector<std::string> words = eal_options();
  for (const char* word :
       {"--no-pci", "--no-telemetry", "-l0", "--log-level=critical", "--vdev=net_null0", "--vdev=net_ring0"})
    words.emplace_back(word);
  words.push_back("--file-prefix=bridge" + std::to_string(::getpid()));
  words.insert(words.begin(), "dpdk_bridge");
  std::vector<char*> arguments;
  for (std::string& word : words) arguments.push_back(word.data());
  if (::rte_eal_init(static_cast<int>(arguments.size()), arguments.data()) < 0)
    failure = ::rte_strerror(rte_errno);
}

const std::string& eal_failure() { return failure; }

void Bridge::SetUp() {
  dma() = Dma{};
  ASSERT_EQ(extmem_domain_create(nullptr, &domain), 0);
  ASSERT_EQ(extmem_heap_create(domain, "h", nullptr, &heap), 0);
}

void Bridge::TearDown() {
  dma().answer = nullptr;
  std::size_t breaches = 0;
  EXPECT_EQ(extmem_domain_verify(domain, nullptr, nullptr, &breaches), 0);
  EXPECT_EQ(breaches, 0u);
  EXPECT_EQ(extmem_domain_close(domain), 0);
}

int Bridge::add(extmem_heap_t to, const Memory& memory, extmem_region_id_t& region,
                const std::vector<extmem_iova_t>& iovas) {
  extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
  spec.base = memory.base();
  spec.length = memory.length();
  spec.iovas = iovas.empty() ? nullptr : iovas.data();
  spec.n_iovas = iovas.size();
  return extmem_region_add(domain, to, &spec, &region);
}

extmem_region_id_t Bridge::must_add(const Memory& memory, const std::vector<extmem_iova_t>& iovas) {
  extmem_region_id_t region{};
  EXPECT_EQ(add(heap, memory, region, iovas), 0) << extmem_last_error_message();
  return region;
}

bool dpdk_knows(const void* p) { return ::rte_mem_virt2memseg_list(p) != nullptr; }

std::uint64_t dpdk_iova(const void* p) {
  const rte_memseg* segment = ::rte_mem_virt2memseg(p, nullptr);
  if (segment == nullptr || segment->iova == RTE_BAD_IOVA) return RTE_BAD_IOVA;
  return segment->iova +
         static_cast<std::uint64_t>(static_cast<const char*>(p) - static_cast<const char*>(segment->addr));
}

}  // namespace bridge_test

extern "C" {
// In DPDK's place for the whole program, the bridge included.
int rte_dev_dma_map(rte_device* device, void* addr, std::uint64_t iova, std::size_t length) {
  return bridge_test::handle("rte_dev_dma_map", true, device, addr, iova, length);
}
int rte_dev_dma_unmap(rte_device* device, void* addr, std::uint64_t iova, std::size_t length) {
  return bridge_test::handle("rte_dev_dma_unmap", false, device, addr, iova, length);
}
}
