// What is the C interface's own: NULL arguments, struct sizes, last errors, visitors, listeners.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "contract/memory.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
namespace {

class CApi : public testing::Test {
 protected:
  CApi() {
    EXPECT_EQ(extmem_domain_create(nullptr, &domain_), 0) << extmem_last_error_message();
    EXPECT_EQ(extmem_heap_create(domain_, "c", nullptr, &heap_), 0) << extmem_last_error_message();
    EXPECT_EQ(extmem_tag_intern(domain_, "tag", &tag_), 0);
    spec_.base = memory_.base();
    spec_.length = memory_.length();
    spec_.iova_source = EXTMEM_IOVA_IDENTITY;
    EXPECT_EQ(extmem_region_add(domain_, heap_, &spec_, &region_), 0) << extmem_last_error_message();
    p_ = extmem_malloc(heap_, 100);
    EXPECT_NE(p_, nullptr);
  }
  ~CApi() override {
    std::size_t breaches = 99;
    EXPECT_EQ(extmem_domain_verify(domain_, nullptr, nullptr, &breaches), 0);
    EXPECT_EQ(breaches, 0u);
    EXPECT_EQ(extmem_domain_close(domain_), 0);
  }

  Memory memory_{kMiB};
  Memory lent_{kMiB};
  extmem_domain_t* domain_ = nullptr;
  extmem_heap_t heap_{};
  extmem_tag_t tag_ = 0;
  extmem_region_spec_t spec_ = EXTMEM_REGION_SPEC_INIT;
  extmem_region_id_t region_{};
  void* p_ = nullptr;
};

void expect_message(int rc, int expected) {
  EXPECT_EQ(rc, expected);
  EXPECT_EQ(extmem_last_error(), expected);
  EXPECT_STRNE(extmem_last_error_message(), "");
  EXPECT_STRNE(extmem_last_error_message(), "no error");
}

TEST_F(CApi, RefusesNullArgumentsEverywhere) {
  extmem_domain_t* const none = nullptr;
  extmem_domain_t* d = domain_;
  const extmem_heap_t empty{};
  const extmem_heap_t h = heap_;
  const extmem_region_id_t r = region_;
  extmem_heap_t heap{};
  extmem_region_id_t region{};
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  extmem_object_info_t object;
  extmem_heap_stats_t stats;
  extmem_region_info_t info;
  extmem_memzone_info_t zone;
  extmem_holder_report_t report;
  std::size_t n = 0;
  std::uint32_t id = 0;
  std::uint64_t u64 = 0;
  extmem_tag_t tag = 0;
  bool yes = false;
  void* p = p_;
  const char* name = nullptr;
  const auto heap_visit = [](const extmem_heap_info_t*, void*) { return 0; };
  const auto region_visit = [](const extmem_region_info_t*, void*) { return 0; };
  const auto run_visit = [](const extmem_iova_run_t*, void*) { return 0; };
  const auto zone_visit = [](const extmem_memzone_info_t*, void*) { return 0; };
  const auto participant_visit = [](const extmem_participant_info_t*, void*) { return 0; };
  extmem_recovery_report_t recovery;
  extmem_region_file_t file{};
  extmem_heap_info_t heap_info{};
  extmem_domain_t* opened = nullptr;
  const auto walk_visit = [](const extmem_walk_entry_t*, void*) { return 0; };
  const auto listener = [](const extmem_region_event_t*, void*) { return 0; };
  const auto write = [](const char*, std::size_t, void*) { return 0; };

  const std::vector<std::function<int()>> calls = {
      [&] { return extmem_domain_create(nullptr, nullptr); },
      [&] { return extmem_domain_close(nullptr); },
      [&] { return extmem_domain_verify(none, nullptr, nullptr, &n); },
      [&] { return extmem_domain_verify(d, nullptr, nullptr, nullptr); },
      [&] { return extmem_domain_get_metadata_bytes(none, &u64); },
      [&] { return extmem_domain_get_metadata_bytes(d, nullptr); },
      [&] { return extmem_domain_write_map(none, nullptr, write, nullptr); },
      [&] { return extmem_domain_write_map(d, nullptr, nullptr, nullptr); },
      [&] { return extmem_tag_intern(none, "x", &tag); },
      [&] { return extmem_tag_intern(d, nullptr, &tag); },
      [&] { return extmem_tag_intern(d, "x", nullptr); },
      [&] { return extmem_tag_get_name(none, 0, &name); },
      [&] { return extmem_tag_get_name(d, 0, nullptr); },
      [&] { return extmem_heap_create(none, "x", nullptr, &heap); },
      [&] { return extmem_heap_create(d, nullptr, nullptr, &heap); },
      [&] { return extmem_heap_create(d, "x", nullptr, nullptr); },
      [&] { return extmem_heap_find(none, "c", &heap); },
      [&] { return extmem_heap_find(d, nullptr, &heap); },
      [&] { return extmem_heap_find(d, "c", nullptr); },
      [&] { return extmem_heap_find_by_id(none, 0, &heap); },
      [&] { return extmem_heap_find_by_id(d, 0, nullptr); },
      [&] { return extmem_heap_find_by_node(none, 0, &heap); },
      [&] { return extmem_heap_find_by_node(d, 0, nullptr); },
      [&] { return extmem_heap_destroy(none, h, nullptr, 0); },
      [&] { return extmem_heap_destroy(d, empty, nullptr, 0); },
      [&] { return extmem_heap_destroy(d, h, &report, 0); },
      [&] { return extmem_heap_list(none, heap_visit, nullptr); },
      [&] { return extmem_heap_list(d, nullptr, nullptr); },
      [&] { return extmem_heap_get_id(empty, &id); },
      [&] { return extmem_heap_get_id(h, nullptr); },
      [&] { return extmem_heap_get_name(empty, &name); },
      [&] { return extmem_heap_get_name(h, nullptr); },
      [&] { return extmem_malloc(empty, 64) == nullptr ? extmem_last_error() : 0; },
      [&] { return extmem_free(empty, p); },
      [&] { return extmem_heap_allocate(empty, 64, nullptr, &p); },
      [&] { return extmem_heap_allocate(h, 64, nullptr, nullptr); },
      [&] { return extmem_heap_zalloc(empty, 64, nullptr, &p); },
      [&] { return extmem_heap_zalloc(h, 64, nullptr, nullptr); },
      [&] { return extmem_heap_calloc(empty, 1, 64, nullptr, &p); },
      [&] { return extmem_heap_calloc(h, 1, 64, nullptr, nullptr); },
      [&] { return extmem_heap_reallocate(empty, 64, nullptr, &p); },
      [&] { return extmem_heap_reallocate(h, 64, nullptr, nullptr); },
      [&] { return extmem_heap_allocate_batch(empty, 64, 1, nullptr, &p); },
      [&] { return extmem_heap_allocate_batch(h, 64, 1, nullptr, nullptr); },
      [&] { return extmem_heap_deallocate_batch(empty, 1, &p, nullptr); },
      [&] { return extmem_heap_deallocate_batch(h, 1, nullptr, nullptr); },
      [&] { return extmem_heap_get_usable_size(empty, p, &n); },
      [&] { return extmem_heap_get_usable_size(h, p, nullptr); },
      [&] { return extmem_heap_find_owner(empty, p, &object, sizeof(object)); },
      [&] { return extmem_heap_find_owner(h, p, nullptr, 0); },
      [&] { return extmem_heap_find_owner(h, p, &object, 0); },
      [&] { return extmem_object_free(none, p); },
      [&] { return extmem_object_get_usable_size(none, p, &n); },
      [&] { return extmem_object_get_usable_size(d, p, nullptr); },
      [&] { return extmem_object_find_owner(none, p, &object, sizeof(object)); },
      [&] { return extmem_object_find_owner(d, p, nullptr, 0); },
      [&] { return extmem_heap_get_stats(empty, &stats, sizeof(stats)); },
      [&] { return extmem_heap_get_stats(h, nullptr, sizeof(stats)); },
      [&] { return extmem_heap_get_stats(h, &stats, 4); },
      [&] { return extmem_heap_get_tag_stats(empty, nullptr, 0, &n); },
      [&] { return extmem_heap_get_holders(empty, &report, sizeof report); },
      [&] { return extmem_heap_get_holders(h, nullptr, sizeof report); },
      [&] { return extmem_heap_get_tag_stats(h, nullptr, 1, &n); },
      [&] { return extmem_heap_get_tag_stats(h, nullptr, 0, nullptr); },
      [&] { return extmem_heap_walk(empty, nullptr, walk_visit, nullptr); },
      [&] { return extmem_heap_walk(h, nullptr, nullptr, nullptr); },
      [&] { return extmem_heap_verify(empty, nullptr, nullptr, &n); },
      [&] { return extmem_heap_verify(h, nullptr, nullptr, nullptr); },
      [&] { return extmem_heap_flush(empty); },
      [&] { return extmem_region_add(none, h, &spec_, &region); },
      [&] { return extmem_region_add(d, empty, &spec_, &region); },
      [&] { return extmem_region_add(d, h, nullptr, &region); },
      [&] { return extmem_region_add(d, h, &spec_, nullptr); },
      [&] { return extmem_region_add_backing(none, h, &backing, &region); },
      [&] { return extmem_region_add_backing(d, empty, &backing, &region); },
      [&] { return extmem_region_add_backing(d, h, nullptr, &region); },
      [&] { return extmem_region_add_backing(d, h, &backing, nullptr); },
      [&] { return extmem_region_remove(none, r, nullptr, 0); },
      [&] { return extmem_region_remove(d, r, &report, 7); },
      [&] { return extmem_region_drain(none, r, 0, nullptr, 0); },
      [&] { return extmem_region_drain(d, r, 0, &report, 7); },
      [&] { return extmem_region_undrain(none, r); },
      [&] { return extmem_region_get_info(none, r, &info, sizeof(info)); },
      [&] { return extmem_region_get_info(d, r, nullptr, sizeof(info)); },
      [&] { return extmem_region_find(none, p, &region); },
      [&] { return extmem_region_find(d, p, nullptr); },
      [&] { return extmem_region_list(none, region_visit, nullptr); },
      [&] { return extmem_region_list(d, nullptr, nullptr); },
      [&] { return extmem_region_list_iova_runs(none, r, run_visit, nullptr); },
      [&] { return extmem_region_list_iova_runs(d, r, nullptr, nullptr); },
      [&] { return extmem_listener_add(none, listener, nullptr); },
      [&] { return extmem_listener_add(d, nullptr, nullptr); },
      [&] { return extmem_listener_remove(none, listener, nullptr); },
      [&] { return extmem_listener_remove(d, nullptr, nullptr); },
      [&] { return extmem_iova_of_address(none, p, &u64); },
      [&] { return extmem_iova_of_address(d, p, nullptr); },
      [&] { return extmem_iova_to_address(none, 0, &p); },
      [&] { return extmem_iova_to_address(d, 0, nullptr); },
      [&] { return extmem_iova_is_contiguous(none, p, 1, &yes); },
      [&] { return extmem_iova_is_contiguous(d, p, 1, nullptr); },
      [&] { return extmem_iova_get_runs(none, p, 1, nullptr, 0, &n); },
      [&] { return extmem_iova_get_runs(d, p, 1, nullptr, 1, &n); },
      [&] { return extmem_iova_get_runs(d, p, 1, nullptr, 0, nullptr); },
      [&] { return extmem_region_ptr_of_address(none, p, &u64); },
      [&] { return extmem_region_ptr_of_address(d, p, nullptr); },
      [&] { return extmem_region_ptr_to_address(none, 1, &p); },
      [&] { return extmem_region_ptr_to_address(d, 1, nullptr); },
      [&] { return extmem_memzone_reserve(none, h, "x", 64, nullptr, &zone, sizeof(zone)); },
      [&] { return extmem_memzone_reserve(d, empty, "x", 64, nullptr, &zone, sizeof(zone)); },
      [&] { return extmem_memzone_reserve(d, h, nullptr, 64, nullptr, &zone, sizeof(zone)); },
      [&] { return extmem_memzone_reserve(d, h, "x", 64, nullptr, nullptr, sizeof(zone)); },
      [&] { return extmem_memzone_reserve(d, h, "x", 64, nullptr, &zone, 0); },
      [&] { return extmem_memzone_find(none, "x", &zone, sizeof(zone)); },
      [&] { return extmem_memzone_find(d, nullptr, &zone, sizeof(zone)); },
      [&] { return extmem_memzone_find(d, "x", nullptr, sizeof(zone)); },
      [&] { return extmem_memzone_free(none, "x"); },
      [&] { return extmem_memzone_free(d, nullptr); },
      [&] { return extmem_memzone_list(none, zone_visit, nullptr); },
      [&] { return extmem_memzone_list(d, nullptr, nullptr); },
      [&] { return extmem_memzone_get_count(none, &n); },
      [&] { return extmem_memzone_get_count(d, nullptr); },
      [&] { return extmem_domain_open(nullptr, nullptr, &opened); },
      [&] { return extmem_domain_open("x", nullptr, nullptr); },
      [&] { return extmem_domain_remove(nullptr, nullptr); },
      [&] { return extmem_domain_list(nullptr, nullptr, nullptr); },
      [&] { return extmem_domain_is_named(none, &yes); },
      [&] { return extmem_domain_is_named(d, nullptr); },
      [&] { return extmem_domain_get_participant(none, &id); },
      [&] { return extmem_domain_get_participant(d, nullptr); },
      [&] { return extmem_participant_walk(none, participant_visit, nullptr); },
      [&] { return extmem_participant_walk(d, nullptr, nullptr); },
      [&] { return extmem_domain_recover(none, nullptr, 0); },
      [&] { return extmem_domain_recover(d, &recovery, 7); },
      [&] { return extmem_domain_poll(none); },
      [&] { return extmem_object_hand_over(none, p, 1); },
      [&] { return extmem_region_attach(none, r, lent_.base()); },
      [&] { return extmem_region_attach(d, r, nullptr); },
      [&] { return extmem_region_attach_file(none, r, 0, 0); },
      [&] { return extmem_region_get_file(none, r, &file, sizeof file); },
      [&] { return extmem_region_get_file(d, r, nullptr, sizeof file); },
      [&] { return extmem_region_get_file(d, r, &file, 7); },
      [&] { return extmem_heap_get_info(extmem_heap_t{}, &heap_info, sizeof heap_info); },
      [&] { return extmem_heap_get_info(heap_, nullptr, sizeof heap_info); },
      [&] { return extmem_heap_get_info(heap_, &heap_info, 7); },
  };
  for (std::size_t i = 0; i < calls.size(); ++i) {
    SCOPED_TRACE("call " + std::to_string(i));
    expect_message(calls[i](), -EINVAL);
  }
  EXPECT_EQ(p, p_);
  ASSERT_EQ(extmem_memzone_get_count(d, &n), 0);
  EXPECT_EQ(n, 0u);
  EXPECT_EQ(extmem_heap_find(d, "x", &heap), -ENOENT);
}

TEST_F(CApi, NamesTheHoldersOfAHeap) {
  extmem_alloc_options_t tagged = EXTMEM_ALLOC_OPTIONS_INIT;
  tagged.tag = tag_;
  void* q = nullptr;
  ASSERT_EQ(extmem_heap_allocate(heap_, 1000, &tagged, &q), 0) << extmem_last_error_message();
  extmem_memzone_info_t zone;
  ASSERT_EQ(extmem_memzone_reserve(domain_, heap_, "zone", 5000, nullptr, &zone, sizeof zone), 0)
      << extmem_last_error_message();
  extmem_holder_report_t report;
  ASSERT_EQ(extmem_heap_get_holders(heap_, &report, sizeof report), 0) << extmem_last_error_message();
  ASSERT_EQ(report.count, 3u);
  EXPECT_EQ(report.total_count, 3u);
  std::string seen;
  for (std::size_t i = 0; i < report.count; ++i) {
    EXPECT_EQ(report.holders[i].count, 1u);
    EXPECT_EQ(report.holders[i].pid, 0u) << "a private domain's";
    seen += report.holders[i].memzone ? "[zone]" : "[" + std::string(report.holders[i].tag) + "]";
  }
  EXPECT_THAT(seen, testing::AllOf(testing::HasSubstr("[zone]"), testing::HasSubstr("[tag]"),
                                   testing::HasSubstr("[]")));
  expect_message(extmem_heap_get_holders(heap_, nullptr, sizeof report), -EINVAL);
  expect_message(extmem_heap_get_holders(heap_, &report, 3), -EINVAL);
  ASSERT_EQ(extmem_memzone_free(domain_, "zone"), 0);
  ASSERT_EQ(extmem_free(heap_, q), 0);
}

TEST_F(CApi, NullWithLengthZeroIsAnEmptyArray) {
  std::size_t count = 99;
  EXPECT_EQ(extmem_heap_allocate_batch(heap_, 64, 0, nullptr, nullptr), 0);
  EXPECT_EQ(extmem_heap_deallocate_batch(heap_, 0, nullptr, nullptr), 0);
  EXPECT_EQ(extmem_heap_get_tag_stats(heap_, nullptr, 0, &count), 0);
  EXPECT_EQ(extmem_iova_get_runs(domain_, p_, 100, nullptr, 0, &count), 0);
  EXPECT_EQ(count, 1u);
}

// ---- struct sizes ------------------------------------------------------------------------------------------

template <typename Options>
struct Grown {  // what a program sees that was compiled with a newer header
  Options options;
  std::uint64_t newer[3];
};

TEST_F(CApi, OptionsOfNewerProgramsAreTakenWhileTheyAskForNothingNew) {
  Grown<extmem_alloc_options_t> grown{EXTMEM_ALLOC_OPTIONS_INIT, {0, 0, 0}};
  grown.options.struct_size = sizeof(grown);
  grown.options.align = 512;
  void* p = nullptr;
  ASSERT_EQ(extmem_heap_allocate(heap_, 64, &grown.options, &p), 0) << extmem_last_error_message();
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 512, 0u);
  EXPECT_EQ(extmem_free(heap_, p), 0);
  grown.newer[2] = 1;
  expect_message(extmem_heap_allocate(heap_, 64, &grown.options, &p), -E2BIG);
}

