// What broke: reading a word of the control segment that nobody had ever stored to takes space in its tmpfs; where that is
// full, verify(), remove_region() and every look at a wrong pointer ended the process with a SIGBUS. And a span that grew or
// shrank in place stored where no space had been taken.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <functional>
#include <string>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr int kCannotMount = 77;

struct World {
  Domain domain;
  Heap heap;
  RegionId region;
  std::byte* base = nullptr;
  std::string folder;

  /// Leaves no byte free.
  void fill() const {
    const int file = ::open((folder + "/.filler").c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
    std::array<char, 4096> page{};
    while (::write(file, page.data(), page.size()) > 0) {
    }
    ::close(file);
  }
};

class FullTmpfs : public testing::Test {
 protected:
  /// Calls `prepare`, fills the tmpfs, and calls `use`, in a child with a tmpfs of its own. Each says whether all went well.
  static void expect(const char* what, const std::function<bool(World&)>& prepare,
                     const std::function<bool(World&)>& use) {
    const std::string folder = "/tmp/extmem-full-" + std::to_string(::getpid());
    ASSERT_TRUE(::mkdir(folder.c_str(), 0700) == 0 || errno == EEXIST);
    const pid_t child = ::fork();
    if (child == 0) {
      if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0 ||
          ::mount("extmem-test", folder.c_str(), "tmpfs", 0, "mode=0700,size=8m") != 0)
        ::_exit(kCannotMount);
      World world;
      world.folder = folder;
      OpenOptions options;
      options.directory = folder.c_str();
      options.sizes.small_metadata = 1 << 20;
      options.sizes.large_metadata = 64 << 20;
      auto opened = Domain::open("d", options);
      if (!opened) ::_exit(2);
      world.domain = std::move(*opened);
      world.heap = *world.domain.create_heap("h");
      RegionSpec spec;  // nobody touches its memory
      spec.length = 4096 * kMiB;
      spec.base = ::mmap(nullptr, spec.length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      auto region = world.domain.add_region(world.heap, spec);
      if (!region) ::_exit(3);
      world.region = *region;
      world.base = static_cast<std::byte*>(spec.base);
      if (!prepare(world)) ::_exit(4);
      world.fill();
      ::_exit(use(world) ? 0 : 5);
    }
    int status = 0;
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ::rmdir(folder.c_str());
    if (WIFEXITED(status) && WEXITSTATUS(status) == kCannotMount)
      GTEST_SKIP() << "needs the right to mount a tmpfs";
    EXPECT_EQ(status, 0) << what << ": "
                         << (WIFSIGNALED(status) ? ::strsignal(WTERMSIG(status)) : "it did not go well");
  }
  static bool nothing(World&) { return true; }
};

TEST_F(FullTmpfs, RegionsAreRemoved) {
  expect("remove", nothing, [](World& w) { return w.domain.remove_region(w.region).ok(); });
  expect("drain", nothing,
         [](World& w) { return w.domain.drain_region(w.region, std::chrono::seconds(60)).ok(); });
}

TEST_F(FullTmpfs, EverythingIsVerifiedAndListed) {
  expect(
      "verify", [](World& w) { return w.heap.allocate(100).ok() && w.heap.allocate(100 * kMiB).ok(); },
      [](World& w) {
        return w.domain.verify().value_or(1) == 0 &&
               w.heap.walk([](const WalkEntry&) { return true; }, {.objects = true}).ok() &&
               w.heap.stats().ok() && w.domain.recover().ok() && w.heap.flush().ok();
      });
}

TEST_F(FullTmpfs, WrongPointersAreRefused) {
  expect(
      "wrong pointers", [](World& w) { return w.heap.allocate(64).ok() && w.heap.allocate(100 * kMiB).ok(); },
      [](World& w) {
        bool good = true;
        for (std::size_t at = 8; at < 4096 * kMiB; at += kMiB) {
          std::byte* const p = w.base + at;
          good &= w.domain.owner_of(p).ok() && !w.heap.usable_size(p).ok() && !w.domain.deallocate(p).ok();
        }
        for (std::uint32_t slot = 2; slot < 4096; ++slot)
          good &= !w.domain.region_info(RegionId{slot, 1}).ok() &&
                  !w.domain.from_region_ptr(RegionPtr{std::uint64_t{slot} << 48 | 64}).ok();
        return good;
      });
}

TEST_F(FullTmpfs, SpansAreFreedAndResized) {
  constexpr std::size_t kCount = 30;
  static std::array<void*, kCount> spans;
  const auto allocate = [](World& w) {
    for (void*& p : spans) {
      p = w.heap.allocate(64 * kMiB + 4096).value_or(nullptr);
      if (p == nullptr) return false;
    }
    return true;
  };
  const auto free_all = [](World& w) {
    bool good = true;
    for (void* p : spans) good &= w.heap.deallocate(p).ok();
    return good && w.domain.verify().value_or(1) == 0;
  };
  expect("free", allocate, free_all);
  expect("shrink", allocate, [&](World& w) {
    bool good = true;
    for (std::size_t i = 0; i < kCount; ++i)
      good &= w.heap.reallocate(spans[i], (i + 1) * kMiB + 4096).value_or(nullptr) == spans[i];
    return good && free_all(w);
  });
  expect(
      "grow",
      [&](World& w) {
        bool good = allocate(w);
        for (std::size_t i = 0; i < kCount; i += 2) good &= w.heap.deallocate(spans[i]).ok();
        return good;
      },
      [](World& w) {
        bool good = true;
        AllocOptions in_place;
        in_place.in_place = true;
        for (std::size_t i = 1; i < kCount; i += 2) {
          (void)w.heap.reallocate(spans[i], (64 + i) * kMiB,
                                  in_place);  // where that fails, it stays as it was
          good &= w.heap.deallocate(spans[i]).ok();
        }
        return good && w.domain.verify().value_or(1) == 0;
      });
}

}  // namespace
}  // namespace extmem
