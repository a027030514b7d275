#include "os/page_mover.hpp"

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "os/mapping.hpp"
#include "unit/os/child.hpp"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP 4
#endif

namespace extmem::os {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

std::byte* map(std::size_t bytes) {
  void* const p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (p == MAP_FAILED) std::abort();
  return static_cast<std::byte*>(p);
}

/// Private anonymous memory in which the tests' places lie, as in a region.
class Memory {
 public:
  explicit Memory(std::size_t bytes) : bytes_(bytes), base_(map(bytes)) {}
  ~Memory() { ::munmap(base_, bytes_); }
  Memory(const Memory&) = delete;
  Memory& operator=(const Memory&) = delete;
  [[nodiscard]] std::byte* at(std::size_t offset) const { return base_ + offset; }

 private:
  std::size_t bytes_;
  std::byte* base_;
};

/// Different in each word, so that no two pages are the same.
void fill(std::byte* p, std::size_t bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes; i += 8) {
    const std::uint64_t word = (seed + i) * 0x9e3779b97f4a7c15u;
    std::memcpy(p + i, &word, 8);
  }
}
bool holds(const std::byte* p, std::size_t bytes, std::uint64_t seed) {
  for (std::size_t i = 0; i < bytes; i += 8) {
    const std::uint64_t word = (seed + i) * 0x9e3779b97f4a7c15u;
    if (std::memcmp(p + i, &word, 8) != 0) return false;
  }
  return true;
}
bool is_zero(const std::byte* p, std::size_t bytes) {
  return std::all_of(p, p + bytes, [](std::byte b) { return b == std::byte{0}; });
}

std::size_t present(std::byte* p, std::size_t bytes) {
  std::vector<unsigned char> pages(bytes / page_size());
  if (::mincore(p, bytes, pages.data()) != 0) std::abort();
  return static_cast<std::size_t>(
      std::count_if(pages.begin(), pages.end(), [](unsigned char c) { return (c & 1) != 0; }));
}

/// Mappings of this process that lie in [p, p + bytes), wholly or in part.
std::size_t mappings(const std::byte* p, std::size_t bytes) {
  const auto begin = reinterpret_cast<std::uintptr_t>(p);
  std::ifstream maps("/proc/self/maps");
  std::size_t found = 0;
  for (std::string line; std::getline(maps, line);) {
    char* rest = nullptr;
    const std::uintptr_t first = std::strtoull(line.c_str(), &rest, 16);
    const std::uintptr_t last = std::strtoull(rest + 1, nullptr, 16);
    if (first < begin + bytes && last > begin) ++found;
  }
  return found;
}

bool kernel_moves() {
  Memory m(2 * page_size());
  void* const moved =
      PageMover::call_mremap(m.at(0), page_size(), MREMAP_MAYMOVE | MREMAP_DONTUNMAP, nullptr);
  if (moved != MAP_FAILED) ::munmap(moved, page_size());
  return moved != MAP_FAILED;
}
#define NEEDS_MOVES() \
  if (!kernel_moves()) GTEST_SKIP() << "needs a kernel with MREMAP_DONTUNMAP (5.7)"

TEST(PageMover, MovesThePagesAndNotTheBytes) {
  NEEDS_MOVES();
  Memory m(64 * kMiB);
  PageMover mover;
  std::byte* const from = m.at(3 * kMiB + page_size());
  std::byte* const to = m.at(32 * kMiB);
  const std::size_t bytes = 5 * kMiB + 3 * page_size();
  fill(from, bytes, 1);
  fill(from - 8, 8, 2);
  fill(from + bytes, 8, 3);
  errno = 77;
  const Moved moved = mover.move(to, from, bytes + 123);  // what is no whole page is the caller's
  EXPECT_EQ(errno, 77);
  EXPECT_EQ(moved.bytes, bytes);
  EXPECT_FALSE(moved.place_lost || moved.old_place_lost);
  // They came without being brought in, and left nothing behind.
  EXPECT_EQ(present(to, bytes), bytes / page_size());
  EXPECT_EQ(present(from, bytes), 0u);
  EXPECT_TRUE(holds(to, bytes, 1));
  EXPECT_TRUE(is_zero(from, bytes));
  EXPECT_TRUE(holds(from - 8, 8, 2) && holds(from + bytes, 8, 3)) << "neighbours";
  fill(from, bytes, 4);
  EXPECT_TRUE(holds(to, bytes, 1)) << "two places, two memories";
}

