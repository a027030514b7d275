// The inspector's C functions: the same answers as the C++ class gives (tests/contract/inspector_test.cpp), by C's conventions.
#include <gtest/gtest.h>

#include <cerrno>
#include <string>
#include <vector>

#include "contract/runtime_directory.hpp"
#include "contract/segment_tables.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
namespace {

class CInspector : public testing::Test {
 protected:
  CInspector() {
    extmem_open_options_t options = EXTMEM_OPEN_OPTIONS_INIT;
    options.directory = directory_.c_str();
    EXPECT_EQ(extmem_domain_open("d", &options, &domain_), 0) << extmem_last_error();
    EXPECT_EQ(extmem_heap_create(domain_, "h", nullptr, &heap_), 0);
    EXPECT_EQ(extmem_heap_get_id(heap_, &id_), 0);
    extmem_backing_spec_t spec = EXTMEM_BACKING_SPEC_INIT;
    spec.kind = EXTMEM_BACKING_MEMFD;
    spec.length = 4 << 20;
    extmem_region_id_t region;
    EXPECT_EQ(extmem_region_add_backing(domain_, heap_, &spec, &region), 0) << extmem_last_error();
    extmem_tag_t tag = 0;
    EXPECT_EQ(extmem_tag_intern(domain_, "tag", &tag), 0);
    extmem_memzone_info_t zone;
    EXPECT_EQ(extmem_memzone_reserve(domain_, heap_, "zone", 1000, nullptr, &zone, sizeof zone), 0);
    void* p = nullptr;
    EXPECT_EQ(extmem_heap_allocate(heap_, 100, nullptr, &p), 0);
    EXPECT_EQ(extmem_inspector_open("d", directory_.c_str(), &inspector_), 0) << extmem_last_error();
  }
  ~CInspector() override {
    EXPECT_EQ(extmem_inspector_close(inspector_), 0);
    EXPECT_EQ(extmem_domain_close(domain_), 0);
  }

