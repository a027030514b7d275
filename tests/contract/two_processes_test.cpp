// One domain, two programs: what one allocates, reserves, adds and removes is there for the other, at whatever address.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <string>
#include <thread>
#include <vector>

#include "contract/companion.hpp"
#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class TwoProcesses : public testing::TestWithParam<FaceKind> {
 protected:
  TwoProcesses() : face_(make_face(GetParam())) {
    OpenOptions options;
    options.directory = directory_.c_str();
    EXPECT_EQ(face_->open("d", options), 0) << face_->message();
    EXPECT_EQ(face_->create_heap("h", heap_), 0) << face_->message();
  }
  ~TwoProcesses() override {
    if (::getpid() != owner_) return;
    expect_sound(*face_);
    face_->close();
  }

  RegionId add(BackingKind kind = BackingKind::memfd, std::size_t length = 4 * kMiB) {
    BackingSpec spec;
    spec.kind = kind;
    spec.length = length;
    RegionId region;
    EXPECT_EQ(face_->add_backing(heap_, spec, region), 0) << face_->message();
    return region;
  }
  void join(Companion& other) const {
    EXPECT_EQ(other.ask(words("open", "d", directory_.path(), "only")).substr(0, 2), "ok");
    EXPECT_EQ(other.ask("heap h"), "ok");
  }
  std::uint64_t allocate(std::size_t size, std::size_t align, std::size_t seed) {
    AllocOptions options;
    options.align = align;
    void* p = nullptr;
    EXPECT_EQ(face_->allocate(heap_, size, options, p), 0) << face_->message();
    fill(p, size, seed);
    RegionPtr ptr;
    EXPECT_EQ(face_->to_region_ptr(p, ptr), 0) << face_->message();
    return ptr.bits;
  }
  void* at(std::uint64_t bits) {
    void* p = nullptr;
    EXPECT_EQ(face_->from_region_ptr(RegionPtr{bits}, p), 0) << face_->message();
    return p;
  }
  static std::string id(RegionId region) { return words(region.slot, region.generation); }

  RuntimeDirectory directory_;
  std::unique_ptr<Face> face_;
  Heap heap_;
  pid_t owner_ = ::getpid();
};

TEST_P(TwoProcesses, AllocateHereFreeThere) {
  add();
  Companion other;
  join(other);
  for (const std::size_t size : {16u, 100u, 4000u, 32768u, 100000u}) {
    SCOPED_TRACE(size);
    for (std::size_t seed = 0; seed < 40; ++seed) {
      const std::uint64_t bits = allocate(size, 16, seed);
      EXPECT_EQ(other.ask(words("check", bits, size, seed)), "ok");
      EXPECT_EQ(other.ask(words("free", bits)), "ok");
      EXPECT_EQ(other.code(words("free", bits)), EALREADY) << "found by any process";
      EXPECT_EQ(face_->deallocate(at(bits)), -EALREADY);
      const std::uint64_t theirs = other.number(words("allocate", size, 16, seed));
      void* const p = at(theirs);
      ASSERT_NE(p, nullptr);
      EXPECT_TRUE(is_filled(p, size, seed));
      EXPECT_EQ(face_->deallocate(heap_, p), 0) << face_->message();
      EXPECT_EQ(other.code(words("free", theirs)), EALREADY);
    }
  }
  HeapStats stats;
  ASSERT_EQ(face_->stats(heap_, stats), 0);
  EXPECT_EQ(stats.used_count, 0u);
  EXPECT_EQ(other.ask("verify"), "ok 0");
}

