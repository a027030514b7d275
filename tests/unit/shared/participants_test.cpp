// Participants: who lives, of several records of one process above all. Programs that exec for real are in tests/contract/exec_test.cpp.
#include "shared/participants.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <memory>

namespace extmem::shared {
namespace {

/// A domain's records and token file, in memory that children share.
class ParticipantsTest : public testing::Test {
 protected:
  static constexpr std::uint32_t kSlots = 8;
  static constexpr std::size_t kBytes = 1 << 20;

  void SetUp() override {
    control_ = ::memfd_create("control", MFD_CLOEXEC);
    tokens_ = ::memfd_create("tokens", MFD_CLOEXEC);
    ASSERT_EQ(::ftruncate(control_, kBytes), 0);
    base_ = static_cast<std::byte*>(::mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_SHARED, control_, 0));
    ASSERT_NE(base_, MAP_FAILED);
  }
  void TearDown() override {
    ::munmap(base_, kBytes);
    ::close(control_);
    ::close(tokens_);
  }
  [[nodiscard]] Participant* records() const { return reinterpret_cast<Participant*>(base_); }
  /// What one copy of the library has: the token file opened anew, as it does it.
  struct Copy {
    Participants all;
    int token_fd = -1;
    Copy() = default;
    Copy(const Copy&) = delete;
    ~Copy() { ::close(token_fd); }
  };
  void open(Copy& copy) const {
    copy.token_fd = ::open(("/proc/self/fd/" + std::to_string(tokens_)).c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(copy.token_fd, 0);
    auto* slots = reinterpret_cast<ThreadSlot*>(base_ + kBytes / 2);
    copy.all.bind(base_, kBytes, records(), slots, kSlots, copy.token_fd, control_);
  }
  std::uint32_t join(Copy& copy) const {
    open(copy);
    const auto joined = copy.all.join();
    EXPECT_TRUE(joined) << joined.error().message();
    return joined ? *joined : 0;
  }
  /// Another process' answer.
  bool seen_dead_elsewhere(std::uint32_t participant) const {
    const pid_t child = ::fork();
    if (child == 0) {
      Copy copy;
      open(copy);
      ::_exit(copy.all.dead(participant) ? 1 : 0);
    }
    int status = -1;
    ::waitpid(child, &status, 0);
    EXPECT_TRUE(WIFEXITED(status));
    return WEXITSTATUS(status) == 1;
  }
  /// As if the process had been another program when it joined: without its token, which exec takes away.
  void age(Copy& copy, std::uint32_t participant) const {
    records()[participant].image = records()[participant].image + 1;
    copy.all.release_token(participant);
  }

  int control_ = -1;
  int tokens_ = -1;
  std::byte* base_ = nullptr;
};

TEST_F(ParticipantsTest, CopiesOfTheLibraryInOneProcessAreBothAlive) {
  Copy first;
  const std::uint32_t one = join(first);
  std::uint32_t two = 0;
  {
    Copy second;
    two = join(second);
    ASSERT_NE(one, two);
    EXPECT_EQ(records()[one].image.get(), records()[two].image.get());
    EXPECT_LT(records()[one].joined.load(), records()[two].joined.load());
    for (const std::uint32_t participant : {one, two}) {
      EXPECT_FALSE(first.all.dead(participant));
      EXPECT_FALSE(second.all.dead(participant));
      EXPECT_FALSE(first.all.replaced(participant));
      EXPECT_FALSE(seen_dead_elsewhere(participant));
      EXPECT_FALSE(first.all.elect(participant));
      EXPECT_FALSE(second.all.elect(participant));
    }
  }
  // The second copy has closed its token file, which took the first one's token away, too.
  EXPECT_FALSE(seen_dead_elsewhere(one));
  Copy third;
  const std::uint32_t three = join(third);
  EXPECT_FALSE(third.all.dead(one));
  EXPECT_FALSE(first.all.dead(three));
}

TEST_F(ParticipantsTest, AnEarlierImageIsDeadOnceItsProcessHasJoinedAnew) {
  Copy earlier;
  const std::uint32_t old = join(earlier);
  age(earlier, old);
  EXPECT_FALSE(seen_dead_elsewhere(old)) << "the process maps the segment: in doubt it lives";
  Copy now;
  const std::uint32_t self = join(now);
  EXPECT_TRUE(now.all.dead(old));
  EXPECT_TRUE(seen_dead_elsewhere(old));
  EXPECT_FALSE(seen_dead_elsewhere(self));
  EXPECT_TRUE(now.all.elect(old));
  EXPECT_FALSE(now.all.elect(old)) << "by one thread of one process";
  now.all.bury(old);
  EXPECT_FALSE(seen_dead_elsewhere(self));
}

TEST_F(ParticipantsTest, EachEarlierImageIsDead) {
  Copy copies[3];
  const std::uint32_t a = join(copies[0]), b = join(copies[1]), c = join(copies[2]);
  age(copies[0], a);
  age(copies[0], a);
  age(copies[1], b);
  EXPECT_TRUE(copies[2].all.dead(a));
  EXPECT_TRUE(copies[2].all.dead(b));
  EXPECT_FALSE(seen_dead_elsewhere(c));
  EXPECT_TRUE(copies[2].all.elect(b));
  copies[2].all.bury(b);
  EXPECT_TRUE(seen_dead_elsewhere(a));
}

TEST_F(ParticipantsTest, WhoHoldsItsTokenLivesWhateverItsRecordSays) {
  Copy earlier;
  const std::uint32_t old = join(earlier);
  records()[old].image = records()[old].image + 1;
  Copy now;
  (void)join(now);
  EXPECT_TRUE(now.all.replaced(old));
  EXPECT_FALSE(now.all.dead(old)) << "also as seen by the process that holds it";
  EXPECT_FALSE(seen_dead_elsewhere(old));
}

TEST_F(ParticipantsTest, AnUnknownImageIsNoOther) {
  for (const bool earlier_one : {true, false}) {
    SCOPED_TRACE(earlier_one);
    Copy earlier, now;
    const std::uint32_t old = join(earlier);
    age(earlier, old);
    const std::uint32_t self = join(now);
    ASSERT_TRUE(now.all.dead(old));
    records()[earlier_one ? old : self].image = 0;
    EXPECT_FALSE(now.all.dead(old));
    EXPECT_FALSE(seen_dead_elsewhere(old));
    now.all.bury(old);
    now.all.bury(self);
  }
}

TEST_F(ParticipantsTest, ALaterImageIsNotDeadBecauseOfAnEarlierOne) {
  Copy earlier, now;
  const std::uint32_t old = join(earlier);
  age(earlier, old);
  const std::uint32_t self = join(now);
  now.all.release_token(self);
  EXPECT_FALSE(seen_dead_elsewhere(self));
  EXPECT_FALSE(earlier.all.dead(self));
}

TEST_F(ParticipantsTest, OnlyTheProcessItselfSaysThatItEnds) {
  Copy mine;
  const std::uint32_t one = join(mine);
  const pid_t child = ::vfork();
  if (child == 0) {
    mine.all.say(Participant::kEnds);
    ::_exit(0);
  }
  ::waitpid(child, nullptr, 0);
  EXPECT_FALSE(mine.all.ended(one));
  mine.all.say(Participant::kEnds);
  EXPECT_TRUE(mine.all.ended(one));
  mine.all.bury(one);
  Copy again;
  EXPECT_EQ(join(again), one);
  EXPECT_FALSE(again.all.ended(one)) << "a newcomer has said nothing";
}

TEST_F(ParticipantsTest, AnExecIsAnEndForWhoSaidSo) {
  for (const bool said : {true, false}) {
    SCOPED_TRACE(said);
    Copy earlier, now;
    const std::uint32_t old = join(earlier);
    if (said) earlier.all.say(Participant::kEndsByExec);
    age(earlier, old);
    const std::uint32_t self = join(now);
    ASSERT_TRUE(now.all.elect(old));
    EXPECT_EQ(now.all.ended(old), said);
    records()[old].start_time = 1;  // no process is there any more
    EXPECT_EQ(now.all.ended(old), said) << "a next cleaner does as this one";
    now.all.bury(old);
    now.all.bury(self);
  }
  Copy killed, other;
  const std::uint32_t gone = join(killed);
  killed.all.say(Participant::kEndsByExec);
  killed.all.release_token(gone);
  records()[gone].start_time = 1;
  (void)join(other);
  ASSERT_TRUE(other.all.elect(gone));
  EXPECT_FALSE(other.all.ended(gone));
}

TEST_F(ParticipantsTest, TheImageOfAnotherProcessSaysNothing) {
  Copy mine;
  const std::uint32_t one = join(mine);
  const pid_t child = ::fork();
  if (child == 0) {
    Copy own;
    const auto joined = join(own);
    own.all.record(joined).image = own.all.record(joined).image + 1;
    ::_exit(own.all.dead(one) ? 1 : 0);
  }
  int status = -1;
  ::waitpid(child, &status, 0);
  EXPECT_EQ(status, 0);
  mine.all.release_token(one);
  EXPECT_FALSE(seen_dead_elsewhere(one));
}

}  // namespace
}  // namespace extmem::shared
