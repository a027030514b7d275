// World: a domain with one survivor, which is this process, and the children that die in it.
//
// What it is: the harness' half of the log. start() a child, finish() waits for its death, settle() recovers and checks
// everything against the log, and leaves the domain as it was at the beginning, to the byte.
// Thread-safety: one thread.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "crash/log.hpp"
#include "crash/points.hpp"
#include "extmem/domain.hpp"

namespace extmem::heap {
class DomainState;
}

namespace extmem::crash {

class Snapshot;

struct Child {
  pid_t pid = 0;
  Log* log = nullptr;
  int status = 0;
  bool hung = false;
  std::uint64_t steps = 0;  // single steps that it made
};

struct Tally {
  std::uint64_t kills = 0;
  std::uint64_t copies = 0;  // recovered copies of the control segment: kills that cost less
  std::uint64_t instructions =
      0;             // of the library, after which a child was recovered so, or was as at the one before
  bool cut = false;  // the time was up before the operation was over
  std::uint64_t hangs = 0;
  std::uint64_t corruptions = 0;
  std::uint64_t lost_bytes = 0;
  double worst_recovery_ms = 0;
  std::set<std::string> points;
  std::vector<std::string> problems;
};

class World {
 public:
  static constexpr Kill kNever{};
  static constexpr int kLogs = 4;
  static constexpr std::uint64_t kGrowthStep = 2u << 20;  // of the heap that grows
  static constexpr std::uint64_t kGrowthSteps = 4;        // its limit

  /// `large`: with room for a million objects.
  explicit World(bool large = false);
  World(const World&) = delete;
  ~World();

  /// `log`: below kLogs, so that several children can live at once. `elsewhere`: the regions lie at other addresses there.
  Child start(const std::string& operation, Kill kill, int log = 0, bool elsewhere = false,
              bool traced = false);
  /// Waits for its death; after `seconds` says what it waits for, and kills it.
  void finish(Child& child, int seconds = 20);
  /// Steps a traced child through its operation and kills it after `steps` instructions, or when it is done.
  void step(Child& child, std::uint64_t steps, int seconds = 60);
  /// Steps a traced child through its whole operation. After every `stride`-th instruction of the library the control segment is
  /// compared with what it was, and, where it differs, copied; the copy, whose participants are all dead, is recovered and checked.
  void step_copying(Child& child, std::uint64_t stride, int seconds, const std::string& what);
  /// Recovers and checks. `what`: for messages. False: something is wrong, tally().problems says what.
  bool settle(const std::string& what);
  /// `processes` children in tight loops, killed at random moments, `kills` times or until the time is up.
  void run_at_random(int processes, std::uint64_t kills, std::uint64_t seed, int seconds);
  /// Asks a waiting child ("recover") to go on.
  void wait_ready(Child& child, int seconds = 20);

  [[nodiscard]] Tally& tally() noexcept { return tally_; }
  [[nodiscard]] Domain& domain() noexcept { return domain_; }
  [[nodiscard]] Heap heap() const noexcept { return small_; }
  /// The thread slot that holds the lock of the small metadata, or 0.
  [[nodiscard]] std::uint32_t metadata_lock_holder() const;
  [[nodiscard]] Log& log(int number) noexcept { return *logs_[number]; }
  [[nodiscard]] const std::string& directory() const noexcept { return directory_; }
  /// What is wrong with the child, in words; empty: it died as it should have.
  static std::string trouble(const Child& child);
  void problem(const std::string& what);

 private:
  struct Own {
    Heap heap;
    void* p;
    std::uint32_t size;
    std::uint64_t seed;
  };
  void make_own();
  void lend(Log& log);
  void allocate_own(Heap heap, std::uint32_t size);
  void check_entries(Log& log, const std::string& what);
  void check_another(const std::string& what);
  void check_zones(const std::string& what);
  void remove_what_was_added(const std::string& what);
  /// Frees what nobody owns or knows in the heaps that keep: what the dead had allocated, or were to free, and had not written down.
  void free_unknown(std::uint64_t most, const std::string& what);
  void check_growth(const std::string& what);
  void check_balance(const std::string& what);
  void reconcile(Log& log, const std::string& what);
  void own_step(std::uint64_t random);
  bool wait_until_cleaned(const std::string& what);
  /// Before anybody recovers anything: who only looks finds no breach, wherever somebody died.
  void look(const char* name, const std::string& what);
  void check_copy(Child& child, const Snapshot& state, const std::string& what);
  void check_lists(Domain& domain, const std::string& what);
  [[nodiscard]] std::string metadata();
  void forget(Log& log);

  std::string directory_;
  Domain domain_;
  heap::DomainState* state_ = nullptr;
  Heap small_, exact_, kept_, kept_exact_, grown_;
  std::vector<RegionId> regions_;
  Log* logs_[kLogs] = {};
  int log_fds_[kLogs] = {};
  std::vector<Own> own_;
  std::string metadata_;
  Tally tally_;
};

}  // namespace extmem::crash
