// What runs out: the control segment, address space, lockable memory. A precise error, nothing changed.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <functional>
#include <string>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class Limits : public testing::TestWithParam<FaceKind> {
 protected:
  void create(const DomainOptions& options) {
    ASSERT_EQ(face_->create(options), 0) << face_->message();
    ASSERT_EQ(face_->create_heap("h", heap_), 0) << face_->message();
  }
  int add(std::size_t offset, std::size_t length, RegionId& id) {
    RegionSpec spec;
    spec.base = memory_.base() + offset;
    spec.length = length;
    return face_->add_region(heap_, spec, id);
  }

  Memory memory_{4 * kMiB};
  std::unique_ptr<Face> face_ = make_face(GetParam());
  Heap heap_;
};

TEST_P(Limits, RefusesOptionsOutOfRange) {
  for (const auto& spoil : std::initializer_list<void (*)(DomainOptions&)>{
           [](DomainOptions& o) { o.max_regions = 0; },
           [](DomainOptions& o) { o.max_regions = UINT32_MAX; },
           [](DomainOptions& o) { o.max_heaps = 0; },
           [](DomainOptions& o) { o.max_threads = 0; },
           [](DomainOptions& o) { o.small_metadata = 0; },
           [](DomainOptions& o) { o.small_metadata = (std::uint64_t{8} << 30) + 1; },
           [](DomainOptions& o) { o.large_metadata = 0; },
           [](DomainOptions& o) { o.large_metadata = UINT64_MAX; },
       }) {
    DomainOptions options;
    spoil(options);
    const int rc = face_->create(options);
    EXPECT_TRUE(rc == -EINVAL || rc == -ENOMEM) << rc;  // ENOMEM: in range, but no machine has it
    EXPECT_STRNE(face_->message().c_str(), "");
    EXPECT_STRNE(face_->message().c_str(), "no error");
  }
}

TEST_P(Limits, RefusesOneRegionTooMany) {
  DomainOptions options;
  options.max_regions = 3;
  create(options);
  RegionId id;
  for (std::size_t i = 0; i < 3; ++i) ASSERT_EQ(add(i * kMiB, kMiB, id), 0) << face_->message();
  RegionId refused;
  expect_refused(
      *face_, ENOSPC, [&] { return add(3 * kMiB, kMiB, refused); }, "the fourth of three");
  ASSERT_EQ(face_->remove_region(id, nullptr), 0);
  EXPECT_EQ(add(3 * kMiB, kMiB, id), 0) << face_->message();
}

TEST_P(Limits, RefusesOneHeapTooMany) {
  DomainOptions options;
  options.max_heaps = 4;
  create(options);
  std::vector<HeapInfo> heaps;
  ASSERT_EQ(face_->list_heaps(heaps), 0);
  Heap heap;
  for (std::size_t i = heaps.size(); i < 4; ++i) {
    ASSERT_EQ(face_->create_heap(("more" + std::to_string(i)).c_str(), heap), 0) << face_->message();
  }
  Heap refused;
  expect_refused(
      *face_, ENOSPC, [&] { return face_->create_heap("too many", refused); }, "heap");
  ASSERT_EQ(face_->destroy_heap(heap, nullptr), 0);
  EXPECT_EQ(face_->create_heap("fits", heap), 0) << face_->message();
}

TEST_P(Limits, RefusesOneMemzoneTooMany) {
  DomainOptions options;
  options.max_memzones = 3;
  create(options);
  RegionId id;
  ASSERT_EQ(add(0, kMiB, id), 0);
  MemzoneInfo zone;
  for (const char* name : {"a", "b", "c"}) ASSERT_EQ(face_->reserve_memzone(heap_, name, 64, {}, zone), 0);
  expect_refused(
      *face_, ENOSPC, [&] { return face_->reserve_memzone(heap_, "d", 64, {}, zone); }, "memzone");
  ASSERT_EQ(face_->free_memzone("b"), 0);
  EXPECT_EQ(face_->reserve_memzone(heap_, "d", 64, {}, zone), 0) << face_->message();
}

TEST_P(Limits, RefusesOneTagTooMany) {
  DomainOptions options;
  options.max_tags = 4;
  create(options);
  Tag tag;
  int rc = 0;
  int made = 0;
  while (rc == 0 && made < 10) rc = face_->intern_tag(("tag" + std::to_string(made++)).c_str(), tag);
  EXPECT_EQ(rc, -ENOSPC) << "after " << made;
  expect_refused(
      *face_, ENOSPC, [&] { return face_->intern_tag("one more", tag); }, "tag");
  EXPECT_EQ(face_->intern_tag("tag0", tag), 0) << "a tag that exists: " << face_->message();
}

