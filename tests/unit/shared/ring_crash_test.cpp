// A participant that is killed at a named crash point: every point of every scenario, in a forked child.
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>

#include "base/crash_point.hpp"
#include "unit/shared/ring_scenarios.hpp"

namespace extmem::shared::test {
namespace {

struct Countdown {
  int left = 0;
  char* name = nullptr;  // shared with the parent
};
Countdown countdown;

void die_when_counted_down(const char* name) {
  if (countdown.left-- > 0) return;
  std::strncpy(countdown.name, name, 63);
  ::kill(::getpid(), SIGKILL);
}

/// Every crash point of the rings; the wait paths' own are for the random kills.
const std::set<std::string> kAllPoints{
    "ring.mpmc.help",
    "ring.mpmc.pop.settled",
    "ring.mpmc.pop.written",
    "ring.mpmc.push.before",
    "ring.mpmc.push.done",
    "ring.mpmc.push.raised",
    "ring.mpmc.recover.before",
    "ring.mpmc.recover.mine",
    "ring.mpmc.recover.reported",
    "ring.mpmc.settled",
    "ring.mpmc.take.before",
    "ring.mpmc.take.done",
    "ring.spsc.claim",
    "ring.spsc.pop.claimed",
    "ring.spsc.pop.settled",
    "ring.spsc.pop.written",
    "ring.spsc.push.done",
    "ring.spsc.push.written",
    "ring.spsc.recover.consumer",
    "ring.spsc.recover.freed",
    "ring.spsc.recover.producer",
    "ring.spsc.recover.reported",
    "ring.spsc.settled",
    "ring.spsc.take.before",
    "ring.spsc.take.done",
    "ring.wake.before",
    "ring.wake.cleared",
    "ring.wait.announced",
};

TEST(RingCrash, BooksBalanceAfterAKillAtEveryPoint) {
  const SharedMemory name(4096);
  std::set<std::string> hit;
  int kills = 0;
  std::vector<Scenario> all = scenarios();
  const auto wait = [](const Ring& ring, Hand&) {
    (void)ring.push_wait(element(kFirstPushed), std::chrono::nanoseconds(1));
  };
  all.push_back({"wait for room", RingKind::spsc, 8, {}, wait});
  all.push_back({"wait for room", RingKind::mpmc, 8, {}, wait});
  all.push_back(
      {"recover a dead producer", RingKind::spsc, 0,
       [](const RingWorld& world) { ASSERT_TRUE(world.attach(kOtherDead).try_push(element(kFirstPushed))); },
       recover_other});
  for (const Scenario& scenario : all) {
    for (int point = 0;; ++point) {
      const Stage stage(scenario);
      const Ring victim = stage.attach(kVictim);
      Books books(scenario, stage);
      std::memset(name.base(), 0, 64);
      const pid_t child = ::fork();
      ASSERT_GE(child, 0);
      if (child == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlive a parent that was killed
        countdown = {point, reinterpret_cast<char*>(name.base())};
        base::crash_point_hook = die_when_counted_down;
        stage.act(victim);
        ::_exit(0);
      }
      int status = 0;
      ASSERT_EQ(::waitpid(child, &status, 0), child);
      const std::string where = reinterpret_cast<const char*>(name.base());
      books.balance(WIFSIGNALED(status) ? "killed at " + where : "not killed");
      if (HasFailure()) return;
      if (!WIFSIGNALED(status)) break;
      hit.insert(where);
      ++kills;
    }
  }
  EXPECT_EQ(hit, kAllPoints);
  std::printf("%d kills at %zu points\n", kills, hit.size());
}

}  // namespace
}  // namespace extmem::shared::test
