// Pools of packets: DPDK's mempool and mbuf headers over data buffers in a heap.
#include <rte_errno.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <list>
#include <utility>
#include <vector>

#include "extmem/dpdk_bridge.h"
#include "faces/dpdk_bridge/checks.hpp"
#include "faces/dpdk_bridge/eal.hpp"
#include "faces/dpdk_bridge/error.hpp"
#include "faces/dpdk_bridge/state.hpp"

using namespace extmem::faces::dpdk_bridge;

namespace {

constexpr std::uint32_t kBufferAlign = RTE_CACHE_LINE_SIZE;
constexpr std::size_t kLongestChunk = std::size_t{64} << 20;  // bytes: longer spans would need emptier heaps

int check(const extmem_dpdk_pool_options_t* given, extmem_dpdk_pool_options_t& options) noexcept {
  constexpr std::size_t kFirstSize = 40;  // of the interface's first version
  static_assert(sizeof(extmem_dpdk_pool_options_t) == kFirstSize);
  BRIDGE_REQUIRE(given != nullptr, "options is NULL; initialise them with EXTMEM_DPDK_POOL_OPTIONS_INIT");
  BRIDGE_REQUIRE(given->struct_size >= kFirstSize,
                 "struct_size is too small; initialise the options with EXTMEM_DPDK_POOL_OPTIONS_INIT");
  const auto* const bytes = reinterpret_cast<const unsigned char*>(given);
  if (std::any_of(bytes + kFirstSize, bytes + given->struct_size, [](unsigned char b) { return b != 0; }) ||
      given->reserved != 0) {
    return fail(E2BIG, "the options ask for what this version of the library does not know; use a newer one");
  }
  options = *given;
  if (options.data_room == 0) options.data_room = RTE_MBUF_DEFAULT_BUF_SIZE;
  BRIDGE_REQUIRE(options.name != nullptr && options.name[0] != '\0', "a pool needs a name of 1 to 25 bytes");
  if (::strnlen(options.name, RTE_MEMPOOL_NAMESIZE) >= RTE_MEMPOOL_NAMESIZE)
    return fail(ENAMETOOLONG, "a pool's name has at most %d bytes",
                static_cast<int>(RTE_MEMPOOL_NAMESIZE - 1));
  BRIDGE_REQUIRE(options.count != 0, "count is 0; say how many mbufs the pool has");
  BRIDGE_REQUIRE(options.priv_size % RTE_MBUF_PRIV_ALIGN == 0, "priv_size must be a multiple of 8");
  BRIDGE_REQUIRE(options.data_room >= RTE_PKTMBUF_HEADROOM &&
                     options.data_room <= UINT16_MAX / kBufferAlign * kBufferAlign,
                 "data_room must be from 128, the headroom, to 65472 bytes");
  // What DPDK checks too, but without saying why.
  BRIDGE_REQUIRE(
      options.cache_size <= RTE_MEMPOOL_CACHE_MAX_SIZE && options.cache_size * 3 / 2 <= options.count,
      "cache_size must be at most 512, and one and a half caches at most count");
  BRIDGE_REQUIRE(options.socket >= SOCKET_ID_ANY, "socket must be a socket's number, or -1 for any");
  return 0;
}

/// The buffers of a pool that is being made; frees them unless they are taken over.
class Buffers {
 public:
  Buffers(extmem_domain_t* domain, extmem_heap_t heap, extmem_tag_t tag) noexcept
      : domain_(domain), heap_(heap), tag_(tag) {}
  Buffers(const Buffers&) = delete;
  Buffers& operator=(const Buffers&) = delete;
  ~Buffers() {
    for (const Chunk& chunk : chunks_) (void)::extmem_object_free(domain_, chunk.base);
  }

  /// Allocates `count` buffers of `size` bytes in as few chunks as the heap allows: half as long while they do not fit.
  int allocate(std::uint32_t count, std::uint32_t size) {
    std::uint32_t most = static_cast<std::uint32_t>(std::max<std::size_t>(1, kLongestChunk / size));
    for (std::uint32_t left = count; left != 0;) {
      const std::uint32_t wanted = std::min(left, most);
      const int failed = allocate_chunk(wanted, size);
      if (failed == 0) {
        left -= wanted;
      } else if (failed == -ENOMEM && wanted > 1) {
        most = wanted / 2;
      } else {
        return failed;
      }
    }
    return 0;
  }
  [[nodiscard]] const std::vector<rte_pktmbuf_extmem>& described() const noexcept { return described_; }
  std::vector<Chunk> take_over() noexcept { return std::exchange(chunks_, {}); }

 private:
  /// One run of device addresses. Where no IOVA is known plain memory is one, too: of addresses that are taken for IOVAs, or
  /// (in PA mode) of unknown ones.
  int allocate_chunk(std::uint32_t count, std::uint32_t size) {
    const int failed = allocate_run(count, size, true);
    return failed == -ENOMEM ? allocate_run(count, size, false) : failed;
  }

