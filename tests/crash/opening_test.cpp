// Processes that come at the same time, and those that come when everybody has gone.
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <string>
#include <vector>

#include "base/crash_point.hpp"
#include "crash/role.hpp"
#include "extmem/domain.hpp"

namespace extmem::crash {
namespace {

class CrashOpening : public ::testing::Test {
 protected:
  ~CrashOpening() override {
    (void)Domain::remove("opening", directory_.c_str());
    (void)::rmdir(directory_.c_str());
  }
  /// A process that does this, and says with its status whether it went well.
  static pid_t process(const std::function<bool()>& work) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(work() ? 0 : 1);
    return pid;
  }
  static int status_of(pid_t pid) {
    int status = -1;
    ::waitpid(pid, &status, 0);
    return status;
  }
  Result<Domain> open(OpenMode mode = OpenMode::create_or_open) {
    OpenOptions options = options_;
    options.mode = mode;
    return Domain::open("opening", options);
  }

  std::string directory_ = "/dev/shm/extmem-crash-" + std::to_string(::getpid()) + "-opening";
  OpenOptions options_ = small_domain(directory_);
};

TEST_F(CrashOpening, AllOfManyCreatorsSucceedAndOneCreates) {
  for (int round = 0; round < 15; ++round) {
    int gate[2];
    ASSERT_EQ(::pipe(gate), 0);
    std::vector<pid_t> all;
    for (int i = 0; i < 5; ++i) {
      all.push_back(process([&] {
        char go;
        ::close(gate[1]);
        (void)!::read(gate[0], &go, 1);  // returns when the parent closes the other end
        auto domain = open();
        if (!domain) std::fprintf(stderr, "%s\n", domain.error().message());
        return domain && domain->heap_by_id(0).ok() && *domain->verify() == 0;
      }));
    }
    ::close(gate[0]);
    ::close(gate[1]);
    for (const pid_t pid : all) EXPECT_EQ(status_of(pid), 0);
    EXPECT_TRUE(Domain::remove("opening", directory_.c_str()));
  }
}

TEST_F(CrashOpening, MemoryAndMemzonesOutliveEverybody) {
  for (const bool killed : {false, true}) {
    const int made = status_of(process([&] {
      auto domain = open();
      if (!domain) return false;
      auto heap = domain->create_heap("h");
      BackingSpec spec;
      spec.length = 2u << 20;
      if (!heap || !domain->add_backing(*heap, spec)) return false;
      auto zone = domain->reserve_memzone(*heap, "zone", 5000);
      if (!zone || !heap->allocate(300)) return false;
      std::memset(zone->addr, 0x5a, 5000);
      if (killed) ::kill(::getpid(), SIGKILL);
      return true;
    }));
    EXPECT_EQ(made, killed ? SIGKILL : 0);
    // Nobody is there now.
    EXPECT_EQ(status_of(process([&] {
                auto domain = open(OpenMode::open_only);
                if (!domain) return false;
                auto zone = domain->find_memzone("zone");
                if (!zone || zone->addr == nullptr) return false;
                const auto* bytes = static_cast<const unsigned char*>(zone->addr);
                for (int i = 0; i < 5000; ++i) {
                  if (bytes[i] != 0x5a) return false;
                }
                auto heap = domain->find_heap("h");
                if (!heap || heap->stats()->used_count != 1 || !heap->allocate(100))
                  return false;  // the memzone alone
                return *domain->verify() == 0;
              })),
              0);
    EXPECT_TRUE(Domain::remove("opening", directory_.c_str()));
  }
}

// The domain's folder has a file for each region, for as long as the region and no longer.
TEST_F(CrashOpening, FileOfARegionGoesWithTheRegion) {
  auto domain = open();
  ASSERT_TRUE(domain);
  auto heap = domain->create_heap("h");
  const auto files = [&] {
    std::vector<std::string> names;
    const std::string list = "ls " + directory_ + "/opening";
    std::FILE* pipe = ::popen(list.c_str(), "r");
    char line[256];
    while (std::fgets(line, sizeof line, pipe) != nullptr) {
      if (std::strncmp(line, "region-", 7) == 0) names.emplace_back(line);
    }
    ::pclose(pipe);
    return names.size();
  };
  BackingSpec spec;
  spec.length = 2u << 20;
  auto region = domain->add_backing(*heap, spec);
  ASSERT_TRUE(region);
  EXPECT_EQ(files(), 1u);
  EXPECT_TRUE(domain->remove_region(*region));
  EXPECT_EQ(files(), 0u);
}

// The directory's lock, which a cleaner needs only where a heap keeps what the dead held: here it opens it all the same.
TEST_F(CrashOpening, LockOfADeadProcessIsOpenedAlsoWhereNothingIsKept) {
  auto survivor = open();
  ASSERT_TRUE(survivor) << survivor.error().message();
  const pid_t dead = process([&] {
    auto domain = open();
    base::crash_point_hook = [](const char* name) {
      if (std::strcmp(name, "heap.named") == 0) ::kill(::getpid(), SIGKILL);
    };
    return domain && domain->create_heap("half").ok();
  });
  const int status = status_of(dead);
  ASSERT_TRUE(WIFSIGNALED(status)) << status;
  auto recovered = survivor->recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->participants, 1u);
  auto heap = survivor->create_heap("half");
  EXPECT_TRUE(heap) << heap.error().message();
}