TEST_P(TwoProcesses, MemzonesAreForBoth) {
  add();
  Companion other;
  join(other);
  MemzoneInfo zone;
  ASSERT_EQ(face_->reserve_memzone(heap_, "mine", 5000, AllocOptions{}, zone), 0) << face_->message();
  EXPECT_EQ(other.number("zone_find mine"), zone.ptr.bits);
  EXPECT_EQ(other.code("zone_reserve mine 5000"), EEXIST);
  const std::uint64_t bits = other.number("zone_reserve theirs 9000");
  ASSERT_EQ(face_->find_memzone("theirs", zone), 0) << face_->message();
  EXPECT_EQ(zone.ptr.bits, bits);
  EXPECT_EQ(zone.addr, at(bits));
  EXPECT_EQ(face_->free_memzone("theirs"), 0) << face_->message();
  EXPECT_EQ(other.code("zone_find theirs"), ENOENT);
  other.kill();
  RecoveryReport report;
  EXPECT_EQ(face_->recover(report), 0) << face_->message();
  EXPECT_EQ(face_->find_memzone("mine", zone), 0) << "memzones are nobody's";
}

TEST_P(TwoProcesses, StatisticsAndTagsCountBoth) {
  add();
  Companion other;
  join(other);
  Tag tag;
  ASSERT_EQ(face_->intern_tag("packets", tag), 0) << face_->message();
  AllocOptions tagged;
  tagged.tag = tag;
  std::vector<void*> mine(10);
  for (void*& p : mine) ASSERT_EQ(face_->allocate(heap_, 100, tagged, p), 0) << face_->message();
  std::vector<std::uint64_t> theirs;
  for (int i = 0; i < 7; ++i) theirs.push_back(other.number("allocate 100 16 1 packets"));
  EXPECT_EQ(other.ask("tag_count packets"), "ok 17");
  std::vector<TagStats> tags;
  ASSERT_EQ(face_->tag_stats(heap_, tags), 0);
  std::uint64_t count = 0;
  for (const TagStats& one : tags) count += std::string(one.name) == "packets" ? one.live_count : 0;
  EXPECT_EQ(count, 17u);
  HeapStats stats;
  ASSERT_EQ(face_->stats(heap_, stats), 0);
  EXPECT_EQ(stats.used_count, 17u);
  EXPECT_EQ(other.number("stats"), 17u);
  EXPECT_EQ(face_->deallocate(at(theirs[0])), 0);
  EXPECT_EQ(other.ask("tag_count packets"), "ok 16");
  // What a refusal reports names the process.
  std::vector<RegionInfo> regions;
  ASSERT_EQ(face_->list_regions(regions), 0);
  HolderReport report;
  EXPECT_EQ(face_->remove_region(regions[0].id, &report), -EBUSY);
  std::uint64_t of_other = 0;
  for (std::size_t i = 0; i < report.count; ++i) {
    if (report.holders[i].pid == static_cast<std::uint32_t>(other.pid())) of_other += report.holders[i].count;
  }
  EXPECT_EQ(of_other, 6u);
}

TEST_P(TwoProcesses, EverythingWorksAtAnotherAddress) {
  const RegionId region = add(BackingKind::memfd, 64 * kMiB);
  RegionInfo info;
  ASSERT_EQ(face_->region_info(region, info), 0);
  Companion other;
  ASSERT_EQ(other.ask(words("occupy", reinterpret_cast<std::uintptr_t>(info.base), info.length)), "ok");
  join(other);
  const std::uint64_t first = allocate(64, 64, 1);
  const auto here = reinterpret_cast<std::uintptr_t>(at(first));
  const std::uint64_t there = other.number(words("address", first));
  EXPECT_NE(there, here);
  EXPECT_EQ((there - here) % (std::uint64_t{1} << 30), 0u) << "congruent, so that alignments hold";
  for (const std::size_t align : {16u, 64u, 4096u, 65536u, 1u << 20, 1u << 24}) {
    SCOPED_TRACE(align);
    const std::uint64_t mine = allocate(300, align, align);
    EXPECT_EQ(other.number(words("address", mine)) % align, 0u);
    EXPECT_EQ(other.ask(words("check", mine, 300, align)), "ok");
    EXPECT_EQ(other.ask(words("free", mine)), "ok");
    const std::uint64_t theirs = other.number(words("allocate", 300, align, align));
    EXPECT_EQ(other.number(words("address", theirs)) % align, 0u);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at(theirs)) % align, 0u);
    EXPECT_TRUE(is_filled(at(theirs), 300, align));
    EXPECT_EQ(face_->deallocate(at(theirs)), 0) << face_->message();
  }
  // Objects that wander through the caches of both.
  std::vector<std::uint64_t> all;
  for (std::size_t i = 0; i < 300; ++i)
    all.push_back(i % 2 == 0 ? allocate(200, 16, i) : other.number(words("allocate", 200, 16, i)));
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(is_filled(at(all[i]), 200, i));
    if (i % 3 == 0) {
      EXPECT_EQ(other.ask(words("free", all[i])), "ok");
    } else {
      EXPECT_EQ(face_->deallocate(at(all[i])), 0) << face_->message();
    }
  }
  EXPECT_EQ(other.ask("verify"), "ok 0");
}