  int allocate_run(std::uint32_t count, std::uint32_t size, bool by_iova) {
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    options.align = kBufferAlign;
    options.tag = tag_;
    options.iova_contiguous = by_iova;
    const std::size_t length = std::size_t{count} * size;
    chunks_.reserve(chunks_.size() + 1);
    void* base = nullptr;
    if (const int failed = ::extmem_heap_allocate(heap_, length, &options, &base); failed != 0)
      return fail_as_extmem(failed);
    chunks_.push_back({base, length});
    std::vector<Run> runs;
    BRIDGE_TRY(device_runs(domain_, base, length, runs));
    extmem_region_id_t id{};
    extmem_region_info_t region{};
    (void)::extmem_region_find(domain_, base, &id);
    if (const int failed = ::extmem_region_get_info(domain_, id, &region, sizeof region); failed != 0)
      return fail_as_extmem(failed);
    if (!region.cpu_accessible)
      return fail(ENOTSUP, "the CPU cannot reach the heap's memory, and packets are for it");
    if (runs.size() != 1) {  // partly with and partly without IOVAs, or of several runs of them
      chunks_.pop_back();
      (void)::extmem_object_free(domain_, base);
      return fail(ENOMEM, "no memory of the heap with consecutive device addresses is free for a buffer");
    }
    described_.push_back({base, runs.front().iova, length, static_cast<std::uint16_t>(size)});
    return 0;
  }

  extmem_domain_t* const domain_;
  const extmem_heap_t heap_;
  const extmem_tag_t tag_;
  std::vector<Chunk> chunks_;
  std::vector<rte_pktmbuf_extmem> described_;
};

}  // namespace

bool extmem::faces::dpdk_bridge::Pool::is_there() const noexcept {
  return ::rte_mempool_lookup(name.c_str()) == pool;
}

int extmem_dpdk_pktmbuf_pool_create(extmem_domain_t* domain, extmem_heap_t heap,
                                    const extmem_dpdk_pool_options_t* options, struct rte_mempool** pool) {
  BRIDGE_REQUIRE_DOMAIN(domain);
  BRIDGE_REQUIRE_HEAP(heap);
  BRIDGE_REQUIRE_OUT(pool);
  extmem_dpdk_pool_options_t wanted{};
  BRIDGE_TRY(check(options, wanted));
  BRIDGE_REQUIRE_EAL();
  return guarded([&] {
    std::uint32_t id = 0;
    BRIDGE_TRY(checked_heap(domain, heap, id));
    if (::rte_mempool_lookup(wanted.name) != nullptr)
      return fail(EEXIST, "DPDK has a mempool of the name '%s' already; take another name", wanted.name);
    char tag_name[EXTMEM_NAME_SIZE];
    (void)std::snprintf(tag_name, sizeof tag_name, "mbufs of %s", wanted.name);
    extmem_tag_t tag = EXTMEM_UNTAGGED;
    if (const int failed = ::extmem_tag_intern(domain, tag_name, &tag); failed != 0)
      return fail_as_extmem(failed);

    const std::uint32_t size = (wanted.data_room + kBufferAlign - 1) / kBufferAlign * kBufferAlign;
    Buffers buffers(domain, heap, tag);
    BRIDGE_TRY(buffers.allocate(wanted.count, size));
    const auto& described = buffers.described();
    std::list<Pool> entry(1);  // so that nothing can fail once DPDK has the pool
    entry.front().domain = domain;
    entry.front().name = wanted.name;
    rte_mempool* const made = ::rte_pktmbuf_pool_create_extbuf(
        wanted.name, wanted.count, wanted.cache_size, wanted.priv_size, static_cast<std::uint16_t>(size),
        wanted.socket, described.data(), static_cast<unsigned>(described.size()));
    if (made == nullptr) {
      const int why = rte_errno > 0 ? rte_errno : EIO;
      return fail(why, "DPDK could not make the pool '%s' of %u mbufs in its own memory: %s", wanted.name,
                  wanted.count, ::rte_strerror(why));
    }
    entry.front().pool = made;
    entry.front().chunks = buffers.take_over();
    const std::lock_guard lock(state().mutex);
    state().pools.splice(state().pools.begin(), entry);
    *pool = made;
    return 0;
  });
}

int extmem_dpdk_pktmbuf_pool_destroy(struct rte_mempool* pool, uint32_t* out) {
  BRIDGE_REQUIRE(pool != nullptr, "pool is NULL; pass what extmem_dpdk_pktmbuf_pool_create gave");
  BRIDGE_REQUIRE_EAL();
  std::list<Pool> gone;
  bool there = false;
  {
    const std::lock_guard lock(state().mutex);
    auto& pools = state().pools;
    const auto found = std::ranges::find_if(pools, [&](const Pool& p) { return p.pool == pool; });
    if (found == pools.end())
      return fail(ENOENT, "this is no pool that extmem_dpdk_pktmbuf_pool_create made, or it was destroyed");
    there = found->is_there();
    if (const unsigned in_use = there ? ::rte_mempool_in_use_count(pool) : 0; in_use != 0) {
      if (out != nullptr) *out = in_use;
      return fail(EBUSY, "%u mbufs are not back in the pool '%s'; stop the ports that use it, and free them",
                  in_use, pool->name);
    }
    gone.splice(gone.begin(), pools, found);
  }
  if (there) ::rte_mempool_free(pool);
  int result = 0;
  for (const Chunk& chunk : gone.front().chunks) {
    const int failed = ::extmem_object_free(gone.front().domain, chunk.base);
    if (failed != 0 && result == 0) result = fail_as_extmem(failed);
  }
  return result;
}