TEST_F(CApi, RefusesWrongStructSizesAndReservedMembers) {
  void* p = nullptr;
  for (const std::size_t size : {std::size_t{0}, std::size_t{8}, sizeof(extmem_alloc_options_t) - 1}) {
    extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
    options.struct_size = size;
    expect_message(extmem_heap_allocate(heap_, 64, &options, &p), -EINVAL);
  }
  extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
  options.reserved[3] = 1;
  expect_message(extmem_heap_allocate(heap_, 64, &options, &p), -EINVAL);
  extmem_domain_t* domain = nullptr;
  extmem_domain_options_t domain_options = EXTMEM_DOMAIN_OPTIONS_INIT;
  domain_options.reserved = 1;
  expect_message(extmem_domain_create(&domain_options, &domain), -EINVAL);
  extmem_region_spec_t spec = spec_;
  extmem_region_id_t region{};
  spec.struct_size = 0;
  expect_message(extmem_region_add(domain_, heap_, &spec, &region), -EINVAL);
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.reserved[0] = 1;
  expect_message(extmem_region_add_backing(domain_, heap_, &backing, &region), -EINVAL);
  extmem_walk_options_t walk = EXTMEM_WALK_OPTIONS_INIT;
  walk.struct_size = 1;
  const auto visit = [](const extmem_walk_entry_t*, void*) { return 0; };
  expect_message(extmem_heap_walk(heap_, &walk, visit, nullptr), -EINVAL);
}

