// A participant that dies between any two instructions: each operation is single-stepped in a child, and whenever an
// instruction changed the shared memory, a copy of it is recovered and its books are balanced.
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstdio>

#include "unit/shared/ring_scenarios.hpp"

namespace extmem::shared::test {
namespace {

#if defined(__SANITIZE_THREAD__)
constexpr bool kTooSlow = true;
#elif defined(__has_feature)
constexpr bool kTooSlow = __has_feature(thread_sanitizer);  // thousands of instructions for each access
#else
constexpr bool kTooSlow = false;
#endif

void stop_here() { ::syscall(SYS_kill, ::syscall(SYS_getpid), SIGSTOP); }

/// Runs `body` in a child, one instruction at a time; calls `look` after each. Returns: how many; -1 where this
/// machine forbids it.
template <typename Body, typename Look>
long step_through(Body body, Look look) {
  const pid_t child = ::fork();
  if (child < 0) return -1;
  if (child == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);  // never outlive a parent that was killed
    if (::ptrace(PTRACE_TRACEME, 0, nullptr, nullptr) != 0) ::_exit(1);
    stop_here();
    body();
    stop_here();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  if (!WIFSTOPPED(status)) return -1;
  long steps = 0;
  for (;; ++steps) {
    if (::ptrace(PTRACE_SINGLESTEP, child, nullptr, nullptr) != 0) break;
    if (::waitpid(child, &status, 0) != child || !WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP) break;
    look(steps);
  }
  const bool whole = WIFSTOPPED(status) && WSTOPSIG(status) == SIGSTOP;
  EXPECT_TRUE(whole) << "the child did not come to its end: status " << status;
  ::kill(child, SIGKILL);
  ::waitpid(child, &status, 0);
  return steps;
}

TEST(RingStep, BooksBalanceAfterEveryInstruction) {
  if (kTooSlow) GTEST_SKIP() << "needs a build without ThreadSanitizer, whose runtime takes too many steps";
  long steps = 0;
  int balanced = 0;
  for (const Scenario& scenario : scenarios()) {
    const Stage stage(scenario);
    const Ring victim = stage.attach(kVictim);
    Books books(scenario, stage);
    std::vector<std::byte> last(stage.bytes());
    const auto look = [&](long step) {
      if (std::memcmp(last.data(), stage.base(), stage.bytes()) == 0 || ::testing::Test::HasFailure()) return;
      std::memcpy(last.data(), stage.base(), stage.bytes());
      books.balance("after instruction " + std::to_string(step));
    };
    const long taken = step_through([&] { stage.act(victim); }, look);
    if (taken < 0) GTEST_SKIP() << "needs ptrace: allow this user to trace its own children";
    if (HasFailure()) return;
    EXPECT_GE(books.balanced(), 1);
    steps += taken;
    balanced += books.balanced();
  }
  std::printf("%ld instructions, %d different states recovered\n", steps, balanced);
}

TEST(RingStep, ACreatorLeavesARingOrNone) {
  if (kTooSlow) GTEST_SKIP() << "needs a build without ThreadSanitizer, whose runtime takes too many steps";
  for (const bool again : {false, true}) {
    for (const RingKind kind : {RingKind::spsc, RingKind::mpmc}) {
      SharedMemory memory(*Ring::bytes_for(kind, 4));
      if (again) {
        const RingKind other = kind == RingKind::spsc ? RingKind::mpmc : RingKind::spsc;
        ASSERT_TRUE(Ring::create(memory.base(), memory.bytes(), other, 2));
        ASSERT_TRUE(Ring::attach(memory.base(), memory.bytes(), 0)->try_push(element(1)));
      }
      SharedMemory copy(memory.bytes());
      int rings = 0;
      const auto look = [&](long step) {
        if (std::memcmp(copy.base(), memory.base(), memory.bytes()) == 0) return;
        std::memcpy(copy.base(), memory.base(), memory.bytes());
        const auto ring = Ring::attach(copy.base(), copy.bytes(), 0);
        if (!ring) {
          ASSERT_EQ(ring.error().code(), ENODATA) << step;
          return;
        }
        ASSERT_TRUE(ring->check());
        if (again && rings == 0 && ring->capacity() == 2) return;  // nothing has happened to the old one yet
        ++rings;
        ASSERT_EQ(ring->capacity(), 4u);
        ASSERT_EQ(ring->size_hint(), 0u);
      };
      const auto body = [&] { (void)Ring::create(memory.base(), memory.bytes(), kind, 4); };
      if (step_through(body, look) < 0)
        GTEST_SKIP() << "needs ptrace: allow this user to trace its own children";
      EXPECT_EQ(rings, 1);
    }
  }
}

}  // namespace
}  // namespace extmem::shared::test
