// A control segment that turns to garbage while processes use it: whoever only looks gets errors and breaches, is never
// killed, and never hangs. (Participants map the segment for writing and believe it on their fast paths: what becomes of
// them is not asked here. docs/recovery.md)
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "contract/runtime_directory.hpp"
#include "contract/segment_tables.hpp"
#include "extmem/extmem.hpp"

namespace extmem::test {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kRound{300};
constexpr std::chrono::seconds kWatchdog{60};  // for what takes some milliseconds on a quiet machine

OpenOptions options_in(const std::string& directory) {
  OpenOptions options;
  options.directory = directory.c_str();
  options.sizes.max_regions = 16;
  options.sizes.max_heaps = 8;
  options.sizes.max_memzones = 32;
  options.sizes.max_tags = 16;
  options.sizes.max_threads = 16;
  options.sizes.small_metadata = 4 << 20;
  options.sizes.large_metadata = 16 << 20;
  return options;
}

/// Uses the domain for as long as it can. Damage may kill it or make it hang: the test ends it.
[[noreturn]] void use(const std::string& directory, unsigned seed) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int null = ::open("/dev/null", O_WRONLY);
  ::dup2(null, STDERR_FILENO);  // a sanitizer's report of what is allowed here
  auto domain = Domain::open("d", options_in(directory));
  if (!domain) ::_exit(0);
  auto heap = domain->find_heap("h");
  auto tag = domain->intern_tag("t");
  if (!heap || !tag) ::_exit(0);
  std::mt19937 random(seed);
  std::vector<void*> held(200, nullptr);
  AllocOptions tagged;
  tagged.tag = *tag;
  for (unsigned i = 0;; ++i) {
    void*& p = held[random() % held.size()];
    if (p != nullptr) {
      (void)domain->deallocate(p);
      p = nullptr;
    } else {
      const std::size_t size = 1 + random() % (random() % 16 == 0 ? 50'000 : 1000);
      p = (random() % 3 == 0 ? heap->allocate(size, tagged) : heap->allocate(size)).value_or(nullptr);
    }
    if (i % 512 == 0) {
      (void)domain->reserve_memzone(*heap, "z", 1000);
      (void)domain->free_memzone("z");
      ::usleep(500);
    }
  }
}

/// All that an inspector can do. Its answers may be anything.
void look_once(Inspector& inspector) {
  (void)inspector.refresh();
  std::size_t unstable = 0;
  (void)inspector.verify([](const Breach& b) { ASSERT_NE(b.what, nullptr); }, &unstable);
  std::vector<std::uint32_t> heaps = {0, 7};
  (void)inspector.walk_heaps([&](const HeapInfo& info) {
    EXPECT_LE(std::string(info.name).size(), kMaxNameLength);
    return heaps.push_back(info.id), true;
  });
  (void)inspector.walk_regions([](const RegionInfo&) { return true; });
  (void)inspector.walk_participants(
      [](const ParticipantInfo& info) { return std::string(info.name).size() < 16; });
  (void)inspector.walk_memzones(
      [](const MemzoneInfo& info) { return std::string(info.name).size() <= kMaxNameLength; });
  (void)inspector.walk_tags([](Tag, const char* name) { return std::string(name).size() <= kMaxNameLength; });
  for (const std::uint32_t id : heaps) {
    bool stable = false;
    (void)inspector.stats(id, &stable);
    TagStats tags[8];
    (void)inspector.tag_stats(id, tags, &stable);
    HolderReport holders;
    (void)inspector.holders(id, holders, &stable);
    std::size_t entries = 0;
    (void)inspector.walk(
        id,
        [&](const WalkEntry& e) {
          EXPECT_TRUE(e.name == nullptr || std::string(e.name).size() <= kMaxNameLength);
          return ++entries < 1'000'000;
        },
        WalkOptions{true}, &stable);
  }
}

[[noreturn]] void look(const std::string& directory, steady_clock::time_point until) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  std::size_t looks = 0;
  auto inspector = Inspector::open("d", directory.c_str());
  do {
    auto again = Inspector::open("d", directory.c_str());
    if (again) look_once(*again);
    if (inspector) look_once(*inspector);
    ++looks;
  } while (steady_clock::now() < until);
  ::_exit(looks != 0 && !testing::Test::HasFailure() ? 0 : 1);
}

