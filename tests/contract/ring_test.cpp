// Rings through both faces, in a memzone, passing real objects.
#include "extmem/ring.hpp"

#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <vector>

#include "contract/memory.hpp"
#include "extmem/domain.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
namespace {

TEST(RingInMemzone, PassesObjects) {
  Memory memory(kMiB);
  auto domain = Domain::create();
  ASSERT_TRUE(domain);
  auto heap = domain->create_heap("messages");
  ASSERT_TRUE(heap);
  ASSERT_TRUE(domain->add_region(*heap, {.base = memory.base(), .length = memory.length()}));
  const std::size_t bytes = *Ring::bytes_for(RingKind::mpmc, 16);
  const auto zone = domain->reserve_memzone(*heap, "ring", bytes, {.align = kRingAlign});
  ASSERT_TRUE(zone) << zone.error().message();
  ASSERT_TRUE(Ring::create(zone->addr, zone->length, RingKind::mpmc, 16));
  const Ring ring = *Ring::attach(zone->addr, zone->length, 0);

  const auto sent = heap->allocate(100);
  ASSERT_TRUE(sent);
  std::strcpy(static_cast<char*>(*sent), "hello");
  const auto ptr = domain->to_region_ptr(*sent);
  ASSERT_TRUE(ptr);
  ASSERT_TRUE(ring.try_push(*ptr));
  const auto received = domain->from_region_ptr(*ring.try_pop());
  ASSERT_TRUE(received);
  EXPECT_STREQ(static_cast<const char*>(*received), "hello");
  EXPECT_TRUE(heap->deallocate(*received));
}

class CRing : public ::testing::TestWithParam<std::uint32_t> {
 protected:
  CRing() {
    std::size_t bytes = 0;
    EXPECT_EQ(extmem_ring_get_size(GetParam(), 4, &bytes), 0);
    EXPECT_LE(bytes, memory_.length());
    EXPECT_EQ(extmem_ring_create(memory_.base(), bytes, GetParam(), 4), 0) << extmem_last_error_message();
    EXPECT_EQ(extmem_ring_attach(memory_.base(), bytes, 1, &ring_), 0) << extmem_last_error_message();
    EXPECT_EQ(extmem_ring_attach(memory_.base(), bytes, 2, &other_), 0);
  }