TEST(PageMover, LeavesWhatWasNeverTouchedAbsent) {
  NEEDS_MOVES();
  Memory m(64 * kMiB);
  PageMover mover;
  fill(m.at(kMiB), page_size(), 1);
  fill(m.at(9 * kMiB), page_size(), 2);
  ASSERT_EQ(mover.move(m.at(32 * kMiB), m.at(kMiB), 16 * kMiB).bytes, 16 * kMiB);
  EXPECT_LE(present(m.at(32 * kMiB), 16 * kMiB), 2 + 1024u) << "transparent hugepages at most";
  EXPECT_TRUE(holds(m.at(32 * kMiB), page_size(), 1));
  EXPECT_TRUE(holds(m.at(40 * kMiB), page_size(), 2));
}

TEST(PageMover, LeavesShortOrUnalignedObjectsAndPresentPlacesToTheCaller) {
  Memory m(16 * kMiB);
  PageMover mover;
  fill(m.at(0), 4 * kMiB, 1);
  EXPECT_EQ(mover.move(m.at(8 * kMiB), m.at(0), PageMover::kLeast - 1).bytes, 0u);
  EXPECT_EQ(mover.move(m.at(8 * kMiB + 64), m.at(0), 4 * kMiB).bytes, 0u);
  EXPECT_EQ(mover.move(m.at(8 * kMiB), m.at(64), 3 * kMiB).bytes, 0u);
  fill(m.at(8 * kMiB), 2 * kMiB, 2);
  EXPECT_EQ(mover.move(m.at(8 * kMiB), m.at(0), 4 * kMiB).bytes, 0u) << "half of it is there";
  EXPECT_TRUE(holds(m.at(8 * kMiB), 2 * kMiB, 2)) << "nothing was touched";
  EXPECT_TRUE(holds(m.at(0), 4 * kMiB, 1));
}

TEST(PageMover, MovesAnObjectThatGrewWhereItHadBeenMovedTo) {
  NEEDS_MOVES();
  Memory m(256 * kMiB);
  PageMover mover;
  std::size_t bytes = kMiB;
  std::size_t at = 0;
  fill(m.at(at), bytes, 7);
  for (int i = 0; i < 12; ++i) {
    const std::size_t next = at == 0 ? 128 * kMiB : 0;
    ASSERT_EQ(mover.move(m.at(next), m.at(at), bytes).bytes, bytes) << i;
    EXPECT_EQ(present(m.at(at), bytes), 0u) << i;
    const std::size_t more = (bytes / 3) & ~(page_size() - 1);
    fill(m.at(next) + bytes, more, 7 + bytes);
    bytes += more;
    at = next;
    ASSERT_TRUE(holds(m.at(at), bytes, 7)) << i;
  }
}

TEST(PageMover, MakesOneMappingAgainOfTheOldPlace) {
  NEEDS_MOVES();
  Memory m(64 * kMiB);
  PageMover mover;
  const std::size_t before = mappings(m.at(0), 32 * kMiB);
  fill(m.at(0), 64 * kMiB, 1);
  for (int i = 0; i < 50; ++i) {
    ::madvise(m.at(32 * kMiB), 32 * kMiB, MADV_DONTNEED);
    ASSERT_EQ(mover.move(m.at(40 * kMiB), m.at(4 * kMiB), 4 * kMiB).bytes, 4 * kMiB);
    ::madvise(m.at(4 * kMiB), 4 * kMiB, MADV_DONTNEED);
    ASSERT_EQ(mover.move(m.at(4 * kMiB), m.at(40 * kMiB), 4 * kMiB).bytes, 4 * kMiB);
  }
  EXPECT_LE(mappings(m.at(0), 32 * kMiB), before + 2);
  EXPECT_TRUE(holds(m.at(0), 32 * kMiB, 1));
}

