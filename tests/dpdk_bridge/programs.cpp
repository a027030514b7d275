#include "programs.hpp"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <thread>

extern char** environ;

namespace bridge_test {

using namespace extmem;

Program::Program(const std::string& file, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), file);
  std::vector<char*> words;
  for (std::string& argument : arguments) words.push_back(argument.data());
  words.push_back(nullptr);
  const int failed = ::posix_spawn(&pid_, file.c_str(), nullptr, nullptr, words.data(), environ);
  EXPECT_EQ(failed, 0) << file << ": " << std::strerror(failed);
  if (failed != 0) pid_ = -1;
}

Program& Program::operator=(Program&& other) noexcept {
  kill();
  pid_ = std::exchange(other.pid_, -1);
  status_ = other.status_;
  return *this;
}

bool Program::running() {
  if (pid_ < 0) return false;
  int status = 0;
  if (::waitpid(pid_, &status, WNOHANG) == 0) return true;
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  pid_ = -1;
  return false;
}

void Program::kill() {
  if (pid_ < 0) return;
  (void)::kill(pid_, SIGKILL);
  int status = 0;
  (void)::waitpid(pid_, &status, 0);
  status_ = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  pid_ = -1;
}

int Program::wait(std::chrono::seconds patience) {
  const auto end = std::chrono::steady_clock::now() + patience;
  while (running()) {
    if (std::chrono::steady_clock::now() > end) {
      ADD_FAILURE() << "a program hangs: process " << pid_;
      kill();
      break;
    }
    std::this_thread::sleep_for(2ms);
  }
  return status_;
}

void Processes::SetUp() {
  ASSERT_EQ(::setenv("EXTMEM_RUNTIME_DIR", directory_.c_str(), 1), 0);
  ASSERT_EQ(::setenv("RUNTIME_DIRECTORY", dpdk_directory_.c_str(), 1), 0);
  capture_file_ = ::testing::TempDir() + "extmem-" + std::to_string(::getpid()) + ".pcap";
}

void Processes::TearDown() {
  seen_ = Domain();
  std::error_code ignored;
  std::filesystem::remove(capture_file_, ignored);
}

void Processes::capture(std::uint64_t packets, std::size_t longest) {
  packets_ = packets;
  Program make(MAKE_CAPTURE, {capture_file_, std::to_string(packets), std::to_string(longest)});
  ASSERT_EQ(make.wait(), 0);
}

Program Processes::reader(std::vector<std::string> options) {
  options.insert(options.begin(), kDomain);
  return Program(PACKET_READER, std::move(options));
}

Program Processes::source(std::vector<std::string> options) {
  std::vector<std::string> arguments = eal_;
  if (arguments.empty()) {
    arguments = {"--no-huge", "--no-shconf", "-m32", "--vdev=net_pcap0,rx_pcap=" + capture_file_};
  }
  // One lcore, which may run on any CPU: EAL would tie every source to the first.
  arguments.push_back("--lcores=0@(0-" +
                      std::to_string(std::max(1u, std::thread::hardware_concurrency()) - 1) + ")");
  for (const char* word : {"--no-pci", "--no-telemetry", "--log-level=critical", "--"})
    arguments.emplace_back(word);
  arguments.insert(arguments.begin(), "--file-prefix=t" + std::to_string(::getpid()));
  arguments.emplace_back(kDomain);
  arguments.push_back(std::to_string(packets_));
  arguments.insert(arguments.end(), options.begin(), options.end());
  return Program(PACKET_SOURCE, std::move(arguments));
}

bool Processes::look() {
  if (seen_) return true;
  OpenOptions open;
  open.mode = OpenMode::open_only;
  auto opened = Domain::open(kDomain, open);
  if (opened) seen_ = std::move(*opened);
  return static_cast<bool>(seen_);
}

Outcome Processes::outcome_of(const Domain& domain, std::uint64_t packets) {
  Outcome outcome;
  const auto control_zone = domain.find_memzone("control"), ledger_zone = domain.find_memzone("ledger");
  if (!control_zone || !ledger_zone) return outcome;
  const auto* const control = static_cast<packets::Control*>(control_zone->addr);
  const auto* const ledger = static_cast<packets::Ledger*>(ledger_zone->addr);
  outcome.read = ledger->count(packets);
  outcome.twice = ledger->twice;
  outcome.damaged = ledger->damaged;
  outcome.orphans = control->orphans;
  outcome.dropped_hands = control->dropped_hands;
  outcome.sent_again = control->sent_again;
  outcome.received = control->received;
  outcome.drained = control->drained;
  outcome.sources = control->sources;
  return outcome;
}

Outcome Processes::counters() { return look() ? outcome_of(seen_, packets_) : Outcome{}; }
std::uint64_t Processes::read_so_far() { return counters().read; }

Outcome Processes::audit() {
  Outcome outcome;
  {
    OpenOptions open;
    open.mode = OpenMode::open_only;
    auto domain = Domain::open(kDomain, open);
    EXPECT_TRUE(domain) << domain.error().message();
    if (!domain) return outcome;
    seen_ = Domain();  // only now: what is open may be the last that holds memory without a name
    EXPECT_TRUE(domain->recover());
    std::size_t participants = 0;
    EXPECT_TRUE(domain->walk_participants([&](const ParticipantInfo&) { return ++participants, true; }));
    EXPECT_EQ(participants, 1u) << "only this test is left";
    auto heap = domain->find_heap(packets::kHeap);
    EXPECT_TRUE(heap);
    if (!heap) return outcome;
    EXPECT_TRUE(heap->flush());
    const auto stats = heap->stats();
    EXPECT_TRUE(stats);
    EXPECT_EQ(stats->used_count, stats->memzones) << "buffers were lost";
    const auto breaches = domain->verify([](const Breach& breach) { ADD_FAILURE() << breach.what; });
    EXPECT_TRUE(breaches && *breaches == 0);

    for (const char* name : {"way", "back"}) {
      const auto zone = domain->find_memzone(name);
      EXPECT_TRUE(zone) << name;
      if (!zone) return outcome;
      const auto ring = Ring::attach(zone->addr, zone->length, 0);
      EXPECT_TRUE(ring) << name << ": " << ring.error().message();
      if (!ring) continue;
      const auto sound = ring->check();
      EXPECT_TRUE(sound) << name << ": " << sound.error().message();
      EXPECT_EQ(ring->size_hint(), 0u) << name;
    }
    outcome = outcome_of(*domain, packets_);
  }
  const auto removed = Domain::remove(kDomain);
  EXPECT_TRUE(removed) << removed.error().message();
  return outcome;
}

void Processes::expect_all_read(const Outcome& outcome) const {
  EXPECT_EQ(outcome.read, packets_);
  EXPECT_EQ(outcome.twice, 0u);
  EXPECT_EQ(outcome.damaged, 0u);
}

}  // namespace bridge_test
