// The C interface's callbacks: visitors, listeners, progress, the heap map's writer.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <functional>
#include <string>
#include <vector>

#include "contract/memory.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
namespace {

class CCallbacks : public testing::Test {
 protected:
  CCallbacks() {
    EXPECT_EQ(extmem_domain_create(nullptr, &domain_), 0);
    EXPECT_EQ(extmem_heap_create(domain_, "c", nullptr, &heap_), 0);
    spec_.base = memory_.base();
    spec_.length = memory_.length();
    spec_.iova_source = EXTMEM_IOVA_IDENTITY;
    EXPECT_EQ(add(&region_), 0) << extmem_last_error_message();
    spec_.base = lent_.base();
  }
  ~CCallbacks() override {
    std::size_t breaches = 99;
    EXPECT_EQ(extmem_domain_verify(domain_, nullptr, nullptr, &breaches), 0);
    EXPECT_EQ(breaches, 0u);
    extmem_domain_close(domain_);
  }
  int add(extmem_region_id_t* region) { return extmem_region_add(domain_, heap_, &spec_, region); }

  Memory memory_{kMiB};
  Memory lent_{kMiB};
  extmem_domain_t* domain_ = nullptr;
  extmem_heap_t heap_{};
  extmem_region_spec_t spec_ = EXTMEM_REGION_SPEC_INIT;
  extmem_region_id_t region_{};
};

// ---- visitors ----------------------------------------------------------------------------------------------

/// Counts calls, and ends the walk with `answer` at call `stop_at`.
struct Counter {
  int calls = 0;
  int stop_at = -1;
  int answer = 0;
  template <typename T>
  static int visit(const T*, void* arg) {
    auto* self = static_cast<Counter*>(arg);
    return self->calls++ == self->stop_at ? self->answer : 0;
  }
};

TEST_F(CCallbacks, VisitorsEndAWalkWithTheirAnswer) {
  extmem_memzone_info_t zone;
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(extmem_memzone_reserve(domain_, heap_, name, 4096, nullptr, &zone, sizeof(zone)), 0);
  }
  extmem_region_id_t second{};
  ASSERT_EQ(add(&second), 0);
  struct {
    const char* what;
    int least;
    std::function<int(Counter&)> list;
  } const lists[] = {
      {"heaps", 2,
       [&](Counter& c) { return extmem_heap_list(domain_, Counter::visit<extmem_heap_info_t>, &c); }},
      {"regions", 2,
       [&](Counter& c) { return extmem_region_list(domain_, Counter::visit<extmem_region_info_t>, &c); }},
      {"memzones", 3,
       [&](Counter& c) { return extmem_memzone_list(domain_, Counter::visit<extmem_memzone_info_t>, &c); }},
      {"IOVA runs", 1,
       [&](Counter& c) {
         return extmem_region_list_iova_runs(domain_, region_, Counter::visit<extmem_iova_run_t>, &c);
       }},
      {"walk", 5,
       [&](Counter& c) { return extmem_heap_walk(heap_, nullptr, Counter::visit<extmem_walk_entry_t>, &c); }},
  };
  for (const auto& [what, least, list] : lists) {
    SCOPED_TRACE(what);
    Counter all;
    EXPECT_EQ(list(all), 0) << extmem_last_error_message();
    EXPECT_GE(all.calls, least);
    for (const int answer : {42, -EPERM}) {
      Counter stopped{0, least - 1, answer};
      EXPECT_EQ(list(stopped), answer);
      EXPECT_EQ(stopped.calls, least);
    }
  }
}