// Any objects at any places of one memory, against a list of what each should hold.
TEST(PageMover, LosesNoByteOfRandomObjects) {
  NEEDS_MOVES();
  const char* const text = std::getenv("EXTMEM_SEED");
  const std::uint64_t seed = text != nullptr ? std::strtoull(text, nullptr, 0) : 20261126;
  SCOPED_TRACE("EXTMEM_SEED=" + std::to_string(seed));
  std::mt19937_64 random(seed);
  constexpr std::size_t kSlot = 8 * kMiB;
  constexpr std::size_t kSlots = 24;
  Memory m(kSlots * kSlot);
  PageMover mover;
  struct Object {
    std::size_t bytes;
    std::uint64_t seed;
  };
  std::map<std::size_t, Object> objects;  // by slot
  std::size_t moves = 0;
  for (int step = 0; step < 300; ++step) {
    const std::size_t slot = random() % kSlots;
    if (const auto it = objects.find(slot); it == objects.end()) {
      if (objects.size() > kSlots / 2) continue;
      const std::size_t bytes = (kMiB + random() % (3 * kMiB)) & ~(page_size() - 1);
      fill(m.at(slot * kSlot), bytes, static_cast<std::uint64_t>(step));
      objects[slot] = Object{bytes, static_cast<std::uint64_t>(step)};
    } else if (random() % 5 == 0) {
      if (random() % 2 == 0) ::madvise(m.at(slot * kSlot), kSlot, MADV_DONTNEED);
      objects.erase(it);
    } else {
      std::size_t other = random() % kSlots;
      while (objects.count(other) != 0) other = (other + 1) % kSlots;
      const Object object = it->second;
      std::byte* const from = m.at(slot * kSlot);
      std::byte* const to = m.at(other * kSlot);
      const Moved moved = mover.move(to, from, object.bytes);
      ASSERT_FALSE(moved.place_lost || moved.old_place_lost);
      moves += moved.bytes == object.bytes ? 1u : 0u;
      std::memcpy(to + moved.bytes, from + moved.bytes, object.bytes - moved.bytes);
      objects.erase(slot);
      const std::size_t most = kSlot - object.bytes;
      const std::size_t more = random() % std::min(most, object.bytes / 2) & ~(page_size() - 1);
      fill(to + object.bytes, more, object.seed + object.bytes);
      objects[other] = Object{object.bytes + more, object.seed};
    }
    for (const auto& [at, object] : objects) {
      if (step % 20 != 0 && at != slot) continue;
      ASSERT_TRUE(holds(m.at(at * kSlot), object.bytes, object.seed)) << "step " << step;
    }
  }
  for (const auto& [at, object] : objects) EXPECT_TRUE(holds(m.at(at * kSlot), object.bytes, object.seed));
  EXPECT_GT(moves, 20u);
}

TEST(PageMover, LeavesLockedMemoryAsItIs) {
  if (test::kSanitized) GTEST_SKIP() << "needs mlock, which sanitizers replace";
  RUN_IN_CHILD([] {
    PageMover mover;
    for (const std::size_t locked :
         {std::size_t{0}, 4 * kMiB - page_size(), 16 * kMiB, 20 * kMiB - page_size()}) {
      Memory m(32 * kMiB);
      fill(m.at(0), 4 * kMiB, 1);
      if (::mlock(m.at(locked), page_size()) != 0) return std::string("skip: RLIMIT_MEMLOCK allows no page");
      REQUIRE(mover.move(m.at(16 * kMiB), m.at(0), 4 * kMiB).bytes == 0);
      REQUIRE(holds(m.at(0), 4 * kMiB, 1));
    }
    Memory m(32 * kMiB);
    fill(m.at(0), 4 * kMiB, 1);
    if (::mlockall(MCL_CURRENT) != 0) return std::string("skip: RLIMIT_MEMLOCK is too low for mlockall");
    REQUIRE(mover.move(m.at(16 * kMiB), m.at(0), 4 * kMiB).bytes == 0);
    ::munlockall();
    if (kernel_moves()) {
      ::madvise(m.at(16 * kMiB), 4 * kMiB, MADV_DONTNEED);
      REQUIRE(mover.move(m.at(16 * kMiB), m.at(0), 4 * kMiB).bytes == 4 * kMiB);
    }
    return std::string();
  });
}

