// fork: the child of a process with domains, many threads at work in them, goes on by itself and never hangs.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

/// Runs `body` in a forked child: what it returns is 0, or the number of the line that failed. -1: it hung or crashed.
int in_child(const std::function<int()>& body) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    ::alarm(20);
    ::_exit(body() == 0 ? 0 : 1);
  }
  int status = 0;
  if (::waitpid(pid, &status, 0) != pid) return -1;
  if (WIFSIGNALED(status)) return -WTERMSIG(status);
  return WEXITSTATUS(status);
}

#define CHILD_CHECK(condition)                                                   \
  do {                                                                           \
    if (!(condition)) {                                                          \
      std::fprintf(stderr, "in the child: line %d: %s\n", __LINE__, #condition); \
      return 1;                                                                  \
    }                                                                            \
  } while (false)

/// Threads that allocate and free until told to stop; they hold up to 64 objects each. Once made, none of them is inside
/// malloc: AddressSanitizer's allocator, unlike ours and the C library's, hangs in the child of such a fork.
class Churn {
 public:
  Churn(Heap heap, int threads) {
    for (int t = 0; t < threads; ++t) {
      threads_.emplace_back([this, heap, t]() mutable {
        std::mt19937 random(static_cast<unsigned>(t));
        std::vector<void*> held(64);
        ++running_;
        while (!stop_.load(std::memory_order_relaxed)) {
          void*& p = held[random() % held.size()];
          if (p != nullptr) (void)heap.deallocate(p);
          p = heap.allocate(random() % 16 == 0 ? 50000 : 16 + random() % 2000).value_or(nullptr);
        }
        for (void* p : held) {
          if (p != nullptr) (void)heap.deallocate(p);
        }
      });
    }
    while (running_ != threads) std::this_thread::yield();
  }
  ~Churn() {
    stop_ = true;
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  std::atomic<bool> stop_{false};
  std::atomic<int> running_{0};
  std::vector<std::thread> threads_;
};

/// Allocates, frees, verifies, in threads of its own too.
int use(Domain& domain, Heap heap) {
  std::vector<void*> all;
  for (std::size_t i = 0; i < 2000; ++i) {
    const std::size_t size = i % 50 == 0 ? 40000 : 16 + i % 900;
    auto p = heap.allocate(size);
    CHILD_CHECK(p.ok());
    fill(*p, size, i);
    all.push_back(*p);
    if (i % 3 == 0) {
      CHILD_CHECK(heap.deallocate(all.back()).ok());
      CHILD_CHECK(!heap.deallocate(all.back()).ok());
      all.pop_back();
    }
  }
  std::atomic<int> failed{0};
  std::thread other([&] {
    for (int i = 0; i < 500; ++i) {
      auto p = heap.allocate(100);
      if (!p || !heap.deallocate(*p)) failed = 1;
    }
  });
  other.join();
  CHILD_CHECK(failed == 0);
  for (void* p : all) CHILD_CHECK(heap.deallocate(p).ok());
  std::size_t breaches = 0;
  const auto verified = domain.verify([&](const Breach& b) {
    std::fprintf(stderr, "in the child: breach: %s (%lu, expected %lu, found %lu)\n", b.what, b.where,
                 b.expected, b.found);
    ++breaches;
  });
  CHILD_CHECK(verified.ok());
  CHILD_CHECK(breaches == 0);
  CHILD_CHECK(heap.stats().ok());
  return 0;
}

Domain open(const RuntimeDirectory& directory, bool last = false) {
  OpenOptions options;
  options.directory = directory.c_str();
  options.remove_when_last = last;
  auto opened = Domain::open("d", options);
  EXPECT_TRUE(opened) << opened.error().message();
  return std::move(*opened);
}

Heap heap_in(Domain& domain, const char* name, BackingKind kind, std::size_t length = 32 * kMiB) {
  Heap heap = *domain.create_heap(name);
  BackingSpec spec;
  spec.kind = kind;
  spec.length = length;
  auto region = domain.add_backing(heap, spec);
  EXPECT_TRUE(region) << region.error().message();
  return heap;
}

void expect_sound(const Domain& domain) {
  const auto found = domain.verify([](const Breach& b) { ADD_FAILURE() << b.what; });
  EXPECT_TRUE(found) << found.error().message();
}

TEST(Fork, APrivateDomainIsCopied) {
  Domain domain = *Domain::create();
  Heap heap = heap_in(domain, "h", BackingKind::anonymous);
  void* p = *heap.allocate(1000);
  fill(p, 1000, 1);
  EXPECT_EQ(in_child([&] {
              CHILD_CHECK(is_filled(p, 1000, 1));
              fill(p, 1000, 2);
              CHILD_CHECK(heap.deallocate(p).ok());
              return use(domain, heap);
            }),
            0);
  EXPECT_TRUE(is_filled(p, 1000, 1)) << "the child has written to its own copy";
  EXPECT_TRUE(heap.deallocate(p));
  expect_sound(domain);
}

TEST(Fork, ChildrenOfThreadedProcessesGoOn) {
  for (const Style style : {Style::binned, Style::exact}) {
    Domain domain = *Domain::create();
    Heap heap = *domain.create_heap("h", {.style = style});
    ASSERT_TRUE(domain.add_backing(heap, {.kind = BackingKind::anonymous, .length = 64 * kMiB}));
    const Churn churn(heap, 4);
    for (int round = 0; round < 60; ++round) {
      ASSERT_EQ(in_child([&] { return use(domain, heap); }), 0) << "round " << round;
    }
    expect_sound(domain);
  }
}

TEST(Fork, WhileRegionsComeAndGo) {
  Domain domain = *Domain::create();
  Heap heap = heap_in(domain, "h", BackingKind::anonymous);
  std::atomic<bool> stop{false};
  std::atomic<bool> running{false};
  std::thread changing([&] {
    running = true;
    while (!stop) {
      auto region = domain.add_backing(heap, {.kind = BackingKind::anonymous, .length = 2 * kMiB});
      auto other = domain.create_heap("other");
      if (region) (void)domain.remove_region(*region);
      if (other) (void)domain.destroy_heap(*other);
    }
  });
  const Churn churn(heap, 2);
  while (!running) std::this_thread::yield();
  for (int round = 0; round < 60; ++round) {
    EXPECT_EQ(
        in_child([&] {
          if (const int failed = use(domain, heap); failed != 0) return failed;
          CHILD_CHECK(domain.add_backing(heap, {.kind = BackingKind::anonymous, .length = 2 * kMiB}).ok());
          CHILD_CHECK(domain.create_heap("mine").ok());
          CHILD_CHECK(domain.reserve_memzone(heap, "zone", 4096).ok());
          return 0;
        }),
        0)
        << "round " << round;
  }
  stop = true;
  changing.join();
}

TEST(Fork, AGrandchildGoesOnToo) {
  Domain domain = *Domain::create();
  Heap heap = heap_in(domain, "h", BackingKind::anonymous);
  const Churn churn(heap, 2);
  EXPECT_EQ(
      in_child([&] {
        const Churn own(heap, 2);
        return in_child([&] { return in_child([&] { return use(domain, heap); }) + use(domain, heap); });
      }),
      0);
}

TEST(Fork, SharedMappingsServeTheParentAlone) {
  Domain domain = *Domain::create();
  Heap heap = *domain.create_heap("h");
  auto memfd = domain.add_backing(heap, {.kind = BackingKind::memfd, .length = 4 * kMiB});
  ASSERT_TRUE(memfd);
  void* const mapped = ::mmap(nullptr, 2 * kMiB, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  auto external = domain.add_region(heap, {.base = mapped, .length = 2 * kMiB});
  ASSERT_TRUE(external);
  void* p = *heap.allocate(100);
  fill(p, 100, 1);
  EXPECT_EQ(
      in_child([&] {
        CHILD_CHECK(is_filled(p, 100, 1));
        auto none = heap.allocate(100);
        CHILD_CHECK(!none.ok() && none.error().code() == ENOMEM);
        CHILD_CHECK(domain.region_info(*memfd)->draining && domain.region_info(*external)->draining);
        CHILD_CHECK(heap.deallocate(p).ok());  // in the copy of the metadata
        CHILD_CHECK(domain.add_backing(heap, {.kind = BackingKind::anonymous, .length = 32 * kMiB}).ok());
        return use(domain, heap);
      }),
      0);
  EXPECT_TRUE(is_filled(p, 100, 1));
  EXPECT_TRUE(heap.deallocate(p)) << "the parent's is held as before";
  EXPECT_FALSE(domain.region_info(*memfd)->draining);
  expect_sound(domain);
  ASSERT_TRUE(domain.remove_region(*external));
  ::munmap(mapped, 2 * kMiB);
}

TEST(Fork, ChildrenHaveNoListenersAndRemoveNoFiles) {
  const RuntimeDirectory directory;
  const std::string path = directory.path() + "/region";
  Domain domain = *Domain::create();
  Heap heap = *domain.create_heap("h");
  auto region = domain.add_backing(
      heap, {.kind = BackingKind::file, .length = kMiB, .path = path.c_str(), .unlink_on_remove = true});
  ASSERT_TRUE(region);
  static int heard;
  heard = 0;
  ASSERT_TRUE(domain.add_listener([](const RegionEvent&, void*) { return ++heard, 0; }, nullptr));
  EXPECT_EQ(in_child([&] {
              CHILD_CHECK(domain.remove_region(*region).ok());
              CHILD_CHECK(heard == 0);
              domain = Domain();
              CHILD_CHECK(heard == 0);
              return 0;
            }),
            0);
  EXPECT_EQ(::access(path.c_str(), F_OK), 0) << "the parent's file stays";
}

TEST(Fork, InsideACallbackOfAPrivateDomain) {
  Domain domain = *Domain::create();
  Heap heap = heap_in(domain, "h", BackingKind::anonymous);
  const Churn churn(heap, 2);
  pid_t child = -1;
  int in_walk = 0;
  const auto walked = heap.walk([&](const WalkEntry&) {
    if (child < 0) {
      child = ::fork();
      if (child == 0) in_walk = heap.allocate(100).error().code();
    }
    return true;
  });
  ASSERT_TRUE(walked);
  if (child == 0) {
    ::alarm(20);
    ::_exit(in_walk == EDEADLK ? use(domain, heap) : 3);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
}

// ---- named domains -----------------------------------------------------------------------------------------

TEST(Fork, InANamedDomainTheChildIsAParticipantOfItsOwn) {
  const RuntimeDirectory directory;
  Domain domain = open(directory);
  Heap heap = heap_in(domain, "h", BackingKind::memfd);
  const Tag tag = *domain.intern_tag("t");
  void* p = *heap.allocate(1000, {.tag = tag});
  fill(p, 1000, 1);
  int to_parent[2], to_child[2];
  ASSERT_EQ(::pipe(to_parent), 0);
  ASSERT_EQ(::pipe(to_child), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    const auto run = [&] {
      CHILD_CHECK(is_filled(p, 1000, 1));
      CHILD_CHECK(domain.participant() == 2);
      auto q = heap.allocate(500, {.tag = tag});
      CHILD_CHECK(q.ok());
      fill(*q, 500, 2);
      const std::uint64_t bits = domain.to_region_ptr(*q)->bits;
      CHILD_CHECK(::write(to_parent[1], &bits, sizeof bits) == sizeof bits);
      char go = 0;
      CHILD_CHECK(::read(to_child[0], &go, 1) == 1);
      CHILD_CHECK(!heap.deallocate(*q).ok());  // the parent has freed it
      CHILD_CHECK(use(domain, heap) == 0);
      for (int i = 0; i < 100; ++i) CHILD_CHECK(heap.allocate(64).ok());
      return 0;
    };
    ::_exit(run());  // without leaving: what it holds is reclaimed
  }
  std::uint64_t bits = 0;
  ASSERT_EQ(::read(to_parent[0], &bits, sizeof bits), static_cast<ssize_t>(sizeof bits));
  std::vector<std::uint32_t> pids;
  ASSERT_TRUE(
      domain.walk_participants([&](const ParticipantInfo& info) { return pids.push_back(info.pid), true; }));
  EXPECT_EQ(pids, (std::vector<std::uint32_t>{static_cast<std::uint32_t>(::getpid()),
                                              static_cast<std::uint32_t>(child)}));
  void* q = *domain.from_region_ptr(RegionPtr{bits});
  EXPECT_TRUE(is_filled(q, 500, 2));
  std::vector<TagStats> tags(8);
  tags.resize(*heap.tag_stats(tags));
  std::uint64_t live = 0;
  for (const TagStats& one : tags) live += one.live_count;
  EXPECT_EQ(live, 2u);
  EXPECT_TRUE(heap.deallocate(q));
  ASSERT_EQ(::write(to_child[1], "g", 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  const auto report = domain.recover();
  ASSERT_TRUE(report) << report.error().message();
  EXPECT_EQ(report->participants, 1u);
  EXPECT_EQ(report->freed_objects, 100u);
  EXPECT_TRUE(is_filled(p, 1000, 1)) << "inherited objects stay the parent's";
  EXPECT_TRUE(heap.deallocate(p));
  EXPECT_EQ(heap.stats()->used_count, 0u);
  expect_sound(domain);
  for (const int fd : {to_parent[0], to_parent[1], to_child[0], to_child[1]}) ::close(fd);
}

TEST(Fork, ChildrenOfThreadedProcessesJoinANamedDomain) {
  const RuntimeDirectory directory;
  Domain domain = open(directory);
  Heap heap = heap_in(domain, "h", BackingKind::memfd, 64 * kMiB);
  {
    const Churn churn(heap, 4);
    for (int round = 0; round < 40; ++round) {
      ASSERT_EQ(in_child([&] {
                  if (const int failed = use(domain, heap); failed != 0) return failed;
                  if (round % 2 == 0) domain = Domain();  // in good order; else as a death
                  return 0;
                }),
                0)
          << "round " << round;
    }
  }
  ASSERT_TRUE(domain.recover());
  EXPECT_EQ(heap.stats()->used_count, 0u);
  expect_sound(domain);
}

TEST(Fork, AChildThatDoesNotUseTheDomainIsNobody) {
  const RuntimeDirectory directory;
  Domain domain = open(directory);
  Heap heap = heap_in(domain, "h", BackingKind::memfd);
  void* p = *heap.allocate(64);
  EXPECT_EQ(in_child([&] {
              domain = Domain();
              return 0;
            }),
            0);
  EXPECT_TRUE(heap.deallocate(p));
  std::size_t count = 0;
  ASSERT_TRUE(domain.walk_participants(
      [&](const ParticipantInfo& info) { return count += info.dead ? 100 : 1, true; }));
  EXPECT_EQ(count, 1u);
  EXPECT_EQ(::access(directory.file("d", "control").c_str(), F_OK), 0);
  expect_sound(domain);
}

TEST(Fork, AChildOutlivesItsParentInANamedDomain) {
  const RuntimeDirectory directory;
  {
    Domain made = open(directory);
    heap_in(made, "h", BackingKind::anonymous);
  }
  EXPECT_EQ(in_child([&] {
              Domain domain = open(directory);
              Heap heap = *domain.find_heap("h");
              CHILD_CHECK(heap.allocate(100).ok());
              int pipe[2];
              CHILD_CHECK(::pipe(pipe) == 0);
              const pid_t parent = ::getpid();
              if (::fork() != 0) {
                ::close(pipe[1]);
                char done = 1;
                (void)!::read(pipe[0], &done, 1);  // joined
                ::raise(SIGKILL);
              }
              // The grandchild tells by a file how it went.
              int failed = domain.participant() == 2 ? 0 : 1;
              (void)!::write(pipe[1], "j", 1);
              while (::getppid() == parent) ::usleep(1000);
              failed |= use(domain, heap);
              failed |= domain.recover().ok() ? 0 : 1;
              std::size_t participants = 0;
              (void)domain.walk_participants([&](const ParticipantInfo&) { return ++participants, true; });
              failed |= participants == 1 ? 0 : 1;
              failed |= heap.stats()->used_count == 0 ? 0 : 1;
              domain = Domain();
              const std::string name = directory.path() + (failed == 0 ? "/.good" : "/.bad");
              ::mkdir(name.c_str(), 0700);
              ::_exit(0);
            }),
            -SIGKILL);
  bool good = false;
  for (int i = 0; i < 20'000 && !good; ++i) {  // 100 seconds: a loaded machine is slow
    good = ::access((directory.path() + "/.good").c_str(), F_OK) == 0;
    if (::access((directory.path() + "/.bad").c_str(), F_OK) == 0) break;
    ::usleep(5000);
  }
  EXPECT_TRUE(good);
}

TEST(Fork, ARemovedDomainIsToldToTheChild) {
  const RuntimeDirectory directory;
  Domain domain = open(directory, true);
  Heap heap = heap_in(domain, "h", BackingKind::memfd);
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    ::alarm(20);
    char go = 0;
    if (::read(pipe[0], &go, 1) != 1) ::_exit(2);
    const auto p = heap.allocate(100);
    ::_exit(!p.ok() && p.error().code() == ESTALE ? 0 : 1);
  }
  domain = Domain();
  ASSERT_EQ(::write(pipe[1], "g", 1), 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  ::close(pipe[0]);
  ::close(pipe[1]);
}

TEST(Fork, InsideACallbackOfANamedDomainTheParentsLocksStay) {
  const RuntimeDirectory directory;
  Domain domain = open(directory);
  Heap heap = heap_in(domain, "h", BackingKind::memfd);
  pid_t child = -1;
  int in_walk = 0;
  const auto walked = heap.walk([&](const WalkEntry&) {
    if (child < 0) {
      child = ::fork();
      if (child == 0) in_walk = heap.allocate(100).error().code();
    }
    return true;
  });
  ASSERT_TRUE(walked);
  if (child == 0) {
    ::alarm(20);
    const auto p = heap.allocate(100);
    ::_exit(!p.ok() && p.error().code() == ESTALE && in_walk == ESTALE ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_TRUE(heap.allocate(100));
  expect_sound(domain);
}

}  // namespace
}  // namespace extmem::test