TEST_P(TwoProcesses, RegionsAppearInBoth) {
  Companion other;
  join(other);
  for (const BackingKind kind : {BackingKind::memfd, BackingKind::anonymous}) {
    const RegionId region = add(kind, 2 * kMiB);
    const std::uint64_t bits = allocate(1000, 16, 5);
    EXPECT_EQ(other.ask(words("check", bits, 1000, 5)), "ok") << "mapped when it is first used";
    EXPECT_EQ(other.ask(words("free", bits)), "ok");
    HolderReport report;
    EXPECT_EQ(face_->remove_region(region, &report), -EBUSY);
    bool named = false;
    for (std::size_t i = 0; i < report.count; ++i) {
      named |= report.holders[i].mapping && report.holders[i].pid == static_cast<std::uint32_t>(other.pid());
    }
    EXPECT_TRUE(named) << "the refusal names who maps it";
    // The other lets it go at its next call.
    std::atomic<bool> drained{false};
    std::thread polling([&] {
      while (!drained) {
        EXPECT_EQ(other.ask("poll"), "ok");
        ::usleep(5000);
      }
    });
    EXPECT_EQ(face_->drain_region(region, std::chrono::seconds(60), nullptr), 0) << face_->message();
    drained = true;
    polling.join();
    EXPECT_EQ(face_->remove_region(region, &report), 0) << face_->message();
    EXPECT_EQ(other.code(words("address", bits)), EFAULT);
  }
  // The other way round: what the other adds serves here.
  ASSERT_EQ(other.ask("add memfd 2097152").substr(0, 2), "ok");
  const std::uint64_t bits = allocate(1000, 16, 6);
  EXPECT_EQ(other.ask(words("check", bits, 1000, 6)), "ok");
  EXPECT_EQ(face_->deallocate(at(bits)), 0) << face_->message();
}

TEST_P(TwoProcesses, WhatCouldNotBeMappedIsMappedAtALaterPoll) {
  Companion other;
  join(other);
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_NOFILE, &before), 0);
  rlimit few = before;
  few.rlim_cur = 256;
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &few), 0);
  std::vector<int> all;
  for (int fd = 0; (fd = ::open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;) all.push_back(fd);
  ASSERT_EQ(errno, EMFILE);
  std::vector<std::uint64_t> zones;
  for (const char* kind : {"memfd", "anonymous"}) {
    SCOPED_TRACE(kind);
    EXPECT_EQ(other.ask(words("add", kind, 2 * kMiB)).substr(0, 2), "ok");
    zones.push_back(other.number(words("zone_reserve", kind, 1'500'000)));
    void* p = nullptr;
    EXPECT_EQ(face_->from_region_ptr(RegionPtr{zones.back()}, p), -EMFILE) << face_->message();
    EXPECT_EQ(face_->poll(), 0) << face_->message();
    EXPECT_EQ(face_->from_region_ptr(RegionPtr{zones.back()}, p), -EMFILE) << face_->message();
  }
  for (const int fd : all) ::close(fd);
  ASSERT_EQ(::setrlimit(RLIMIT_NOFILE, &before), 0);
  EXPECT_EQ(face_->poll(), 0) << face_->message();
  for (const std::uint64_t zone : zones) EXPECT_NE(at(zone), nullptr);
}