TEST_F(CCallbacks, WalkNamesMemzones) {
  extmem_memzone_info_t zone;
  ASSERT_EQ(extmem_memzone_reserve(domain_, heap_, "named", 4096, nullptr, &zone, sizeof(zone)), 0);
  std::string seen;
  const auto visit = [](const extmem_walk_entry_t* entry, void* arg) {
    EXPECT_EQ(entry->struct_size, sizeof(*entry));
    if (entry->kind == EXTMEM_WALK_MEMZONE) *static_cast<std::string*>(arg) += entry->name;
    return 0;
  };
  extmem_walk_options_t options = EXTMEM_WALK_OPTIONS_INIT;
  options.objects = true;  // a small memzone is an object of a slab
  ASSERT_EQ(extmem_heap_walk(heap_, &options, visit, &seen), 0);
  EXPECT_EQ(seen, "named");
}

TEST_F(CCallbacks, AllocatingInsideAWalkIsRefused) {
  int answer = 0;
  const auto visit = [](const extmem_walk_entry_t*, void* arg) {
    auto* self = static_cast<std::pair<extmem_heap_t, int*>*>(arg);
    void* p = nullptr;
    *self->second = extmem_heap_allocate(self->first, 300 * kKiB, nullptr, &p);
    return 1;
  };
  std::pair<extmem_heap_t, int*> arg(heap_, &answer);
  EXPECT_EQ(extmem_heap_walk(heap_, nullptr, visit, &arg), 1);
  EXPECT_EQ(answer, -EDEADLK) << extmem_last_error_message();
}

// ---- listeners ---------------------------------------------------------------------------------------------

struct Ear {
  std::vector<std::uint32_t> heard;
  int refuse_added = 0;
  int refuse_removing = 0;
  void* last_base = nullptr;
  static int listen(const extmem_region_event_t* event, void* arg) {
    auto* self = static_cast<Ear*>(arg);
    self->heard.push_back(event->kind);
    self->last_base = event->info.base;
    EXPECT_EQ(event->struct_size, sizeof(*event));
    return event->kind == EXTMEM_REGION_ADDED ? self->refuse_added : self->refuse_removing;
  }
};
constexpr std::uint32_t kAdded = EXTMEM_REGION_ADDED;
constexpr std::uint32_t kRemoving = EXTMEM_REGION_REMOVING;

TEST_F(CCallbacks, ListenersHearOfRegionsInOrder) {
  Ear first;
  Ear second;
  ASSERT_EQ(extmem_listener_add(domain_, Ear::listen, &first), 0) << extmem_last_error_message();
  ASSERT_EQ(extmem_listener_add(domain_, Ear::listen, &second), 0);
  EXPECT_EQ(extmem_listener_add(domain_, Ear::listen, &first), -EEXIST);
  extmem_region_id_t region{};
  ASSERT_EQ(add(&region), 0) << extmem_last_error_message();
  EXPECT_EQ(first.last_base, lent_.base());
  ASSERT_EQ(extmem_region_remove(domain_, region, nullptr, 0), 0) << extmem_last_error_message();
  EXPECT_THAT(first.heard, testing::ElementsAre(kAdded, kRemoving));
  EXPECT_THAT(second.heard, testing::ElementsAre(kAdded, kRemoving));
  ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, &first), 0) << extmem_last_error_message();
  EXPECT_EQ(extmem_listener_remove(domain_, Ear::listen, &first), -ENOENT);
  ASSERT_EQ(add(&region), 0);
  EXPECT_EQ(first.heard.size(), 2u) << "hears no more";
  EXPECT_EQ(second.heard.size(), 3u);
  ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, &second), 0);
}

TEST_F(CCallbacks, ARefusedAddChangesNothing) {
  for (const int answer : {EPERM, -EPERM}) {  // an errno value, of either sign
    Ear first;
    Ear second;
    second.refuse_added = answer;
    Ear third;
    for (Ear* ear : {&first, &second, &third}) ASSERT_EQ(extmem_listener_add(domain_, Ear::listen, ear), 0);
    extmem_region_id_t region{7, 7};
    EXPECT_EQ(add(&region), -EPERM);
    EXPECT_STRNE(extmem_last_error_message(), "");
    EXPECT_EQ(region.slot, 7u) << "results are written on success only";
    EXPECT_THAT(first.heard, testing::ElementsAre(kAdded, kRemoving));
    EXPECT_THAT(second.heard, testing::ElementsAre(kAdded));
    EXPECT_THAT(third.heard, testing::IsEmpty());
    EXPECT_EQ(extmem_region_find(domain_, lent_.base(), &region), -EFAULT);
    for (Ear* ear : {&first, &second, &third})
      ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, ear), 0);
  }
}

