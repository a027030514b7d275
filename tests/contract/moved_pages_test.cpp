// Large objects that take their pages along when reallocate moves them: only where nobody but the CPU can know the pages.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace extmem::test {
namespace {

constexpr std::size_t kPage = 4096;

bool kernel_moves() {
  void* const p = ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  void* const moved = ::mremap(p, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED | MREMAP_DONTUNMAP,
                               static_cast<std::byte*>(p) + kPage);
  ::munmap(p, 2 * kPage);
  return moved != MAP_FAILED;
}

void fill(void* p, std::size_t bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
    const std::uint64_t word = (seed + i) * 0x9e3779b97f4a7c15u;
    std::memcpy(static_cast<std::byte*>(p) + i, &word, 8);
  }
}
bool holds(const void* p, std::size_t bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i + 8 <= bytes; i += 8) {
    const std::uint64_t word = (seed + i) * 0x9e3779b97f4a7c15u;
    if (std::memcmp(static_cast<const std::byte*>(p) + i, &word, 8) != 0) return false;
  }
  return true;
}

std::size_t present(void* p, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / kPage);
  if (::mincore(p, bytes, pages.data()) != 0) return ~std::size_t{0};
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

class MovedPages : public testing::TestWithParam<FaceKind> {
 protected:
  MovedPages() : face_(make_face(GetParam())) {
    EXPECT_EQ(face_->create(DomainOptions{}), 0) << face_->message();
    options_.growth.backing.kind = BackingKind::anonymous;
    options_.growth.step = 64 * kMiB;
    options_.growth.limit = 512 * kMiB;
  }
  ~MovedPages() override { expect_sound(*face_); }

  /// Reallocates an object that has no room where it is. Returns: whether its pages went along; what it held is compared.
  bool moves() {
    EXPECT_EQ(face_->create_heap("moving", options_, heap_), 0) << face_->message();
    return moves_in(heap_);
  }
  bool moves_in(Heap heap) {
    AllocOptions high;
    high.placement = Placement::high;
    void* p = nullptr;
    void* neighbour = nullptr;
    EXPECT_EQ(face_->allocate(heap, kPage, high, neighbour), 0) << face_->message();
    EXPECT_EQ(face_->allocate(heap, 4 * kMiB, high, p), 0) << face_->message();
    fill(p, 4 * kMiB, 1);
    void* const before = p;
    EXPECT_EQ(face_->reallocate(heap, 6 * kMiB, AllocOptions{}, p), 0) << face_->message();
    EXPECT_NE(p, before);
    EXPECT_TRUE(holds(p, 4 * kMiB, 1));
    const std::size_t left = present(before, 4 * kMiB);
    EXPECT_TRUE(left == 0 || left == 4 * kMiB / kPage) << left;
    EXPECT_EQ(present(p, 4 * kMiB), 4 * kMiB / kPage);
    fill(static_cast<std::byte*>(p) + 4 * kMiB, 2 * kMiB, 1 + 4 * kMiB);
    EXPECT_TRUE(holds(p, 6 * kMiB, 1));
    HeapStats stats;
    EXPECT_EQ(face_->stats(heap, stats), 0);
    EXPECT_EQ(stats.used_bytes, 6 * kMiB + kPage);
    EXPECT_EQ(stats.used_count, 2u);
    EXPECT_EQ(face_->deallocate(heap, p), 0);
    EXPECT_EQ(face_->deallocate(heap, neighbour), 0);
    return left == 0;
  }

  std::unique_ptr<Face> face_;
  HeapOptions options_;
  Heap heap_;
};

TEST_P(MovedPages, GoAlongInMemoryThatTheHeapGrewBy) {
  if (!kernel_moves()) GTEST_SKIP() << "needs a kernel with MREMAP_DONTUNMAP (5.7)";
  EXPECT_TRUE(moves());
}

TEST_P(MovedPages, StayInARegionThatWasAdded) {
  EXPECT_EQ(face_->create_heap("added", HeapOptions{}, heap_), 0) << face_->message();
  BackingSpec spec;
  spec.length = 64 * kMiB;
  RegionId region;
  ASSERT_EQ(face_->add_backing(heap_, spec, region), 0) << face_->message();
  EXPECT_FALSE(moves_in(heap_));
}

TEST_P(MovedPages, StayWhereSomebodyListens) {
  ASSERT_EQ(face_->add_listener([](const RegionEvent&, void*) { return 0; }, nullptr), 0);
  EXPECT_FALSE(moves());
}

TEST_P(MovedPages, StayWhereTheyHaveIovas) {
  options_.growth.backing.iova_source = IovaSource::identity;
  EXPECT_FALSE(moves());
}

TEST_P(MovedPages, StayWhereTheyAreToBePresent) {
  options_.growth.backing.prefault = true;
  EXPECT_FALSE(moves());
}

TEST_P(MovedPages, StayWhereTheyAreLocked) {
  options_.growth.backing.lock = true;
  options_.growth.step = 16 * kMiB;
  ASSERT_EQ(face_->create_heap("moving", options_, heap_), 0) << face_->message();
  void* p = nullptr;
  if (face_->allocate(heap_, 64, AllocOptions{}, p) != 0) GTEST_SKIP() << "needs RLIMIT_MEMLOCK of 16 MiB";
  EXPECT_EQ(face_->deallocate(heap_, p), 0);
  EXPECT_FALSE(moves_in(heap_));
}