// Whoever dies before it has told the others of a region: its cleaner tells them.
TEST_F(CrashOpening, RegionThatADeadProcessHasNotToldOfIsFoundByOthers) {
  auto survivor = open();
  ASSERT_TRUE(survivor) << survivor.error().message();
  auto heap = survivor->create_heap("h");
  ASSERT_TRUE(heap) << heap.error().message();
  ASSERT_FALSE(heap->allocate(100)) << "it has no memory";
  ASSERT_TRUE(survivor->poll());
  const pid_t dead = process([&] {
    auto domain = open();
    if (!domain) return false;
    base::crash_point_hook = [](const char* name) {
      if (std::strcmp(name, "add.attached") == 0) ::kill(::getpid(), SIGKILL);
    };
    BackingSpec spec;
    spec.length = 2u << 20;
    return domain->add_backing(*domain->find_heap("h"), spec).ok();
  });
  ASSERT_TRUE(WIFSIGNALED(status_of(dead)));
  const pid_t cleaner = process([&] {
    auto domain = open();  // recovers
    return domain.ok();
  });
  ASSERT_EQ(status_of(cleaner), 0);
  auto p = heap->allocate(100);
  EXPECT_TRUE(p) << p.error().message();
}

TEST_F(CrashOpening, HeapThatADeadProcessHasDestroyedIsStaleElsewhere) {
  auto survivor = open();
  ASSERT_TRUE(survivor) << survivor.error().message();
  auto heap = survivor->create_heap("h");
  ASSERT_TRUE(heap) << heap.error().message();
  int opened[2];
  int go[2];
  ASSERT_EQ(::pipe(opened), 0);
  ASSERT_EQ(::pipe(go), 0);
  const pid_t dead = process([&] {
    char byte = 0;
    auto domain = open();
    if (!domain || ::write(opened[1], &byte, 1) != 1 || ::read(go[0], &byte, 1) != 1) return false;
    static bool emptied = false;
    base::crash_point_hook = [](const char* name) {
      emptied |= std::strcmp(name, "destroy.emptied") == 0;
      if (emptied && std::strcmp(name, "transaction.committed") == 0) ::kill(::getpid(), SIGKILL);
    };
    return domain->destroy_heap(*domain->find_heap("h")).ok();
  });
  char byte = 0;
  ASSERT_EQ(::read(opened[0], &byte, 1), 1);
  ASSERT_TRUE(survivor->poll());  // it knows of all until here
  ASSERT_EQ(::write(go[1], &byte, 1), 1);
  ASSERT_TRUE(WIFSIGNALED(status_of(dead)));
  for (const int fd : {opened[0], opened[1], go[0], go[1]}) ::close(fd);
  auto recovered = survivor->recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_FALSE(survivor->find_heap("h")) << "it was destroyed";
  auto p = heap->allocate(100);
  ASSERT_FALSE(p);
  EXPECT_EQ(p.error().code(), ESTALE) << p.error().message();
}

TEST_F(CrashOpening, WhatAHeapKeepsHasItsTag) {
  auto survivor = open();
  ASSERT_TRUE(survivor) << survivor.error().message();
  HeapOptions keeps;
  keeps.on_death = OnDeath::keep;
  auto heap = survivor->create_heap("keeps", keeps);
  ASSERT_TRUE(heap) << heap.error().message();
  BackingSpec spec;
  spec.length = 2u << 20;
  ASSERT_TRUE(survivor->add_backing(*heap, spec));
  const pid_t dead = process([&] {
    auto domain = open();
    AllocOptions tagged;
    tagged.tag = *domain->intern_tag("kept");
    if (domain->find_heap("keeps")->allocate(100, tagged)) ::kill(::getpid(), SIGKILL);
    return false;
  });
  ASSERT_TRUE(WIFSIGNALED(status_of(dead)));
  auto recovered = survivor->recover();
  ASSERT_TRUE(recovered) << recovered.error().message();
  EXPECT_EQ(recovered->kept_objects, 1u);
  TagStats stats[8];
  auto tags = heap->tag_stats(stats);
  ASSERT_TRUE(tags) << tags.error().message();
  std::uint64_t kept = 0;
  for (const TagStats& one : stats) kept += std::strcmp(one.name, "kept") == 0 ? one.live_count : 0;
  EXPECT_EQ(kept, 1u);
}

}  // namespace
}  // namespace extmem::crash
