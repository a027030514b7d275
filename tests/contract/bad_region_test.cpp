// Bad regions and backings: a precise error, nothing changed, nothing lost.
#include <unistd.h>

#include <climits>
#include <fstream>

#include "contract/bad_input.hpp"

namespace extmem::test {
namespace {

class BadRegion : public BadInput {};

TEST_P(BadRegion, RefusesRegionsThatAreNoMemory) {
  RegionSpec spec = good_spec();
  spec.base = nullptr;
  refused(EINVAL, spec, "NULL base");
  spec = good_spec();
  spec.length = 0;
  refused(EINVAL, spec, "length 0");
  spec = good_spec();
  spec.base = other_.base() + 64;
  spec.length = kMiB / 2;
  refused(EINVAL, spec, "misaligned base");
  spec = good_spec();
  spec.length = kMiB - 64;
  refused(EINVAL, spec, "misaligned length");
  spec = good_spec();
  spec.length = SIZE_MAX - kOsPage + 1;
  refused(EOVERFLOW, spec, "base + length overflows");
}

TEST_P(BadRegion, RefusesPageSizes) {
  for (const std::size_t size : {std::size_t{3}, 3 * kOsPage, kOsPage + 1, SIZE_MAX}) {
    RegionSpec spec = good_spec();
    spec.os_page_size = size;
    refused(EINVAL, spec, "page size not a power of two");
  }
  RegionSpec spec = good_spec();
  spec.os_page_size = 2 * kMiB;  // larger than the region
  refused(EINVAL, spec, "page size that does not divide the length");
}

TEST_P(BadRegion, RefusesNodesAndSourcesThatAreNone) {
  for (const int node : {-2, 1024, INT_MAX, INT_MIN}) {
    RegionSpec spec = good_spec();
    spec.numa_node = node;
    refused(EINVAL, spec, "no such node");
  }
  RegionSpec spec = good_spec();
  spec.iova_source = static_cast<IovaSource>(99);
  refused(EINVAL, spec, "unknown IOVA source");
}

TEST_P(BadRegion, ARefusedBackingLeavesNoFileAndTakesNone) {
  const std::string path = "bad_region_test." + std::to_string(::getpid());
  BackingSpec spec;
  spec.kind = BackingKind::file;
  spec.path = path.c_str();
  spec.length = kMiB;
  spec.iova_source = IovaSource::physical;  // of a file's pages: refused after the file was made
  const auto exists = [&] { return ::access(path.c_str(), F_OK) == 0; };
  RegionId id;
  for (const bool unlink_on_remove : {false, true}) {
    spec.unlink_on_remove = unlink_on_remove;
    EXPECT_EQ(face_->add_backing(heap_, spec, id), -EINVAL) << face_->message();
    EXPECT_FALSE(exists());
  }
  { std::ofstream(path) << "mine"; }
  EXPECT_EQ(face_->add_backing(heap_, spec, id), -EINVAL) << face_->message();
  EXPECT_TRUE(exists()) << "it was there before";
  spec.iova_source = IovaSource::table;
  for (const bool unlink_on_remove : {false, true}) {
    spec.unlink_on_remove = unlink_on_remove;
    ASSERT_EQ(face_->add_backing(heap_, spec, id), 0) << face_->message();
    ASSERT_EQ(face_->remove_region(id, nullptr), 0) << face_->message();
    EXPECT_EQ(exists(), !unlink_on_remove);
  }
}

TEST_P(BadRegion, RefusesTablesOfTheWrongLength) {
  for (const std::size_t length : {std::size_t{1}, kMiB / kOsPage - 1, kMiB / kOsPage + 1}) {
    const std::vector<Iova> table(length, Iova{0x10000});
    RegionSpec spec = good_spec();
    spec.iovas = table;
    refused(EINVAL, spec, "table of the wrong length");
  }
}

TEST_P(BadRegion, RefusesOverlapWithAnyRegion) {
  struct {
    std::ptrdiff_t from;
    std::size_t length;
    const char* what;
  } const cases[] = {{0, kMiB, "the same"},
                     {0, kOsPage, "its first page"},
                     {static_cast<std::ptrdiff_t>(kMiB - kOsPage), kOsPage, "its last page"},
                     {static_cast<std::ptrdiff_t>(kMiB / 2), kOsPage, "inside"},
                     {static_cast<std::ptrdiff_t>(kMiB - kOsPage), 2 * kOsPage, "over its end"},
                     {-static_cast<std::ptrdiff_t>(kOsPage), 2 * kOsPage, "over its start"},
                     {-static_cast<std::ptrdiff_t>(kOsPage), kMiB + 2 * kOsPage, "around it"}};
  for (const auto& [from, length, what] : cases) {
    RegionSpec spec = good_spec();
    spec.base = memory_.base() + from;
    spec.length = length;
    refused(EEXIST, spec, what);
    RegionId id;
    refused_call(
        EEXIST, [&] { return face_->add_region(heap_, spec, id); }, what);
  }
  // A neighbour that only touches is fine.
  RegionSpec spec = good_spec();
  spec.length = kMiB / 2;
  RegionId low;
  RegionId high;
  ASSERT_EQ(face_->add_region(empty_, spec, low), 0) << face_->message();
  spec.base = other_.base() + kMiB / 2;
  ASSERT_EQ(face_->add_region(empty_, spec, high), 0) << face_->message();
}

TEST_P(BadRegion, RefusesToRemoveARegionInUse) {
  HolderReport report;
  refused_call(
      EBUSY, [&] { return face_->remove_region(region_, &report); }, "remove");
  EXPECT_EQ(report.total_count, 2u);
  refused_call(
      EBUSY, [&] { return face_->remove_region(region_, nullptr); }, "remove, nobody asks who");
  refused_call(
      EBUSY, [&] { return face_->destroy_heap(heap_, &report); }, "destroy");
  EXPECT_EQ(report.total_count, 2u);
}

TEST_P(BadRegion, RefusesRegionsThatAreNotThere) {
  RegionSpec spec = good_spec();
  RegionId gone;
  ASSERT_EQ(face_->add_region(empty_, spec, gone), 0);
  ASSERT_EQ(face_->remove_region(gone, nullptr), 0) << face_->message();
  RegionId again;
  ASSERT_EQ(face_->add_region(empty_, spec, again), 0);
  RegionInfo info;
  std::vector<IovaRun> runs;
  for (const RegionId id :
       {gone, RegionId{}, RegionId{0xffffffff, 1}, RegionId{region_.slot, region_.generation + 1}}) {
    refused_call(
        ENOENT, [&] { return face_->remove_region(id, nullptr); }, "remove");
    refused_call(
        ENOENT, [&] { return face_->drain_region(id, std::chrono::nanoseconds(0), nullptr); }, "drain");
    refused_call(
        ENOENT, [&] { return face_->undrain_region(id); }, "undrain");
    refused_call(
        ENOENT, [&] { return face_->region_info(id, info); }, "info");
    refused_call(
        ENOENT, [&] { return face_->list_iova_runs(id, runs); }, "runs");
  }
}

TEST_P(BadRegion, RefusesBackings) {
  const auto backing_refused = [&](std::vector<int> codes, const BackingSpec& spec, const char* what) {
    RegionId id;
    expect_refused(
        *face_, std::move(codes), [&] { return face_->add_backing(heap_, spec, id); }, what);
  };
  BackingSpec spec;
  backing_refused({EINVAL}, spec, "length 0");
  spec.length = kMiB;
  spec.kind = BackingKind::external;
  backing_refused({EINVAL}, spec, "external is no backing");
  spec.kind = BackingKind::file;
  backing_refused({EINVAL}, spec, "file without a path");
  spec.path = "/nonexistent/dir/file";
  backing_refused({ENOENT}, spec, "file that cannot be opened");
  spec.kind = BackingKind::shm;
  spec.path = "/a/b";
  backing_refused({EINVAL}, spec, "shm name with a slash");
  spec = BackingSpec{};
  spec.length = std::size_t{1} << 47;
  backing_refused({ENOMEM}, spec, "mmap fails");
  spec.length = SIZE_MAX;
  backing_refused({EOVERFLOW, EINVAL}, spec, "rounding up overflows");
  spec.length = kMiB;
  spec.os_page_size = 3000;
  spec.kind = BackingKind::hugetlb;
  backing_refused({EINVAL}, spec, "hugepage size that is no power of two");
  spec = BackingSpec{};
  spec.length = kMiB;
  spec.numa_node = 9999;
  backing_refused({EINVAL, ENOENT}, spec, "node that is not there");
}

INSTANTIATE_TEST_SUITE_P(, BadRegion,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::Values(Style::binned, Style::exact)),
                         name_of_bad_input);

}  // namespace
}  // namespace extmem::test