TEST_F(CCallbacks, ARefusedRemovalChangesNothing) {
  extmem_region_id_t region{};
  ASSERT_EQ(add(&region), 0);
  Ear first;
  Ear second;
  second.refuse_removing = EBUSY;
  for (Ear* ear : {&first, &second}) ASSERT_EQ(extmem_listener_add(domain_, Ear::listen, ear), 0);
  EXPECT_EQ(extmem_region_remove(domain_, region, nullptr, 0), -EBUSY);
  EXPECT_THAT(first.heard, testing::ElementsAre(kRemoving, kAdded));
  extmem_region_id_t found{};
  ASSERT_EQ(extmem_region_find(domain_, lent_.base(), &found), 0);
  extmem_alloc_options_t there = EXTMEM_ALLOC_OPTIONS_INIT;
  there.region = region;
  void* p = nullptr;
  EXPECT_EQ(extmem_heap_allocate(heap_, 64, &there, &p), 0) << "the region still serves";
  EXPECT_EQ(extmem_free(heap_, p), 0);
  second.refuse_removing = 0;
  EXPECT_EQ(extmem_region_remove(domain_, region, nullptr, 0), 0) << extmem_last_error_message();
  for (Ear* ear : {&first, &second}) ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, ear), 0);
}

TEST_F(CCallbacks, AddingRegionsInsideAListenerIsRefused) {
  struct Inside {
    extmem_domain_t* domain;
    extmem_region_id_t other;
    int answer = 0;
  } inside{domain_, region_};
  const auto listen = [](const extmem_region_event_t* event, void* arg) {
    auto* self = static_cast<Inside*>(arg);
    if (event->kind == EXTMEM_REGION_ADDED) {
      self->answer = extmem_region_remove(self->domain, self->other, nullptr, 0);
    }
    return 0;
  };
  ASSERT_EQ(extmem_listener_add(domain_, listen, &inside), 0);
  extmem_region_id_t region{};
  ASSERT_EQ(add(&region), 0) << extmem_last_error_message();
  EXPECT_EQ(inside.answer, -EDEADLK) << extmem_last_error_message();
  ASSERT_EQ(extmem_listener_remove(domain_, listen, &inside), 0);
}

TEST_F(CCallbacks, TooManyListenersAreRefused) {
  std::array<Ear, 1000> ears;
  std::size_t added = 0;
  int rc = 0;
  while (added < ears.size() && (rc = extmem_listener_add(domain_, Ear::listen, &ears[added])) == 0) ++added;
  EXPECT_EQ(rc, -ENOSPC);
  EXPECT_GE(added, 32u);
  for (std::size_t i = 0; i < added; ++i)
    ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, &ears[i]), 0);
  ASSERT_EQ(extmem_listener_add(domain_, Ear::listen, &ears[0]), 0) << "the places are free again";
  ASSERT_EQ(extmem_listener_remove(domain_, Ear::listen, &ears[0]), 0);
}

// ---- addresses, progress, map ------------------------------------------------------------------------------

