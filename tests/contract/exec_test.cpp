// exec: a process that becomes another program leaves the domain by that, as by death, also if the new program opens it again.
// And its opposite: several copies of the library in one process, and children made by fork, vfork and posix_spawn, are no reason to take
// anybody for dead.
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class Exec : public testing::TestWithParam<FaceKind> {
 protected:
  Exec() : face_(make_face(GetParam())) {
    OpenOptions options;
    options.directory = directory_.c_str();
    EXPECT_EQ(face_->open("d", options), 0) << face_->message();
    HeapOptions keep;
    keep.on_death = OnDeath::keep;
    make_heap("h", HeapOptions{}, heap_);
    make_heap("kept", keep, kept_);
  }
  ~Exec() override {
    expect_sound(*face_);
    face_->close();
  }
  void make_heap(const char* name, const HeapOptions& options, Heap& heap) {
    EXPECT_EQ(face_->create_heap(name, options, heap), 0) << face_->message();
    BackingSpec spec;
    spec.kind = BackingKind::memfd;
    spec.length = 4 * kMiB;
    RegionId region;
    EXPECT_EQ(face_->add_backing(heap, spec, region), 0) << face_->message();
  }
  void join(Companion& other) const {
    EXPECT_EQ(other.ask(words("open", "d", directory_.path(), "only")).substr(0, 2), "ok");
    EXPECT_EQ(other.ask("heap h"), "ok");
  }
  RecoveryReport recover() {
    RecoveryReport report;
    EXPECT_EQ(face_->recover(report), 0) << face_->message();
    return report;
  }
  std::uint64_t used(Heap heap) {
    HeapStats stats;
    EXPECT_EQ(face_->stats(heap, stats), 0) << face_->message();
    return stats.used_count;
  }
  std::size_t participants() {
    std::vector<ParticipantInfo> all;
    EXPECT_EQ(face_->list_participants(all), 0) << face_->message();
    for (const ParticipantInfo& one : all) EXPECT_FALSE(one.dead) << one.id;
    return all.size();
  }

  RuntimeDirectory directory_;
  std::unique_ptr<Face> face_;
  Heap heap_;
  Heap kept_;
};

TEST_P(Exec, WhatTheEarlierProgramHeldIsFreedWhenTheNewOneOpensTheDomain) {
  for (const char* how : {"direct", "shell", "subshell"}) {
    SCOPED_TRACE(how);
    Companion other;
    join(other);
    for (int images = 0; images < 2; ++images) {
      ASSERT_EQ(other.ask("many 500 100"), "ok");
      ASSERT_EQ(other.ask("many 3 300000"), "ok");
      EXPECT_EQ(used(heap_), 503u);
      ASSERT_EQ(other.ask(words("exec", how)), "ok anew");
      join(other);
      EXPECT_EQ(participants(), 2u);
      EXPECT_EQ(used(heap_), 0u);
      EXPECT_EQ(other.ask("recover"), "ok 1 503 0") << "freed once, when it opened the domain";
      EXPECT_EQ(recover().participants, 0u) << "and not again";
    }
  }
}

TEST_P(Exec, OthersSeeThatTheEarlierProgramIsGone) {
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("many 20 100"), "ok");
  ASSERT_EQ(other.ask("exec direct"), "ok anew");
  EXPECT_EQ(other.ask("stats").substr(0, 5), "error") << "it has no heap";
  const RecoveryReport report = recover();
  EXPECT_EQ(report.participants, 1u);
  EXPECT_EQ(report.freed_objects, 20u);
  join(other);
  EXPECT_EQ(other.ask("recover"), "ok 0 0 0");
}