class HostileDomain : public testing::Test {
 protected:
  /// A domain, made and kept open by a child that then sleeps for ever.
  static pid_t make(const RuntimeDirectory& directory) {
    int ready[2];
    EXPECT_EQ(::pipe2(ready, O_CLOEXEC), 0);
    const pid_t child = ::fork();
    if (child == 0) {
      ::prctl(PR_SET_PDEATHSIG, SIGKILL);
      auto domain = Domain::open("d", options_in(directory.path()));
      auto heap = domain ? domain->create_heap("h") : Result<Heap>(domain.error());
      BackingSpec spec;
      spec.kind = BackingKind::memfd;
      spec.length = 4 << 20;
      bool good = heap && domain->add_backing(*heap, spec) && domain->add_backing(*heap, spec) &&
                  domain->reserve_memzone(*heap, "zone", 5000);
      for (std::size_t size = 16; good && size < 40'000; size += 500) good = heap->allocate(size).ok();
      if (good) (void)::write(ready[1], "y", 1);
      for (;;) ::pause();
    }
    char answer = 'n';
    ::close(ready[1]);
    EXPECT_EQ(::read(ready[0], &answer, 1), 1);
    EXPECT_EQ(answer, 'y');
    ::close(ready[0]);
    return child;
  }
  /// Waits for the inspecting child, and says how it ended.
  static void expect_survives(pid_t looker) {
    const auto until = steady_clock::now() + kWatchdog;
    int status = 0;
    pid_t ended = 0;
    while ((ended = ::waitpid(looker, &status, WNOHANG)) == 0 && steady_clock::now() < until)
      std::this_thread::sleep_for(milliseconds(5));
    if (ended == 0) {
      ADD_FAILURE() << "the inspector hangs";
      ::kill(looker, SIGABRT);
      ::waitpid(looker, &status, 0);
      return;
    }
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0)
        << (WIFSIGNALED(status) ? "killed by signal " + std::to_string(WTERMSIG(status))
                                : "exit " + std::to_string(WEXITSTATUS(status)));
  }
  static void end(const std::vector<pid_t>& users) {
    for (const pid_t user : users) {
      ::kill(user, SIGKILL);
      ::waitpid(user, nullptr, 0);
    }
  }
};

unsigned seed_of_this_run() {
  const char* given = std::getenv("EXTMEM_SEED");
  return given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device()();
}

TEST_F(HostileDomain, FlippedBytesNeverKillOrHoldUpAnInspector) {
  const unsigned seed = seed_of_this_run();
  std::printf("EXTMEM_SEED=%u\n", seed);
  std::mt19937 random(seed);
  const char* rounds = std::getenv("EXTMEM_ROUNDS");
  for (int round = 0; round < (rounds != nullptr ? std::atoi(rounds) : 12) && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    RuntimeDirectory directory;
    std::vector<pid_t> users = {make(directory)};
    const std::string control = directory.file("d", "control");
    const std::vector<std::uint64_t> pages = pages_with_data(control);
    ASSERT_FALSE(pages.empty());
    for (unsigned i = 0; i < 2; ++i) {
      users.push_back(::fork());
      if (users.back() == 0) use(directory.path(), seed + i);
    }
    const auto until = steady_clock::now() + kRound;
    const pid_t looker = ::fork();
    if (looker == 0) look(directory.path(), until);
    {
      MappedSegment segment(control);
      // Few at first, so that the heaps are walked to the end; the header only in some rounds.
      const unsigned per_burst = round % 3 == 0 ? 1 : round % 3 == 1 ? 8 : 200;
      while (steady_clock::now() < until) {
        for (unsigned i = 0; i < per_burst; ++i) {
          const std::uint64_t page = pages[random() % pages.size()];
          if (page == 0 && round % 4 != 0) continue;
          // Half of them in records, which are dense where a page is used: a byte that is not zero.
          auto* const bytes = reinterpret_cast<unsigned char*>(segment.base() + page);
          std::size_t at = random() % 4096;
          for (int tries = 0; tries < 64 && bytes[at] == 0 && random() % 2 == 0; ++tries)
            at = random() % 4096;
          bytes[at] =
              static_cast<unsigned char>(random() % 3 == 0 ? random() : bytes[at] ^ 1u << random() % 8);
        }
        std::this_thread::sleep_for(milliseconds(2));
      }
    }
    expect_survives(looker);
    end(users);
  }
}

TEST_F(HostileDomain, NorDoesAFileThatIsCutShort) {
  std::mt19937 random(20261125);
  for (int round = 0; round < 8 && !HasFailure(); ++round) {
    SCOPED_TRACE(round);
    RuntimeDirectory directory;
    const pid_t keeper = make(directory);
    const std::string control = directory.file("d", "control");
    struct stat status {};
    ASSERT_EQ(::stat(control.c_str(), &status), 0);
    const auto until = steady_clock::now() + kRound;
    const pid_t looker = ::fork();
    if (looker == 0) look(directory.path(), until);
    std::this_thread::sleep_for(milliseconds(random() % 50));
    while (steady_clock::now() < until) {
      ASSERT_EQ(::truncate(control.c_str(),
                           static_cast<off_t>(random() % static_cast<std::uint64_t>(status.st_size))),
                0);
      std::this_thread::sleep_for(milliseconds(3));
      ASSERT_EQ(::truncate(control.c_str(), status.st_size), 0);
      std::this_thread::sleep_for(milliseconds(3));
    }
    expect_survives(looker);
    end({keeper});
  }
}

}  // namespace
}  // namespace extmem::test
