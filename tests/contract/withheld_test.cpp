// What a dead process held is freed only when the listeners say that no device writes into it any more.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cerrno>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "contract/companion.hpp"
#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::Each;
using testing::ElementsAre;
using testing::IsEmpty;
using testing::Not;

class Withheld : public testing::TestWithParam<FaceKind> {
 protected:
  Withheld() : face_(make_face(GetParam())) {
    OpenOptions options;
    options.directory = directory_.c_str();
    EXPECT_EQ(face_->open("d", options), 0) << face_->message();
    EXPECT_EQ(face_->create_heap("h", heap_), 0) << face_->message();
    HeapOptions keeping;
    keeping.on_death = OnDeath::keep;
    EXPECT_EQ(face_->create_heap("kept", keeping, kept_), 0) << face_->message();
    first_ = add(heap_);
    second_ = add(heap_);
    idle_ = add(heap_);
    of_kept_ = add(kept_);
  }
  ~Withheld() override {
    answers_.clear();
    RecoveryReport report;
    EXPECT_EQ(face_->recover(report), 0) << face_->message();
    expect_sound(*face_);
    face_->close();
  }

  RegionId add(Heap heap) {
    BackingSpec spec;
    spec.kind = BackingKind::memfd;
    spec.length = 4 * kMiB;
    RegionId region;
    EXPECT_EQ(face_->add_backing(heap, spec, region), 0) << face_->message();
    return region;
  }
  void listen() {
    ASSERT_EQ(face_->add_listener(
                  [](const RegionEvent& event, void* arg) {
                    auto& self = *static_cast<Withheld*>(arg);
                    if (event.kind != RegionEventKind::reclaiming) return 0;
                    self.heard_.push_back(event);
                    const auto answer = self.answers_.find(event.info.id.slot);
                    return answer == self.answers_.end() ? 0 : answer->second;
                  },
                  this),
              0)
        << face_->message();
  }
  [[nodiscard]] std::vector<std::uint32_t> heard() {
    std::vector<std::uint32_t> slots;
    for (const RegionEvent& event : std::exchange(heard_, {})) slots.push_back(event.info.id.slot);
    return slots;
  }
  std::unique_ptr<Companion> another(const char* heap = "h") const {
    auto other = std::make_unique<Companion>();
    EXPECT_EQ(other->ask(words("open", "d", directory_.path(), "only")).substr(0, 2), "ok");
    EXPECT_EQ(other->ask(words("heap", heap)), "ok");
    return other;
  }
  static std::uint64_t allocate_in(Companion& other, RegionId region, std::size_t size) {
    return other.number(words("allocate_in", region.slot, region.generation, size));
  }
  RecoveryReport recover() {
    RecoveryReport report;
    EXPECT_EQ(face_->recover(report), 0) << face_->message();
    expect_sound(*face_);
    return report;
  }
  bool held(std::uint64_t bits) {
    void* p = nullptr;
    ObjectInfo object;
    EXPECT_EQ(face_->from_region_ptr(RegionPtr{bits}, p), 0) << face_->message();
    return face_->owner_of(p, object) == 0 && object.held;
  }

  RuntimeDirectory directory_;
  std::unique_ptr<Face> face_;
  Heap heap_, kept_;
  RegionId first_, second_, idle_, of_kept_;
  std::vector<RegionEvent> heard_;
  std::map<std::uint32_t, int> answers_;  // by region slot; none: 0
};