TEST_P(Exec, WhatTheHeapKeepsIsListedWithoutAnOwner) {
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  std::vector<std::uint64_t> all;
  for (std::size_t i = 0; i < 10; ++i) all.push_back(other.number(words("allocate", 500, 16, i, "t")));
  std::uint64_t mine = 0;
  for (int images = 0; images < 2; ++images) {
    ASSERT_EQ(other.ask("exec direct"), "ok anew");
    join(other);
    ASSERT_EQ(other.ask("heap kept"), "ok");
    if (images == 0) mine = other.number("allocate 500 16 77 t");
  }
  EXPECT_EQ(used(kept_), 11u);
  HolderReport holders;
  EXPECT_EQ(face_->destroy_heap(kept_, &holders), -EBUSY);
  ASSERT_EQ(holders.count, 1u);
  EXPECT_EQ(holders.holders[0].pid, 0u) << "nobody's";
  EXPECT_EQ(holders.holders[0].count, 11u);
  all.push_back(mine);
  for (std::size_t i = 0; i < all.size(); ++i) {
    void* p = nullptr;
    ASSERT_EQ(face_->from_region_ptr(RegionPtr{all[i]}, p), 0) << face_->message();
    EXPECT_TRUE(is_filled(p, 500, i < 10 ? i : 77));
    EXPECT_EQ(face_->deallocate(p), 0) << face_->message();
  }
}

TEST_P(Exec, WhatAProgramHeldThatEndedByItselfIsNotKept) {
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  ASSERT_EQ(other.ask("many 10 100"), "ok");
  ASSERT_EQ(other.ask("end_by_exec"), "ok");
  ASSERT_EQ(other.ask("exec direct"), "ok anew");
  EXPECT_EQ(recover().freed_objects, 10u) << "it has not even joined again";
  join(other);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  ASSERT_EQ(other.ask("many 20 100"), "ok");
  ASSERT_EQ(other.ask("end_by_exec"), "ok");
  ASSERT_EQ(other.ask("exec direct"), "ok anew");
  join(other);
  EXPECT_EQ(used(kept_), 0u);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  ASSERT_EQ(other.ask("many 30 100"), "ok");
  ASSERT_EQ(other.ask("end_now"), "ok");
  ASSERT_EQ(other.ask("many 3 100"), "ok") << "it may go on for a while";
  EXPECT_EQ(recover().participants, 0u);
  EXPECT_EQ(used(kept_), 33u);
  other.kill();
  EXPECT_EQ(recover().freed_objects, 33u);
}

TEST_P(Exec, WhoIsKilledIsNotOneThatEndedByExec) {
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("heap kept"), "ok");
  ASSERT_EQ(other.ask("many 10 100"), "ok");
  ASSERT_EQ(other.ask("end_by_exec"), "ok");
  other.kill();
  const RecoveryReport report = recover();
  EXPECT_EQ(report.freed_objects, 0u);
  EXPECT_EQ(report.kept_objects, 10u);
}

TEST_P(Exec, AHeapKeepsGarbageThatAListenerDoesNotLetGo) {
  int answer = EBUSY;
  ASSERT_EQ(face_->add_listener(
                [](const RegionEvent& event, void* arg) {
                  return event.kind == RegionEventKind::reclaiming ? *static_cast<int*>(arg) : 0;
                },
                &answer),
            0)
      << face_->message();
  for (const bool agrees : {false, true}) {
    SCOPED_TRACE(agrees);
    answer = agrees ? 0 : EBUSY;
    Companion other;
    join(other);
    ASSERT_EQ(other.ask("heap kept"), "ok");
    ASSERT_EQ(other.ask("many 10 100"), "ok");
    ASSERT_EQ(other.ask("end_now"), "ok");
    other.kill();
    const RecoveryReport report = recover();
    EXPECT_EQ(report.freed_objects, agrees ? 10u : 0u);
    EXPECT_EQ(report.kept_objects, agrees ? 0u : 10u);
    EXPECT_EQ(report.withheld_objects, 0u);
    EXPECT_EQ(used(kept_), 10u) << "what was kept stays";
  }
}