  RuntimeDirectory directory_;
  extmem_domain_t* domain_ = nullptr;
  extmem_heap_t heap_{};
  std::uint32_t id_ = 0;
  extmem_inspector_t* inspector_ = nullptr;
};

template <typename Info>
int count(const Info*, void* arg) {
  ++*static_cast<int*>(arg);
  return 0;
}
template <typename Info>
int stop(const Info*, void*) {
  return 77;
}

TEST_F(CInspector, SeesWhatThereIs) {
  int heaps = 0, regions = 0, participants = 0, zones = 0, entries = 0;
  EXPECT_EQ(extmem_inspector_walk_heaps(inspector_, count<extmem_heap_info_t>, &heaps), 0);
  EXPECT_GE(heaps, 2);
  EXPECT_EQ(extmem_inspector_walk_regions(inspector_, count<extmem_region_info_t>, &regions), 0);
  EXPECT_EQ(regions, 1);
  EXPECT_EQ(extmem_inspector_walk_participants(inspector_, count<extmem_participant_info_t>, &participants),
            0);
  EXPECT_EQ(participants, 1);
  EXPECT_EQ(extmem_inspector_walk_memzones(inspector_, count<extmem_memzone_info_t>, &zones), 0);
  EXPECT_EQ(zones, 1);
  extmem_region_id_t first{1, 0};
  EXPECT_EQ(extmem_inspector_walk_regions(
                inspector_,
                [](const extmem_region_info_t* info, void* arg) {
                  *static_cast<extmem_region_id_t*>(arg) = info->id;
                  return 0;
                },
                &first),
            0);
  int runs = 0;
  EXPECT_EQ(extmem_inspector_walk_iova_runs(inspector_, first, count<extmem_iova_run_t>, &runs), 0);
  EXPECT_GE(runs, 1);
  EXPECT_EQ(extmem_inspector_walk_iova_runs(inspector_, {60, 1}, count<extmem_iova_run_t>, &runs), -ENOENT);
  std::string tags;
  EXPECT_EQ(extmem_inspector_walk_tags(
                inspector_,
                [](extmem_tag_t, const char* name, void* arg) {
                  *static_cast<std::string*>(arg) += name;
                  return 0;
                },
                &tags),
            0);
  EXPECT_EQ(tags, "tag");
  EXPECT_EQ(
      extmem_inspector_walk_heap(inspector_, id_, nullptr, count<extmem_walk_entry_t>, &entries, nullptr), 0);
  EXPECT_GT(entries, 2);

  extmem_heap_stats_t seen, own;
  bool stable = false;
  EXPECT_EQ(extmem_inspector_get_stats(inspector_, id_, &seen, sizeof seen, &stable), 0);
  EXPECT_TRUE(stable);
  EXPECT_EQ(extmem_heap_get_stats(heap_, &own, sizeof own), 0);
  EXPECT_EQ(seen.used_bytes, own.used_bytes);
  EXPECT_EQ(seen.used_count, own.used_count);
  extmem_tag_stats_t by_tag[4];
  std::size_t n = 0;
  EXPECT_EQ(extmem_inspector_get_tag_stats(inspector_, id_, by_tag, 4, &n, nullptr), 0);
  EXPECT_EQ(n, 1u);
  EXPECT_EQ(by_tag[0].live_count, 1u);
  extmem_holder_report_t holders;
  EXPECT_EQ(extmem_inspector_get_holders(inspector_, id_, &holders, sizeof holders, nullptr), 0);
  EXPECT_EQ(holders.total_count, 2u);
  std::uint64_t bytes = 0;
  EXPECT_EQ(extmem_inspector_get_metadata_bytes(inspector_, &bytes), 0);
  EXPECT_GT(bytes, 65536u);
}

TEST_F(CInspector, ReportsBreaches) {
  std::size_t breaches = 99, unstable = 99;
  EXPECT_EQ(extmem_inspector_verify(inspector_, nullptr, nullptr, &breaches, &unstable), 0);
  EXPECT_EQ(breaches, 0u);
  EXPECT_EQ(unstable, 0u);
  const MappedSegment segment(directory_.file("d", "control"));
  segment.heaps()[id_].span_count.add(1);
  std::string what;
  const auto tell = [](const extmem_breach_t* breach, void* arg) {
    *static_cast<std::string*>(arg) += breach->what;
  };
  EXPECT_EQ(extmem_inspector_verify_heap(inspector_, id_, tell, &what, &breaches), 0);
  EXPECT_EQ(breaches, 1u);
  EXPECT_EQ(what, "span_count counts the held spans");
  what.clear();
  EXPECT_EQ(extmem_inspector_verify(inspector_, tell, &what, &breaches, nullptr), 0);
  EXPECT_EQ(breaches, 1u);
  segment.heaps()[id_].span_count.add(~std::uint64_t{0});
}

TEST_F(CInspector, RefusesBadInput) {
  extmem_inspector_t* other = nullptr;
  EXPECT_EQ(extmem_inspector_open(nullptr, directory_.c_str(), &other), -EINVAL);
  EXPECT_EQ(extmem_inspector_open("d", directory_.c_str(), nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_open("none", directory_.c_str(), &other), -ENOENT);
  EXPECT_EQ(other, nullptr);
  EXPECT_EQ(extmem_inspector_close(nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_refresh(nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_walk_heaps(inspector_, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_walk_heaps(inspector_, stop<extmem_heap_info_t>, nullptr), 77);
  EXPECT_EQ(extmem_inspector_walk_regions(inspector_, stop<extmem_region_info_t>, nullptr), 77);
  EXPECT_EQ(extmem_inspector_walk_heap(inspector_, id_, nullptr, stop<extmem_walk_entry_t>, nullptr, nullptr),
            77);
  EXPECT_EQ(extmem_inspector_walk_tags(inspector_, nullptr, nullptr), -EINVAL);
  extmem_heap_stats_t stats;
  EXPECT_EQ(extmem_inspector_get_stats(inspector_, 8000, &stats, sizeof stats, nullptr), -ENOENT);
  EXPECT_EQ(extmem_inspector_get_stats(inspector_, id_, nullptr, sizeof stats, nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_verify(inspector_, nullptr, nullptr, nullptr, nullptr), -EINVAL);
  EXPECT_EQ(extmem_inspector_refresh(inspector_), 0);
}

}  // namespace
}  // namespace extmem::test