TEST_F(CApi, RefusesValuesThatAreInNoEnum) {
  void* p = nullptr;
  extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
  options.placement = 3;
  expect_message(extmem_heap_allocate(heap_, 64, &options, &p), -EINVAL);
  extmem_heap_t heap{};
  extmem_heap_options_t heap_options = EXTMEM_HEAP_OPTIONS_INIT;
  heap_options.style = 2;
  expect_message(extmem_heap_create(domain_, "x", &heap_options, &heap), -EINVAL);
  extmem_region_id_t region{};
  extmem_region_spec_t spec = spec_;
  spec.iova_source = 77;
  expect_message(extmem_region_add(domain_, heap_, &spec, &region), -EINVAL);
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.length = kMiB;
  backing.kind = 8;
  expect_message(extmem_region_add_backing(domain_, heap_, &backing, &region), -EINVAL);
  backing.kind = EXTMEM_BACKING_ANONYMOUS;
  backing.fallback = 3;
  expect_message(extmem_region_add_backing(domain_, heap_, &backing, &region), -EINVAL);
}

TEST_F(CApi, RefusesContradictions) {
  extmem_heap_t heap{};
  extmem_heap_options_t options = EXTMEM_HEAP_OPTIONS_INIT;
  options.growth_step = kMiB;
  expect_message(extmem_heap_create(domain_, "x", &options, &heap), -EINVAL);  // from which backing?
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  options.growth = &backing;
  options.growth_step = 0;
  expect_message(extmem_heap_create(domain_, "x", &options, &heap), -EINVAL);  // by how much?
  options.growth_step = kMiB;
  backing.path = "/tmp/x";
  expect_message(extmem_heap_create(domain_, "x", &options, &heap), -EINVAL);
  backing.path = nullptr;
  backing.progress = [](std::uint64_t, std::uint64_t, void*) { return false; };
  expect_message(extmem_heap_create(domain_, "x", &options, &heap), -EINVAL);
  extmem_region_id_t region{};
  extmem_region_spec_t spec = spec_;
  spec.n_iovas = 256;  // of which table?
  expect_message(extmem_region_add(domain_, heap_, &spec, &region), -EINVAL);
}