TEST_P(Withheld, UntilTheListenersAgree) {
  listen();
  auto other = another();
  const std::uint64_t small = allocate_in(*other, first_, 200);
  const std::uint64_t large = allocate_in(*other, first_, 90'000);
  const std::uint64_t elsewhere = allocate_in(*other, second_, 200);
  ASSERT_EQ(other->ask("heap kept"), "ok");
  const std::uint64_t kept = allocate_in(*other, of_kept_, 200);
  const auto pid = static_cast<std::uint32_t>(other->pid());
  answers_[first_.slot] = EBUSY;
  other->kill();

  RecoveryReport report = recover();
  EXPECT_EQ(report.participants, 1u);
  EXPECT_EQ(report.withheld_objects, 2u);
  EXPECT_GE(report.withheld_bytes, 90'200u);
  EXPECT_EQ(report.freed_objects, 1u);
  EXPECT_EQ(report.kept_objects, 1u);
  ASSERT_GE(heard_.size(), 2u);
  EXPECT_EQ(heard_[0].participant, 2u);
  EXPECT_EQ(heard_[0].pid, pid);
  EXPECT_NE(heard_[0].info.base, nullptr);
  // Only about regions where something is to be freed; then, whenever this process recovers, about what is withheld.
  EXPECT_EQ(heard_[0].info.id, first_);
  EXPECT_EQ(heard_[1].info.id, second_);
  heard_.erase(heard_.begin(), heard_.begin() + 2);
  EXPECT_THAT(heard(), Each(first_.slot));
  EXPECT_TRUE(held(small) && held(large) && held(kept));
  EXPECT_FALSE(held(elsewhere));
  HolderReport holders;
  EXPECT_EQ(face_->remove_region(first_, &holders), -EBUSY);
  ASSERT_EQ(holders.count, 1u);
  EXPECT_EQ(holders.holders[0].pid, 0u) << "listed without an owner";
  EXPECT_EQ(holders.holders[0].count, 2u);

  report = recover();
  EXPECT_THAT(heard(), AllOf(Not(IsEmpty()), Each(first_.slot)))
      << "asked again, and only about what is withheld";
  EXPECT_EQ(report.freed_objects + report.withheld_objects, 0u);
  EXPECT_EQ(face_->poll(), 0) << face_->message();
  EXPECT_THAT(heard(), AllOf(Not(IsEmpty()), Each(first_.slot)));
  EXPECT_TRUE(held(small) && held(large));

  answers_.clear();
  report = recover();
  EXPECT_EQ(report.freed_objects, 2u);
  EXPECT_GE(report.freed_bytes, 90'200u);
  EXPECT_THAT(heard(), ElementsAre(first_.slot));
  EXPECT_FALSE(held(small) || held(large));
  EXPECT_TRUE(held(kept)) << "kept is kept, whatever a listener says";
  recover();
  EXPECT_THAT(heard(), IsEmpty());
  EXPECT_EQ(face_->remove_region(first_, nullptr), 0) << face_->message();
}

TEST_P(Withheld, TagsAndCountsStayRight) {
  listen();
  answers_[first_.slot] = answers_[second_.slot] = answers_[idle_.slot] = EAGAIN;
  auto other = another();
  std::vector<std::uint64_t> all;
  for (int i = 0; i < 300; ++i) all.push_back(other->number(words("allocate", 64, 16, i, i % 2 ? "t" : "")));
  other->kill();
  EXPECT_EQ(recover().withheld_objects, 300u);
  HeapStats stats;
  ASSERT_EQ(face_->stats(heap_, stats), 0) << face_->message();
  EXPECT_EQ(stats.used_count, 300u);
  std::vector<TagStats> tags;
  ASSERT_EQ(face_->tag_stats(heap_, tags), 0) << face_->message();
  std::uint64_t tagged = 0;
  for (const TagStats& tag : tags) tagged += std::string(tag.name) == "t" ? tag.live_count : 0;
  EXPECT_EQ(tagged, 150u);
  // One is adopted, one freed by hand: both are then nobody else's business.
  void* adopted = nullptr;
  void* freed = nullptr;
  ASSERT_EQ(face_->from_region_ptr(RegionPtr{all[1]}, adopted), 0);
  ASSERT_EQ(face_->from_region_ptr(RegionPtr{all[2]}, freed), 0);
  EXPECT_EQ(face_->hand_over(adopted, 1), 0) << face_->message();
  EXPECT_EQ(face_->deallocate(freed), 0) << face_->message();
  answers_.clear();
  EXPECT_EQ(recover().freed_objects, 298u);
  EXPECT_TRUE(held(all[1]));
  EXPECT_FALSE(held(all[0]));
  EXPECT_EQ(face_->deallocate(adopted), 0) << face_->message();
}

TEST_P(Withheld, SeveralDeadOnesInOneRegionGoTogether) {
  listen();
  answers_[first_.slot] = EBUSY;
  auto one = another();
  auto two = another();
  const std::uint64_t a = allocate_in(*one, first_, 5000);
  const std::uint64_t b = allocate_in(*two, first_, 5000);
  one->kill();
  EXPECT_EQ(recover().withheld_objects, 1u);
  answers_.clear();
  answers_[first_.slot] = EBUSY;
  two->kill();
  EXPECT_EQ(recover().withheld_objects, 1u);
  std::vector<std::uint32_t> about;
  for (const RegionEvent& event : std::exchange(heard_, {})) about.push_back(event.participant);
  about.erase(std::unique(about.begin(), about.end()), about.end());
  EXPECT_THAT(about, AnyOf(ElementsAre(2, 3), ElementsAre(2, 3, 0))) << "the first again, the second, both";
  answers_.clear();
  EXPECT_EQ(recover().freed_objects, 2u);
  ASSERT_EQ(heard_.size(), 1u);
  EXPECT_EQ(heard_[0].participant, 0u) << "about several";
  EXPECT_EQ(heard_[0].pid, 0u);
  EXPECT_FALSE(held(a) || held(b));
}

TEST_P(Withheld, OnlyWhoWithholdsLetsGoUntilItIsGoneItself) {
  auto cleaner = another();
  ASSERT_EQ(cleaner->ask("listen 16"), "ok");
  auto victim = another();
  const std::uint64_t bits = allocate_in(*victim, first_, 300);
  victim->kill();
  EXPECT_EQ(cleaner->ask("recover"), "ok 1 0 1");
  EXPECT_EQ(recover().freed_objects, 0u) << "this process has no listener, and no say";
  EXPECT_TRUE(held(bits));
  EXPECT_EQ(cleaner->ask("recover"), "ok 0 0 0");
  ASSERT_EQ(cleaner->ask("listen 0"), "ok");
  EXPECT_EQ(cleaner->ask("recover"), "ok 0 1 0");
  EXPECT_FALSE(held(bits));

  ASSERT_EQ(cleaner->ask("listen 16"), "ok");
  victim = another();
  const std::uint64_t more = allocate_in(*victim, first_, 300);
  victim->kill();
  EXPECT_EQ(cleaner->ask("recover"), "ok 1 0 1");
  listen();
  answers_[first_.slot] = EBUSY;
  cleaner->kill();
  recover();  // this process is the one to ask now, and it says no
  recover();
  EXPECT_TRUE(held(more));
  EXPECT_THAT(heard(), Each(first_.slot));
  answers_.clear();
  EXPECT_EQ(recover().freed_objects, 1u);
  EXPECT_FALSE(held(more));
}

TEST_P(Withheld, WhoLeavesInGoodOrderIsNotAskedAbout) {
  listen();
  answers_[first_.slot] = EBUSY;
  auto other = another();
  const std::uint64_t bits = allocate_in(*other, first_, 300);
  EXPECT_EQ(other->code("close"), 0);
  EXPECT_FALSE(held(bits));
  EXPECT_THAT(heard(), IsEmpty());
}

INSTANTIATE_TEST_SUITE_P(Faces, Withheld, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& face) { return name_of(face.param); });

}  // namespace
}  // namespace extmem::test