TEST(PageMover, LeavesAllToTheCallerWhereTheKernelCannotMove) {
  for (const int error : {EINVAL, ENOSYS, ENOMEM, EPERM}) {
    RUN_IN_CHILD([error] {
      PageMover mover;
      Memory m(32 * kMiB);
      fill(m.at(0), 4 * kMiB, 1);
      if (!test::fail_system_call(SYS_mremap, error, 3, MREMAP_DONTUNMAP, MREMAP_DONTUNMAP))
        return std::string("skip: no seccomp filters");
      const Moved moved = mover.move(m.at(16 * kMiB), m.at(0), 4 * kMiB);
      REQUIRE(moved.bytes == 0 && !moved.place_lost && !moved.old_place_lost);
      REQUIRE(holds(m.at(0), 4 * kMiB, 1));
      return std::string();
    });
  }
}

TEST(PageMover, AddsNoMappingsWhereThereAreManyAlready) {
  NEEDS_MOVES();
  Memory m(64 * kMiB);
  fill(m.at(0), 4 * kMiB, 1);
  PageMover full(&::extmem::os::PageMover::call_mremap, 0, 1);
  EXPECT_EQ(full.move(m.at(16 * kMiB), m.at(0), 4 * kMiB).bytes, 0u);
  EXPECT_TRUE(holds(m.at(0), 4 * kMiB, 1));
  // Counted when those that need no look are used up; then there is room for many more.
  PageMover counting(&::extmem::os::PageMover::call_mremap, 1, 60000);
  for (int i = 0; i < 40; ++i) {
    const std::size_t from = i % 2 == 0 ? 0 : 16 * kMiB;
    const std::size_t to = i % 2 == 0 ? 16 * kMiB : 0;
    ASSERT_EQ(counting.move(m.at(to), m.at(from), 4 * kMiB).bytes, 4 * kMiB) << i;
  }
}

// The kernel, with less memory or of an older version.
struct Kernel {
  static inline std::set<std::uintptr_t> borders;  // mappings end there: before 6.17 nothing moves across one
  static inline int fixed_until_failure = -1;      // moves to a place of the caller's; -1: none fails
  static inline bool unmaps = false;               // what fails has unmapped the place
  static inline int across = 0;

  static void* remap(void* from, std::size_t bytes, int flags, void* to) noexcept {
    const auto begin = reinterpret_cast<std::uintptr_t>(from);
    if ((flags & MREMAP_DONTUNMAP) != 0 && !borders.empty()) {
      const auto border = borders.upper_bound(begin);
      if (border != borders.end() && *border < begin + bytes) {
        ++across;
        errno = EFAULT;
        return MAP_FAILED;
      }
    }
    if ((flags & MREMAP_FIXED) != 0 && fixed_until_failure == 0) {
      if (unmaps) ::munmap(to, bytes);
      errno = ENOMEM;
      return MAP_FAILED;
    }
    if ((flags & MREMAP_FIXED) != 0 && fixed_until_failure > 0) --fixed_until_failure;
    return PageMover::call_mremap(from, bytes, flags, to);
  }
  static void reset() {
    borders.clear();
    fixed_until_failure = -1;
    unmaps = false;
    across = 0;
  }
};

TEST(PageMover, FindsWhereMappingsEnd) {
  NEEDS_MOVES();
  Kernel::reset();
  Memory m(64 * kMiB);
  std::mt19937_64 random(5);
  for (int round = 0; round < 12; ++round) {
    PageMover mover(&Kernel::remap);
    const std::size_t bytes = 4 * kMiB + random() % (8 * kMiB) / page_size() * page_size();
    Kernel::borders.clear();
    for (std::uint64_t n = random() % 6; n > 0; --n) {
      Kernel::borders.insert(
          reinterpret_cast<std::uintptr_t>(m.at(random() % (bytes / page_size()) * page_size())));
    }
    Kernel::across = 0;
    fill(m.at(0), bytes, static_cast<std::uint64_t>(round));
    ::madvise(m.at(32 * kMiB), 32 * kMiB, MADV_DONTNEED);
    ASSERT_EQ(mover.move(m.at(32 * kMiB), m.at(0), bytes).bytes, bytes) << round;
    EXPECT_TRUE(holds(m.at(32 * kMiB), bytes, static_cast<std::uint64_t>(round))) << round;
    EXPECT_EQ(Kernel::across == 0, Kernel::borders.empty() || (Kernel::borders.size() == 1 &&
                                                               *Kernel::borders.begin() ==
                                                                   reinterpret_cast<std::uintptr_t>(m.at(0))))
        << round;
    EXPECT_LE(Kernel::across, 100) << round;
  }
  Kernel::reset();
}

