// Packets from a process with DPDK to processes without, through named domains, while any of them are killed.
#include "programs.hpp"

#include <fstream>
#include <random>
#include <sstream>
#include <thread>

namespace bridge_test {
using namespace extmem;

namespace {

TEST_F(Processes, PassOnEveryPacketWithoutCopying) {
  capture(5000);
  Program the_reader = reader();
  Program the_source = source();
  std::string maps;
  while (the_source.running() && maps.find("libextmem") == std::string::npos) {
    std::ifstream file("/proc/" + std::to_string(the_reader.pid()) + "/maps");
    maps = (std::ostringstream() << file.rdbuf()).str();
  }
  EXPECT_NE(maps.find("libextmem.so"), std::string::npos);
  EXPECT_EQ(maps.find("librte"), std::string::npos) << "the reader has DPDK loaded";
  EXPECT_EQ(the_source.wait(), 0);
  EXPECT_EQ(the_reader.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.received, packets_);
  EXPECT_EQ(outcome.orphans + outcome.dropped_hands + outcome.sent_again, 0u);
}

TEST_F(Processes, ShareTheWorkAmongReaders) {
  capture(5000);
  Program readers[] = {reader(), reader(), reader()};
  EXPECT_EQ(source().wait(), 0);
  for (Program& each : readers) EXPECT_EQ(each.wait(), 0);
  expect_all_read(audit());
}

struct ReaderStep {
  const char* step;
  std::uint64_t orphans, dropped_hands, sent_again;
  friend std::ostream& operator<<(std::ostream& out, const ReaderStep& at) { return out << at.step; }
};
class ReaderDies : public Processes, public ::testing::WithParamInterface<ReaderStep> {};

TEST_P(ReaderDies, AndItsPacketIsFoundAgain) {
  const ReaderStep& step = GetParam();
  capture(2000);
  Program victim = reader({"--die", step.step, "777"});
  Program the_source = source();
  EXPECT_EQ(victim.wait(), -SIGKILL);
  EXPECT_TRUE(the_source.running());
  Program next = reader();
  EXPECT_EQ(the_source.wait(), 0);
  EXPECT_EQ(next.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.received, packets_);
  EXPECT_EQ(outcome.orphans, step.orphans);
  EXPECT_EQ(outcome.dropped_hands, step.dropped_hands);
  EXPECT_EQ(outcome.sent_again, step.sent_again);
}

INSTANTIATE_TEST_SUITE_P(AtEachStep, ReaderDies,
                         ::testing::Values(ReaderStep{"taken", 1, 0, 1}, ReaderStep{"hand", 1, 0, 1},
                                           ReaderStep{"read", 1, 0, 1}, ReaderStep{"entered", 1, 0, 0},
                                           ReaderStep{"settled", 0, 1, 0}, ReaderStep{"returned", 0, 0, 0}),
                         [](const auto& at) { return std::string(at.param.step); });

struct SourceStep {
  const char* step;
  std::uint64_t count;
  std::uint32_t sources;  // that have begun, in the end
  friend std::ostream& operator<<(std::ostream& out, const SourceStep& at) { return out << at.step; }
};
class SourceDies : public Processes, public ::testing::WithParamInterface<SourceStep> {};

TEST_P(SourceDies, AndTheNextGoesOnWithTheDomain) {
  const SourceStep& step = GetParam();
  capture(2000);
  Program the_reader = reader();
  Program victim = source({"--die", step.step, std::to_string(step.count)});
  EXPECT_EQ(victim.wait(), -SIGKILL);
  EXPECT_TRUE(the_reader.running());
  if (step.sources == 2) {  // the reader notices by itself: it reads what is there, and recovers the domain
    OpenOptions open;
    open.mode = OpenMode::open_only;
    auto domain = Domain::open(kDomain, open);
    ASSERT_TRUE(domain);
    const auto zone = domain->find_memzone("control");
    ASSERT_TRUE(zone);
    const auto patience = std::chrono::steady_clock::now() + 60s;
    while (static_cast<packets::Control*>(zone->addr)->drained == 0 &&
           std::chrono::steady_clock::now() < patience)
      std::this_thread::sleep_for(1ms);
    EXPECT_GT(static_cast<packets::Control*>(zone->addr)->drained, 0u);
    const auto heap = domain->find_heap(packets::kHeap);
    ASSERT_TRUE(heap);
    const auto stats = heap->stats();
    ASSERT_TRUE(stats);
    EXPECT_EQ(stats->used_count, stats->memzones) << "the dead source's buffers were not reclaimed";
  }
  Program next = source();
  EXPECT_EQ(next.wait(), 0);
  EXPECT_EQ(the_reader.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.sources, step.sources);
}

INSTANTIATE_TEST_SUITE_P(AtEachStep, SourceDies,
                         ::testing::Values(SourceStep{"created", 1, 1}, SourceStep{"lent", 1, 2},
                                           SourceStep{"received", 20, 2}, SourceStep{"filled", 700, 2},
                                           SourceStep{"pushed", 701, 2}, SourceStep{"popped", 10, 2},
                                           SourceStep{"freed", 10, 2}),
                         [](const auto& at) { return std::string(at.param.step); });

TEST_F(Processes, GoOnAfterAllOfThemHaveDied) {
  capture(2000);
  Program a = reader({"--die", "read", "500"});
  Program b = source({"--die", "pushed", "900"});
  EXPECT_EQ(a.wait(), -SIGKILL);
  EXPECT_EQ(b.wait(), -SIGKILL);
  Program c = source(), d = reader();
  EXPECT_EQ(c.wait(), 0);
  EXPECT_EQ(d.wait(), 0);
  expect_all_read(audit());
}

TEST_F(Processes, RefuseASecondSource) {
  capture(3000);
  Program first = source();  // without a reader it waits
  const auto patience = std::chrono::steady_clock::now() + 60s;
  OpenOptions open;
  open.mode = OpenMode::open_only;
  bool begun = false;
  while (!begun && std::chrono::steady_clock::now() < patience) {
    std::this_thread::sleep_for(5ms);
    auto domain = Domain::open(kDomain, open);
    if (!domain) continue;
    const auto zone = domain->find_memzone("control");
    begun = zone && static_cast<packets::Control*>(zone->addr)->source != 0;
  }
  ASSERT_TRUE(begun);
  EXPECT_EQ(source().wait(), 1);
  Program the_reader = reader();
  EXPECT_EQ(first.wait(), 0);
  EXPECT_EQ(the_reader.wait(), 0);
  expect_all_read(audit());
}

TEST_F(Processes, RefuseADomainOfAnotherNumberOfPackets) {
  capture(500);
  Program the_reader = reader();
  EXPECT_EQ(source().wait(), 0);
  EXPECT_EQ(the_reader.wait(), 0);
  const std::uint64_t right = packets_;
  for (const std::uint64_t wrong :
       {right - 1, right + 1, right * 1000}) {  // the last has no room in the ledger
    packets_ = wrong;
    EXPECT_EQ(source().wait(), 1) << wrong;
  }
  packets_ = right;
  EXPECT_EQ(source().wait(), 0) << "all was read: nothing is left to do";
  expect_all_read(audit());
}

TEST_F(Processes, WaitForAReaderThatIsStopped) {
  capture(2000);
  Program slow = reader({"--work", "200"}), other = reader();
  Program the_source = source();
  while (read_so_far() < 200 && the_source.running()) std::this_thread::sleep_for(1ms);
  slow.stop();
  // The other reader and the source go on, up to what the stopped one has in hand.
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (read_so_far() + 1 < packets_ && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(1ms);
  EXPECT_GE(read_so_far() + 1, packets_);
  EXPECT_TRUE(the_source.running() || read_so_far() == packets_);
  slow.go_on();
  EXPECT_EQ(the_source.wait(), 0);
  EXPECT_EQ(slow.wait(), 0);
  EXPECT_EQ(other.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.orphans, 0u) << "a stopped reader was taken for dead";
}

/// Kills at random moments until every packet was read. Which: readers, or the source too.
struct Random {
  bool source;
  std::uint64_t packets;
  friend std::ostream& operator<<(std::ostream& out, const Random& of) {
    return out << of.packets << " packets";
  }
};
class RandomKills : public Processes, public ::testing::WithParamInterface<Random> {};

TEST_P(RandomKills, LoseNothing) {
  const char* const given = std::getenv("EXTMEM_SEED");
  const auto seed =
      given != nullptr ? static_cast<unsigned>(std::strtoul(given, nullptr, 10)) : std::random_device{}();
  SCOPED_TRACE("EXTMEM_SEED=" + std::to_string(seed));
  std::minstd_rand random(seed);
  capture(GetParam().packets, 400);
  const std::vector<std::string> work = {"--work", "40"};
  Program readers[] = {reader(work), reader(work)};
  Program the_source = source();
  std::uint64_t reader_kills = 0, source_kills = 0;
  // Most kills wait until packets were read since the last: on a busy machine a program takes long to begin, and one
  // that is always killed before it has done anything brings the test nowhere.
  std::uint64_t next_reader_kill = 0, next_source_kill = 0;
  const auto due = [&](std::uint64_t& next, std::uint64_t apart) {
    const std::uint64_t read = read_so_far();
    if (read < next && random() % 16 != 0) return false;
    next = read + random() % apart;
    return true;
  };
  const auto patience = std::chrono::steady_clock::now() + 200s;
  while (the_source.running()) {
    if (std::chrono::steady_clock::now() > patience) {
      ADD_FAILURE() << "not done in time: " << read_so_far() << " of " << packets_ << " packets were read";
      break;
    }
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 40'000));
    if (!the_source.running()) break;
    if (GetParam().source && random() % 4 == 0 && read_so_far() < packets_ && due(next_source_kill, 300)) {
      the_source.kill();
      ++source_kills;
      // Now and then the readers are killed before the next source comes, or while it begins.
      if (random() % 3 == 0) readers[random() % 2].kill();
      the_source = source();
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 400));
    }
    Program& victim = readers[random() % 2];
    if (!victim.running() || (random() % 2 == 0 && due(next_reader_kill, 200))) {
      victim.kill();
      ++reader_kills;
      victim = reader(work);
    }
  }
  EXPECT_EQ(the_source.wait(), 0);
  for (Program& each : readers) (void)each.wait();
  const Outcome outcome = audit();
  expect_all_read(outcome);
  std::printf("%llu kills of readers, %llu of sources: %llu orphans, %llu dropped hands, %llu sent again\n",
              static_cast<unsigned long long>(reader_kills), static_cast<unsigned long long>(source_kills),
              static_cast<unsigned long long>(outcome.orphans),
              static_cast<unsigned long long>(outcome.dropped_hands),
              static_cast<unsigned long long>(outcome.sent_again));
  EXPECT_GT(reader_kills + source_kills, 3u);
}

INSTANTIATE_TEST_SUITE_P(Of, RandomKills, ::testing::Values(Random{false, 40'000}, Random{true, 20'000}),
                         [](const auto& at) { return std::string(at.param.source ? "All" : "Readers"); });

}  // namespace
}  // namespace bridge_test