TEST_P(Limits, SaysWhenTheControlSegmentIsFull) {
  // Metadata for less than the memory needs: adding, or allocating, ends with ENOSPC or ENOMEM and a message.
  DomainOptions options;
  options.small_metadata = kMiB;
  options.large_metadata = kMiB;
  ASSERT_EQ(face_->create(options), 0) << face_->message();
  ASSERT_EQ(face_->create_heap("h", heap_), 0) << face_->message();
  const Memory huge(std::size_t{64} << 30, PROT_NONE);
  RegionSpec spec;
  spec.base = huge.base();
  spec.length = huge.length();
  spec.cpu_accessible = false;
  RegionId id;
  int rc = face_->add_region(heap_, spec, id);
  std::vector<void*> given;
  if (rc == 0) {
    void* p = nullptr;
    while ((rc = face_->allocate(heap_, 64, p)) == 0) given.push_back(p);
  }
  EXPECT_THAT((std::vector<int>{-ENOSPC, -ENOMEM}), testing::Contains(rc)) << face_->message();
  EXPECT_STRNE(face_->message().c_str(), "");
  expect_sound(*face_);
  for (void* p : given) ASSERT_EQ(face_->deallocate(heap_, p), 0) << face_->message();
  expect_sound(*face_);
  // The domain is still of use.
  spec.base = memory_.base();
  spec.length = 64 * kKiB;
  spec.cpu_accessible = true;
  RegionId small;
  Heap other;
  ASSERT_EQ(face_->create_heap("other", other), 0) << face_->message();
  if (face_->add_region(other, spec, small) == 0) {
    void* p = nullptr;
    AllocOptions there;
    if (face_->allocate(other, 64, there, p) == 0) {
      EXPECT_EQ(face_->deallocate(other, p), 0);
    }
  }
  expect_sound(*face_);
}

// ---- in a child process with a limit -----------------------------------------------------------------------

/// Runs `body` in a child; its answer becomes the exit status. The parent has no other thread.
int in_child(const std::function<int()>& body) {
  const pid_t child = ::fork();
  if (child == 0) ::_exit(body());
  int status = 0;
  EXPECT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "ended by signal " << WTERMSIG(status);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
constexpr bool kSanitized = true;
#else
constexpr bool kSanitized = false;
#endif
#else
constexpr bool kSanitized = false;
#endif

TEST_P(Limits, SaysWhenAddressSpaceRunsOut) {
  if (kSanitized) return;  // sanitizers live from address space; the other builds test this
  EXPECT_EQ(in_child([&] {
              const rlimit limit{std::size_t{1} << 30, std::size_t{1} << 30};
              if (::setrlimit(RLIMIT_AS, &limit) != 0) return 100;
              const int rc = face_->create(DomainOptions{});
              return rc == -ENOMEM && !face_->message().empty() ? 0 : 1;
            }),
            0);
}

TEST_P(Limits, SaysWhenMappingFails) {
  if (kSanitized) return;
  EXPECT_EQ(in_child([&] {
              if (face_->create(DomainOptions{}) != 0 || face_->create_heap("h", heap_) != 0) return 102;
              const rlimit limit{std::size_t{1} << 20, std::size_t{1} << 20};
              if (::setrlimit(RLIMIT_AS, &limit) != 0) return 100;
              BackingSpec spec;
              spec.length = 64 * kMiB;
              RegionId id;
              const int rc = face_->add_backing(heap_, spec, id);
              return rc == -ENOMEM && !face_->message().empty() ? 0 : 1;
            }),
            0);
}

TEST_P(Limits, SaysWhenTheMemoryLockLimitIsHit) {
  EXPECT_EQ(in_child([&] {
              const rlimit limit{64 * kKiB, 64 * kKiB};
              if (::setrlimit(RLIMIT_MEMLOCK, &limit) != 0) return 100;
              if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0)
                return 101;  // root may lock any amount
              if (face_->create(DomainOptions{}) != 0 || face_->create_heap("h", heap_) != 0) return 102;
              const std::string before = state_of(*face_);
              BackingSpec spec;
              spec.length = 4 * kMiB;
              spec.lock = true;
              RegionId id;
              const int rc = face_->add_backing(heap_, spec, id);
              if (rc != -ENOMEM && rc != -EPERM && rc != -EAGAIN) return 1;
              if (face_->message().find("lock") == std::string::npos) return 2;
              if (state_of(*face_) != before) return 3;
              spec.lock = false;
              return face_->add_backing(heap_, spec, id) == 0 ? 0 : 4;
            }),
            0);
}

INSTANTIATE_TEST_SUITE_P(, Limits, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& test) { return name_of(test.param); });

}  // namespace
}  // namespace extmem::test