  Memory memory_{kMiB};
  extmem_ring_t ring_{};
  extmem_ring_t other_{};
};
INSTANTIATE_TEST_SUITE_P(Kind, CRing, ::testing::Values(EXTMEM_RING_SPSC, EXTMEM_RING_MPMC));

TEST_P(CRing, PassesElements) {
  const std::array<extmem_region_ptr_t, 6> in{1, 2, 3, 4, 5, 6};
  std::array<extmem_region_ptr_t, 6> out{};
  std::size_t count = 0;
  EXPECT_EQ(extmem_ring_push(ring_, in.data(), in.size(), &count), 0);
  EXPECT_EQ(count, 4u);
  EXPECT_EQ(extmem_ring_push(ring_, in.data(), in.size(), &count), -EAGAIN);
  EXPECT_EQ(extmem_ring_get_count(ring_, &count), 0);
  EXPECT_EQ(count, 4u);
  EXPECT_EQ(extmem_ring_pop(ring_, out.data(), 2, &count), 0);
  EXPECT_EQ(count, 2u);
  EXPECT_EQ(out[1], 2u);
  extmem_ring_taken_t taken{};
  EXPECT_EQ(extmem_ring_take(ring_, &taken), 0);
  EXPECT_EQ(taken.ptr, 3u);
  EXPECT_EQ(taken.ticket, 2u);
  EXPECT_EQ(extmem_ring_settle(ring_, &taken), 0);
  EXPECT_LT(extmem_ring_settle(ring_, &taken), 0);
  EXPECT_EQ(extmem_ring_take_wait(ring_, &taken, UINT64_MAX, nullptr), 0);
  EXPECT_EQ(extmem_ring_settle(ring_, &taken), 0);
  EXPECT_EQ(extmem_ring_pop(ring_, out.data(), 2, &count), -EAGAIN);
  EXPECT_EQ(extmem_ring_push_wait(ring_, 9, 0, nullptr), 0);
  EXPECT_EQ(extmem_ring_pop_wait(ring_, out.data(), 0, nullptr), 0);
  EXPECT_EQ(out[0], 9u);
  EXPECT_EQ(extmem_ring_pop_wait(ring_, out.data(), 1000, nullptr), -ETIMEDOUT);
  EXPECT_EQ(extmem_ring_check(ring_), 0);
  EXPECT_EQ(extmem_ring_detach(ring_), 0);
}

TEST_P(CRing, RecoversAndWalks) {
  const std::array<extmem_region_ptr_t, 3> in{7, 8, 9};
  std::size_t count = 0;
  ASSERT_EQ(extmem_ring_push(ring_, in.data(), in.size(), &count), 0);
  extmem_ring_taken_t taken{};
  ASSERT_EQ(extmem_ring_take(other_, &taken), 0);
  std::vector<extmem_ring_entry_t> entries;
  const auto visit = [](const extmem_ring_entry_t* entry, void* arg) {
    static_cast<std::vector<extmem_ring_entry_t>*>(arg)->push_back(*entry);
    return entry->ptr == 8 ? 5 : 0;
  };
  EXPECT_EQ(extmem_ring_walk(ring_, visit, &entries), 5);
  ASSERT_EQ(entries.size(), 2u);
  EXPECT_TRUE(entries[0].taken);
  EXPECT_EQ(entries[0].participant, 2u);
  EXPECT_FALSE(entries[1].taken);

  std::vector<extmem_ring_orphan_t> orphans;
  extmem_ring_watch_t watch = EXTMEM_RING_WATCH_INIT;
  watch.arg = &orphans;
  extmem_ring_recovery_t recovery{};
  EXPECT_EQ(extmem_ring_recover(ring_, &watch, &recovery), -EINVAL);
  watch.is_dead = [](std::uint32_t participant, void*) { return participant == 2; };
  EXPECT_EQ(extmem_ring_recover(ring_, &watch, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_push_wait(ring_, 1, 0, &watch), -EINVAL);
  watch.on_orphan = [](const extmem_ring_orphan_t* orphan, void* arg) {
    static_cast<std::vector<extmem_ring_orphan_t>*>(arg)->push_back(*orphan);
  };
  EXPECT_EQ(extmem_ring_recover(ring_, &watch, &recovery), 0);
  EXPECT_EQ(recovery.orphans, 1u);
  EXPECT_EQ(recovery.roles, GetParam() == EXTMEM_RING_SPSC ? 1u : 0u);
  ASSERT_EQ(orphans.size(), 1u);
  EXPECT_EQ(orphans[0].ptr, 7u);
  EXPECT_EQ(orphans[0].participant, 2u);
  EXPECT_EQ(extmem_ring_settle(other_, &taken), -ESTALE);
  watch.struct_size = 8;
  EXPECT_EQ(extmem_ring_recover(ring_, &watch, &recovery), -EINVAL);
}

TEST_P(CRing, RefusesWhatIsMissing) {
  const extmem_ring_t none{};
  extmem_region_ptr_t ptr = 1;
  extmem_ring_taken_t taken{};
  std::size_t count = 0;
  const auto visit = [](const extmem_ring_entry_t*, void*) { return 0; };
  EXPECT_EQ(extmem_ring_get_size(GetParam(), 4, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_get_size(GetParam(), 5, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_get_size(9, 4, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_create(nullptr, 4096, GetParam(), 4), -EINVAL);
  EXPECT_EQ(extmem_ring_attach(memory_.base(), 4096, 1, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_push(ring_, nullptr, 1, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_push(ring_, &ptr, 1, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_push(ring_, &ptr, 0, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_push(none, &ptr, 1, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_pop(ring_, nullptr, 1, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_pop(ring_, &ptr, 1, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_pop(none, &ptr, 1, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_take(ring_, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_take(none, &taken), -EINVAL);
  EXPECT_EQ(extmem_ring_settle(ring_, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_settle(none, &taken), -EINVAL);
  EXPECT_EQ(extmem_ring_push_wait(ring_, 0, 0, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_pop_wait(ring_, nullptr, 0, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_take_wait(ring_, nullptr, 0, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_recover(ring_, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_walk(ring_, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_walk(none, visit, nullptr), -EINVAL);
  EXPECT_EQ(extmem_ring_check(none), -EINVAL);
  EXPECT_EQ(extmem_ring_detach(none), -EINVAL);
  EXPECT_EQ(extmem_ring_get_count(none, &count), -EINVAL);
  EXPECT_EQ(extmem_ring_get_count(ring_, nullptr), -EINVAL);
}

}  // namespace
}  // namespace extmem::test