TEST_F(CApi, ReportsHaveTheSizeThatTheCallerKnows) {
  // An older program's report is smaller: not a byte beyond it is written.
  std::array<unsigned char, sizeof(extmem_heap_stats_t)> bytes;
  bytes.fill(0xee);
  const std::size_t older = 3 * sizeof(std::uint64_t);
  auto* small = reinterpret_cast<extmem_heap_stats_t*>(bytes.data());
  ASSERT_EQ(extmem_heap_get_stats(heap_, small, older), 0) << extmem_last_error_message();
  extmem_heap_stats_t stats;
  ASSERT_EQ(extmem_heap_get_stats(heap_, &stats, sizeof(stats)), 0);
  std::uint64_t words[3];
  std::memcpy(words, bytes.data(), sizeof(words));
  EXPECT_EQ(words[0], older) << "struct_size says how much was written";
  EXPECT_EQ(words[1], stats.total_bytes);
  EXPECT_EQ(words[2], stats.used_bytes);
  for (std::size_t i = older; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xee) << i;
  EXPECT_EQ(stats.struct_size, sizeof(stats));

  // A newer program's is larger: what this library does not know is zero.
  Grown<extmem_region_info_t> grown;
  std::memset(&grown, 0xee, sizeof(grown));
  ASSERT_EQ(extmem_region_get_info(domain_, region_, &grown.options, sizeof(grown)), 0);
  EXPECT_EQ(grown.options.struct_size, sizeof(extmem_region_info_t));
  EXPECT_EQ(grown.options.base, memory_.base());
  for (const std::uint64_t word : grown.newer) EXPECT_EQ(word, 0u);
}