TEST_P(Exec, TwoCopiesOfTheLibraryInOneProcessLiveSideBySide) {
  Companion other;
  join(other);
  ASSERT_EQ(other.ask("many 20 100"), "ok");
  for (int round = 0; round < 2; ++round) {
    (void)other.number(words("copy_open", "d", directory_.path()));
    EXPECT_EQ(participants(), 3u);
    ASSERT_EQ(other.ask("copy_hold h 30"), "ok");
    EXPECT_EQ(other.ask("recover"), "ok 0 0 0");
    EXPECT_EQ(recover().participants, 0u);
    EXPECT_EQ(used(heap_), 50u);
    ASSERT_EQ(other.ask("copy_close"),
              "ok");  // the token file is closed: the first copy has no token now, and lives
    EXPECT_EQ(recover().participants, 0u);
    EXPECT_EQ(used(heap_), 20u);
    EXPECT_EQ(participants(), 2u);
  }
  (void)other.number(words("copy_open", "d", directory_.path()));
  ASSERT_EQ(other.ask("copy_hold h 30"), "ok");
  ASSERT_EQ(other.ask("exec direct"), "ok anew");
  join(other);
  EXPECT_EQ(other.ask("recover"), "ok 2 50 0") << "both are of the earlier program";
  EXPECT_EQ(participants(), 2u);
}

TEST_P(Exec, ADomainIsNotRemovedUnderACopyThatHasNoTokenAnyMore) {
  Companion other;
  (void)other.number(words("open", "mine", directory_.path(), "create"));
  (void)other.number(words("copy_open", "mine", directory_.path()));
  ASSERT_EQ(other.ask("copy_close"), "ok");
  EXPECT_EQ(face_->remove("mine", directory_.c_str()), -EBUSY);
  std::vector<DomainInfo> domains;
  ASSERT_EQ(face_->list(directory_.c_str(), domains), 0) << face_->message();
  ASSERT_EQ(domains.size(), 2u);
  for (const DomainInfo& one : domains) {
    EXPECT_EQ(one.participants, 1u) << one.name;
    EXPECT_EQ(one.dead, 0u) << one.name;
  }
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_EQ(face_->remove("mine", directory_.c_str()), 0) << face_->message();
}

TEST_P(Exec, TheLastCopyOfTheLibraryOnlyRemovesTheDomain) {
  Companion other;
  const std::string mine = words("open", "mine", directory_.path(), "create", "last");
  (void)other.number(mine);
  ASSERT_EQ(other.ask("heap_new h"), "ok");
  (void)other.number(words("copy_open", "mine", directory_.path()));
  EXPECT_EQ(other.ask("close"), "ok");
  EXPECT_EQ(other.ask("copy_hold node0 1").substr(0, 5), "error") << "no memory, but a domain";
  EXPECT_EQ(other.code(words("open", "mine", directory_.path(), "only")), 0) << "the other copy has it open";
}

TEST_P(Exec, AParentIsAliveWhileItsChildrenExec) {
  for (const char* how : {"fork", "vfork", "spawn"}) {
    SCOPED_TRACE(how);
    Companion other;
    join(other);
    ASSERT_EQ(other.ask("many 20 100"), "ok");
    ASSERT_EQ(other.ask(words("child", how)), "ok anew");  // from here on the child answers
    join(other);
    EXPECT_EQ(participants(), 3u);
    ASSERT_EQ(other.ask("many 5 100"), "ok");
    EXPECT_EQ(other.ask("recover"), "ok 0 0 0");
    EXPECT_EQ(recover().participants, 0u);
    ASSERT_EQ(other.ask("exec direct"), "ok anew");
    join(other);
    EXPECT_EQ(other.ask("recover"), "ok 1 5 0");
    EXPECT_EQ(used(heap_), 20u);
    ASSERT_EQ(other.ask("many 5 100"), "ok");
    EXPECT_EQ(other.ask("leave_by_exit").substr(0, 2), "ok") << "the parent's answer";
    EXPECT_EQ(used(heap_), 20u);
    EXPECT_EQ(recover().participants, 0u);
    other.kill();
    EXPECT_EQ(recover().freed_objects, 20u);
  }
}

INSTANTIATE_TEST_SUITE_P(Faces, Exec, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& with) { return name_of(with.param); });

}  // namespace
}  // namespace extmem::test