TEST_P(TwoProcesses, AListenerThatRefusedARegionIsAskedAgainByPoll) {
  int answer = EBUSY;
  ASSERT_EQ(face_->add_listener(
                [](const RegionEvent& event, void* arg) {
                  return event.kind == RegionEventKind::added ? *static_cast<int*>(arg) : 0;
                },
                &answer),
            0)
      << face_->message();
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("add memfd 2097152").substr(0, 2), "ok") << "that this process refuses does not matter";
  const std::uint64_t bits = other.number("allocate 100 16 3");
  void* p = nullptr;
  EXPECT_EQ(face_->poll(), 0) << face_->message();
  EXPECT_EQ(face_->from_region_ptr(RegionPtr{bits}, p), -EBUSY) << face_->message();
  answer = 0;
  EXPECT_EQ(face_->from_region_ptr(RegionPtr{bits}, p), -EBUSY) << "not before it is polled";
  EXPECT_EQ(face_->poll(), 0) << face_->message();
  EXPECT_EQ(face_->deallocate(at(bits)), 0) << face_->message();
}

TEST_P(TwoProcesses, ARegionOutlivesItsAdder) {
  std::uint64_t memfd = 0, file = 0;
  {
    Companion other;
    join(other);
    ASSERT_EQ(other.ask("add memfd 2097152").substr(0, 2), "ok");
    memfd = other.number("zone_reserve first 1000");
    ASSERT_EQ(face_->poll(), 0) << face_->message();
    ASSERT_NE(at(memfd), nullptr) << "mapped while the adder lives";
    ASSERT_EQ(other.ask("add anonymous 8388608").substr(0, 2), "ok");
    file = other.number("zone_reserve second 4000000");
  }
  EXPECT_NE(at(memfd), nullptr);
  EXPECT_NE(at(file), nullptr) << "a file of the domain can be mapped after its adder is gone";
  Companion third;
  join(third);
  EXPECT_EQ(third.code(words("address", memfd)), 0) << "reached through this process";
  EXPECT_EQ(third.code(words("address", file)), 0);
}

TEST_P(TwoProcesses, WhatADeadOneHeldIsReclaimed) {
  add();
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("many 1000 100"), "ok");
  const std::uint64_t given = other.number("allocate 100 16 3");
  std::uint32_t self = 0;
  ASSERT_EQ(face_->participant(self), 0);
  EXPECT_EQ(other.ask(words("hand_over", given, self)), "ok");
  const std::uint64_t mine = allocate(100, 16, 4);
  other.kill();
  RecoveryReport report;
  ASSERT_EQ(face_->recover(report), 0) << face_->message();
  EXPECT_EQ(report.participants, 1u);
  EXPECT_EQ(report.freed_objects, 1000u);
  EXPECT_TRUE(is_filled(at(given), 100, 3)) << "what was handed over stays";
  EXPECT_TRUE(is_filled(at(mine), 100, 4));
  HeapStats stats;
  ASSERT_EQ(face_->stats(heap_, stats), 0);
  EXPECT_EQ(stats.used_count, 2u);
  std::vector<ParticipantInfo> participants;
  ASSERT_EQ(face_->list_participants(participants), 0);
  EXPECT_EQ(participants.size(), 1u);
}

TEST_P(TwoProcesses, KeepsWhatADeadOneHeldWhereTheHeapSaysSo) {
  HeapOptions keep;
  keep.on_death = OnDeath::keep;
  Heap heap;
  ASSERT_EQ(face_->create_heap("kept", keep, heap), 0) << face_->message();
  BackingSpec spec;
  spec.kind = BackingKind::memfd;
  spec.length = 4 * kMiB;
  RegionId region;
  ASSERT_EQ(face_->add_backing(heap, spec, region), 0) << face_->message();
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  std::vector<std::uint64_t> all;
  for (std::size_t i = 0; i < 10; ++i) all.push_back(other.number(words("allocate", 500, 16, i, "t")));
  other.kill();
  RecoveryReport report;
  ASSERT_EQ(face_->recover(report), 0) << face_->message();
  EXPECT_EQ(report.kept_objects, 10u);
  EXPECT_EQ(report.freed_objects, 0u);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_TRUE(is_filled(at(all[i]), 500, i));
    EXPECT_EQ(face_->deallocate(at(all[i])), 0) << face_->message();
  }
}