// ---- errors ------------------------------------------------------------------------------------------------

TEST_F(CApi, LastErrorIsThisThreadsAndSuccessKeepsIt) {
  EXPECT_EQ(extmem_malloc(heap_, 0), nullptr);
  EXPECT_EQ(extmem_last_error(), -EINVAL);
  const std::string message = extmem_last_error_message();
  std::thread([&] {
    EXPECT_EQ(extmem_last_error(), 0);
    EXPECT_STREQ(extmem_last_error_message(), "no error");
    EXPECT_EQ(extmem_free(heap_, &domain_), -EFAULT);
    EXPECT_EQ(extmem_last_error(), -EFAULT);
  }).join();
  EXPECT_EQ(extmem_last_error(), -EINVAL);
  void* p = extmem_malloc(heap_, 64);
  EXPECT_NE(p, nullptr);
  EXPECT_EQ(extmem_free(heap_, p), 0);
  EXPECT_EQ(extmem_free(heap_, nullptr), 0);
  EXPECT_EQ(extmem_last_error_message(), message);
}

TEST_F(CApi, LeavesErrnoAlone) {
  errno = 4711;
  EXPECT_EQ(extmem_malloc(heap_, SIZE_MAX), nullptr);
  EXPECT_LT(extmem_free(heap_, &domain_), 0);
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.length = std::size_t{1} << 47;
  extmem_region_id_t region{};
  EXPECT_LT(extmem_region_add_backing(domain_, heap_, &backing, &region), 0);
  EXPECT_EQ(errno, 4711);
}

TEST_F(CApi, TellsItsVersion) { EXPECT_STREQ(extmem_version(), EXTMEM_VERSION_STRING); }

TEST_F(CApi, TellsNamesAndIds) {
  const char* name = nullptr;
  std::uint32_t id = 0;
  ASSERT_EQ(extmem_heap_get_name(heap_, &name), 0);
  EXPECT_STREQ(name, "c");
  ASSERT_EQ(extmem_heap_get_id(heap_, &id), 0);
  extmem_heap_t again{};
  ASSERT_EQ(extmem_heap_find_by_id(domain_, id, &again), 0);
  EXPECT_EQ(std::memcmp(&again, &heap_, sizeof(again)), 0) << "handles of one heap are equal bytes";
  ASSERT_EQ(extmem_tag_get_name(domain_, EXTMEM_UNTAGGED, &name), 0) << extmem_last_error_message();
  EXPECT_STREQ(name, "");
  std::uint64_t bytes = 0;
  ASSERT_EQ(extmem_domain_get_metadata_bytes(domain_, &bytes), 0);
  EXPECT_GT(bytes, 0u);
}

}  // namespace
}  // namespace extmem::test