TEST(PageMover, KnowsWhereItsOwnPiecesEnd) {
  NEEDS_MOVES();
  Kernel::reset();
  Memory m(64 * kMiB);
  PageMover mover(&Kernel::remap);
  fill(m.at(0), 2 * kMiB, 1);
  ASSERT_EQ(mover.move(m.at(32 * kMiB), m.at(0), 2 * kMiB).bytes, 2 * kMiB);
  fill(m.at(34 * kMiB), kMiB, 1 + 2 * kMiB);
  Kernel::borders.insert(reinterpret_cast<std::uintptr_t>(m.at(34 * kMiB)));
  ASSERT_EQ(mover.move(m.at(0), m.at(32 * kMiB), 3 * kMiB).bytes, 3 * kMiB);
  EXPECT_EQ(Kernel::across, 0);
  EXPECT_TRUE(holds(m.at(0), 3 * kMiB, 1));
  Kernel::reset();
}

TEST(PageMover, PutsTheBytesWhereThereIsAPlaceWhenTheKernelRunsOutOfMemory) {
  NEEDS_MOVES();
  for (const bool unmaps : {false, true}) {
    for (int pieces = 0; pieces < 4; ++pieces) {
      Kernel::reset();
      Kernel::unmaps = unmaps;
      Memory m(64 * kMiB);
      for (std::size_t border = kMiB; border < 4 * kMiB; border += kMiB)
        Kernel::borders.insert(reinterpret_cast<std::uintptr_t>(m.at(border)));
      Kernel::fixed_until_failure = pieces;
      PageMover mover(&Kernel::remap);
      fill(m.at(0), 4 * kMiB, 1);
      const Moved moved = mover.move(m.at(32 * kMiB), m.at(0), 4 * kMiB);
      if (unmaps) {  // then the place is mapped again, and so are those of the pieces after it
        EXPECT_EQ(moved.bytes, 4 * kMiB) << pieces;
        EXPECT_FALSE(moved.place_lost || moved.old_place_lost) << pieces;
        EXPECT_TRUE(holds(m.at(32 * kMiB), 4 * kMiB, 1)) << pieces;
        EXPECT_TRUE(is_zero(m.at(0), 4 * kMiB)) << pieces;
      } else {  // then nobody can tell whose the place is: the bytes are where they were
        EXPECT_EQ(moved.bytes, 0u) << pieces;
        EXPECT_TRUE(moved.place_lost) << pieces;
        EXPECT_TRUE(holds(m.at(0), 4 * kMiB, 1)) << pieces;
      }
    }
  }
  Kernel::reset();
}

TEST(PageMover, SaysWhenTheOldPlaceIsLost) {
  NEEDS_MOVES();
  for (const bool unmaps : {false, true}) {
    Kernel::reset();
    Kernel::unmaps = unmaps;
    Kernel::fixed_until_failure = 1;
    Memory m(64 * kMiB);
    PageMover mover(&Kernel::remap);
    fill(m.at(0), 4 * kMiB, 1);
    const Moved moved = mover.move(m.at(32 * kMiB), m.at(0), 4 * kMiB);
    EXPECT_EQ(moved.bytes, 4 * kMiB);
    EXPECT_TRUE(holds(m.at(32 * kMiB), 4 * kMiB, 1));
    EXPECT_EQ(moved.old_place_lost, !unmaps);
    EXPECT_EQ(unmaps && !is_zero(m.at(0), 4 * kMiB), false);
  }
  Kernel::reset();
}

}  // namespace
}  // namespace extmem::os