TEST_P(TwoProcesses, AttachedMemoryOfTheCallerServesBoth) {
  // The companion cannot map what is only this process' memory: it gets a clear error when it needs it.
  Memory memory(4 * kMiB);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = memory.length();
  RegionId region;
  ASSERT_EQ(face_->add_region(heap_, spec, region), 0) << face_->message();
  Companion other;
  join(other);
  EXPECT_EQ(other.code("allocate 100 16 1"), ENOMEM);
  const std::uint64_t bits = allocate(100, 16, 1);
  EXPECT_EQ(other.code(words("address", bits)), ENXIO);
  EXPECT_EQ(other.ask("verify"), "ok 0") << "metadata can be looked at all the same";
  EXPECT_EQ(face_->deallocate(at(bits)), 0);
}

TEST_P(TwoProcesses, AttachedMemoryCanBeDetached) {
  Memory memory(4 * kMiB);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = memory.length();
  RegionId region;
  ASSERT_EQ(face_->add_region(heap_, spec, region), 0) << face_->message();
  const std::uint64_t bits = allocate(100, 16, 1);
  ASSERT_EQ(face_->detach_region(region), 0) << face_->message();
  EXPECT_EQ(face_->detach_region(region), -ENOENT);
  EXPECT_NE(face_->message(), "");
  void* p = nullptr;
  EXPECT_EQ(face_->from_region_ptr(RegionPtr{bits}, p), -ENXIO) << face_->message();
  EXPECT_EQ(face_->allocate(heap_, 100, p), -ENOMEM);
  ASSERT_EQ(face_->attach_region(region, memory.base()), 0) << face_->message();
  EXPECT_EQ(face_->deallocate(at(bits)), 0) << face_->message();
  ASSERT_EQ(face_->remove_region(region, nullptr), 0) << face_->message();
  EXPECT_EQ(face_->detach_region(region), -ENOENT);
  EXPECT_EQ(face_->detach_region(add()), -ENOTSUP) << face_->message();
}

TEST_P(TwoProcesses, BackingsAreMappedWhereAsked) {
  EXPECT_EQ(face_->place_backings(4096), -EINVAL) << face_->message();
  constexpr std::uint64_t kLowest = std::uint64_t{40} << 40;
  ASSERT_EQ(face_->place_backings(kLowest), 0) << face_->message();
  const RegionId region = add();
  RegionInfo info;
  ASSERT_EQ(face_->region_info(region, info), 0) << face_->message();
  EXPECT_GE(reinterpret_cast<std::uintptr_t>(info.base), kLowest);
  EXPECT_LT(reinterpret_cast<std::uintptr_t>(info.base), kLowest + (std::uint64_t{1} << 40));
  ASSERT_EQ(face_->place_backings(0), 0) << face_->message();
}

TEST_P(TwoProcesses, AStoppedOneIsNotTakenForDead) {
  add();
  Companion other;
  join(other);
  const std::uint64_t theirs = other.number("allocate 100 16 9");
  other.stop();
  RecoveryReport report;
  ASSERT_EQ(face_->recover(report), 0) << face_->message();
  EXPECT_EQ(report.participants, 0u);
  const std::uint64_t mine = allocate(100, 16, 1);
  EXPECT_EQ(face_->deallocate(at(mine)), 0) << face_->message();
  EXPECT_TRUE(is_filled(at(theirs), 100, 9));
  other.go_on();
  EXPECT_EQ(other.ask(words("free", theirs)), "ok");
}

INSTANTIATE_TEST_SUITE_P(Faces, TwoProcesses, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& with) { return name_of(with.param); });

}  // namespace
}  // namespace extmem::test