TEST_P(MovedPages, StayInSharedMemory) {
  options_.growth.backing.kind = BackingKind::memfd;
  EXPECT_FALSE(moves());
}

TEST_P(MovedPages, StayInANamedDomain) {
  const RuntimeDirectory directory;
  face_ = make_face(GetParam());
  OpenOptions open;
  open.directory = directory.c_str();
  ASSERT_EQ(face_->open("moved", open), 0) << face_->message();
  EXPECT_FALSE(moves());
  expect_sound(*face_);
  face_ = make_face(GetParam());  // closed before its folder goes
  ASSERT_EQ(face_->create(DomainOptions{}), 0) << face_->message();
}

TEST_P(MovedPages, AreEachProcessOwnAfterAFork) {
  if (!kernel_moves()) GTEST_SKIP() << "needs a kernel with MREMAP_DONTUNMAP (5.7)";
  ASSERT_EQ(face_->create_heap("forked", options_, heap_), 0) << face_->message();
  AllocOptions high;
  high.placement = Placement::high;
  void* p = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 4 * kMiB, high, p), 0) << face_->message();
  fill(p, 4 * kMiB, 9);
  ASSERT_EQ(face_->reallocate(heap_, 6 * kMiB, AllocOptions{}, p), 0) << face_->message();
  const pid_t child = ::fork();
  if (child == 0) {
    void* mine = p;
    bool good = holds(mine, 4 * kMiB, 9) && face_->reallocate(heap_, 40 * kMiB, AllocOptions{}, mine) == 0 &&
                mine != p && holds(mine, 4 * kMiB, 9);
    fill(mine, 4 * kMiB, 10);
    good = good && face_->deallocate(heap_, mine) == 0;
    ::_exit(good ? 0 : 1);
  }
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(holds(p, 4 * kMiB, 9));
  ASSERT_EQ(face_->reallocate(heap_, 40 * kMiB, AllocOptions{}, p), 0) << face_->message();
  EXPECT_TRUE(holds(p, 4 * kMiB, 9));
  EXPECT_EQ(face_->deallocate(heap_, p), 0);
}

// Objects that grow and shrink at random, against what each should hold.
TEST_P(MovedPages, LoseNoByteOfRandomObjects) {
  const char* const text = std::getenv("EXTMEM_SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 0) : 20261126;
  SCOPED_TRACE("EXTMEM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  options_.growth.step = 16 * kMiB;
  ASSERT_EQ(face_->create_heap("random", options_, heap_), 0) << face_->message();
  struct Object {
    void* p;
    std::size_t bytes;
    std::uint64_t seed;
  };
  std::vector<Object> objects;
  int emptied = 0;
  for (int step = 0; step < 250; ++step) {
    const std::size_t size = 8 * (1 + random() % (random() % 4 == 0 ? kMiB / 64 : kMiB));
    const std::size_t at = objects.empty() ? 0 : random() % objects.size();
    if (objects.size() < 4 || (objects.size() < 12 && random() % 3 == 0)) {
      Object object{nullptr, size, random()};
      ASSERT_EQ(face_->allocate(heap_, size, AllocOptions{}, object.p), 0) << face_->message();
      fill(object.p, size, object.seed);
      objects.push_back(object);
    } else if (random() % 6 == 0) {
      ASSERT_TRUE(holds(objects[at].p, objects[at].bytes, objects[at].seed)) << "step " << step;
      ASSERT_EQ(face_->deallocate(heap_, objects[at].p), 0) << face_->message();
      objects.erase(objects.begin() + static_cast<std::ptrdiff_t>(at));
    } else {
      Object& object = objects[at];
      void* const before = object.p;
      const std::size_t wanted = random() % 3 == 0 ? size : object.bytes + size / 8 / 16 * 8;
      AllocOptions options;
      options.zero = random() % 4 == 0;
      std::size_t usable = 0;
      ASSERT_EQ(face_->usable_size(heap_, before, usable), 0);
      ASSERT_EQ(face_->reallocate(heap_, wanted, options, object.p), 0) << face_->message();
      ASSERT_TRUE(holds(object.p, std::min(object.bytes, wanted), object.seed)) << "step " << step;
      if (object.p != before && std::min(usable, wanted) >= kMiB) {
        // Of a place that is unmapped by now nothing can be told.
        if (present(before, kMiB / 2) == 0) ++emptied;
      }
      if (options.zero && wanted > usable) {
        const auto* beyond = static_cast<const std::byte*>(object.p);
        ASSERT_TRUE(
            std::all_of(beyond + usable, beyond + wanted, [](std::byte b) { return b == std::byte{0}; }));
      }
      object.bytes = wanted;
      fill(object.p, wanted, object.seed);
    }
    if (step % 25 == 0) expect_sound(*face_);
  }
  for (const Object& object : objects) {
    EXPECT_TRUE(holds(object.p, object.bytes, object.seed));
    EXPECT_EQ(face_->deallocate(heap_, object.p), 0);
  }
  EXPECT_EQ(emptied > 0, kernel_moves());
  HeapStats stats;
  ASSERT_EQ(face_->stats(heap_, stats), 0);
  EXPECT_EQ(stats.used_bytes, 0u);
}

INSTANTIATE_TEST_SUITE_P(, MovedPages, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& test) { return std::string(name_of(test.param)); });

}  // namespace
}  // namespace extmem::test
