// What the tests of the bridge share: an EAL without hugepages or hardware, DMA mapping as the test wants it, and memory.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "extmem/dpdk_bridge.h"

namespace bridge_test {

/// What the bridge asked DPDK to do with a device. The program's rte_dev_dma_map and _unmap take DPDK's place.
struct DmaCall {
  bool map = true;
  std::string device;
  void* addr = nullptr;
  std::uint64_t iova = 0;
  std::size_t length = 0;
  bool registered = false;  // DPDK knew the memory at that moment
};
struct Dma {
  std::vector<DmaCall> calls;
  /// 0: let DPDK do it; else the errno to fail with.
  std::function<int(const DmaCall&)> answer;
  /// The (un)mappings of one device that were let through, in order.
  [[nodiscard]] std::size_t count(const std::string& device, bool map) const;
  /// Mappings less unmappings that were let through, over all devices.
  [[nodiscard]] int balance() const;
};
Dma& dma();

/// What the functions answered before EAL ran: once before rte_eal_init was called, and once after it had failed.
struct BeforeEal {
  int lend = 0;
  std::string message;
  int give = 0;
  int pool = 0;
};
const BeforeEal& before_eal();
const BeforeEal& after_failed_eal();

/// Pages of this program.
class Memory {
 public:
  explicit Memory(std::size_t length, int protection = PROT_READ | PROT_WRITE)
      : base_(static_cast<std::byte*>(
            ::mmap(nullptr, length, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0))),
        length_(length) {}
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  ~Memory() { ::munmap(base_, length_); }
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::size_t length() const { return length_; }

 private:
  std::byte* base_;
  std::size_t length_;
};

/// How this program starts EAL, besides what all have in common. Each program defines it.
std::vector<std::string> eal_options();
/// Why EAL did not start; empty: it runs.
const std::string& eal_failure();

/// Runs with EAL (started once, with the vdevs net_null0 and net_ring0) and a private domain with an empty heap "h".
class Bridge : public ::testing::Test {
 protected:
  static void SetUpTestSuite();
  void SetUp() override;
  void TearDown() override;

  /// Adds memory of the caller's; `iovas` as in extmem_region_spec_t.
  int add(extmem_heap_t heap, const Memory& memory, extmem_region_id_t& region,
          const std::vector<extmem_iova_t>& iovas = {});
  extmem_region_id_t must_add(const Memory& memory, const std::vector<extmem_iova_t>& iovas = {});

  extmem_domain_t* domain = nullptr;
  extmem_heap_t heap{};
};

/// Whether DPDK knows the byte, and by which device address.
bool dpdk_knows(const void* p);
std::uint64_t dpdk_iova(const void* p);

}  // namespace bridge_test