TEST_F(CCallbacks, ScatterListsFillWhatThereIsRoomFor) {
  std::vector<extmem_iova_t> iovas(kMiB / kOsPage);
  for (std::size_t i = 0; i < iovas.size(); ++i) iovas[i] = 0x100000000 + i * 2 * kOsPage;  // no two adjacent
  spec_.iovas = iovas.data();
  spec_.n_iovas = iovas.size();
  spec_.iova_source = EXTMEM_IOVA_TABLE;
  extmem_region_id_t region{};
  ASSERT_EQ(add(&region), 0) << extmem_last_error_message();
  std::array<extmem_iova_run_t, 3> runs{};
  runs[2].length = 0xee;
  std::size_t count = 0;
  std::byte* start = lent_.base() + 100;
  ASSERT_EQ(extmem_iova_get_runs(domain_, start, 3 * kOsPage, runs.data(), 2, &count), 0);
  EXPECT_EQ(count, 4u) << "how many there are in all";
  EXPECT_EQ(runs[0].offset, 0u);
  EXPECT_EQ(runs[0].length, kOsPage - 100);
  EXPECT_EQ(runs[0].iova, iovas[0] + 100);
  EXPECT_EQ(runs[1].offset, kOsPage - 100);
  EXPECT_EQ(runs[1].length, kOsPage);
  EXPECT_EQ(runs[1].iova, iovas[1]);
  EXPECT_EQ(runs[2].length, 0xeeu) << "wrote beyond the array";
  void* back = nullptr;
  ASSERT_EQ(extmem_iova_to_address(domain_, iovas[5] + 7, &back), 0);
  EXPECT_EQ(back, lent_.base() + 5 * kOsPage + 7);
}

TEST_F(CCallbacks, ProgressIsToldAndCanCancel) {
  struct Progress {
    std::uint64_t done = 0;
    std::uint64_t total = 0;
    bool cancel = false;
  } seen;
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.length = 8 * kMiB;
  backing.prefault = true;
  backing.progress = [](std::uint64_t done, std::uint64_t total, void* arg) {
    auto* p = static_cast<Progress*>(arg);
    p->done = done;
    p->total = total;
    return p->cancel;
  };
  backing.progress_arg = &seen;
  extmem_region_id_t region{};
  ASSERT_EQ(extmem_region_add_backing(domain_, heap_, &backing, &region), 0) << extmem_last_error_message();
  EXPECT_EQ(seen.done, 8 * kMiB);
  EXPECT_EQ(seen.total, 8 * kMiB);
  seen.cancel = true;
  EXPECT_EQ(extmem_region_add_backing(domain_, heap_, &backing, &region), -ECANCELED);
}

TEST_F(CCallbacks, DrawsTheHeapMap) {
  const auto write = [](const char* text, std::size_t length, void* arg) {
    static_cast<std::string*>(arg)->append(text, length);
    return 0;
  };
  std::string text;
  ASSERT_EQ(extmem_domain_write_map(domain_, nullptr, write, &text), 0) << extmem_last_error_message();
  EXPECT_NE(text.find("extmem heap map"), std::string::npos);
  extmem_map_options_t options = EXTMEM_MAP_OPTIONS_INIT;
  options.format = EXTMEM_MAP_SVG;
  options.title = "a title of ours";
  options.heap = heap_;
  std::string svg;
  ASSERT_EQ(extmem_domain_write_map(domain_, &options, write, &svg), 0) << extmem_last_error_message();
  EXPECT_NE(svg.find("<svg"), std::string::npos);
  EXPECT_NE(svg.find("a title of ours"), std::string::npos);
  options.format = 2;
  EXPECT_EQ(extmem_domain_write_map(domain_, &options, write, &svg), -EINVAL);
  const auto stop = [](const char*, std::size_t, void*) { return 17; };
  EXPECT_EQ(extmem_domain_write_map(domain_, nullptr, stop, nullptr), 17);
}

TEST_F(CCallbacks, DrainsWithTheLongestTimeout) {
  EXPECT_EQ(extmem_region_drain(domain_, region_, UINT64_MAX, nullptr, 0), 0) << extmem_last_error_message();
  EXPECT_EQ(extmem_region_remove(domain_, region_, nullptr, 0), 0) << extmem_last_error_message();
}

}  // namespace
}  // namespace extmem::test
