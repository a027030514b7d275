// The examples as processes: started, killed, and the domain looked at afterwards. Does not use DPDK.
#pragma once

#include <gtest/gtest.h>
#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "../../examples/dpdk/packets.hpp"
#include "contract/runtime_directory.hpp"

namespace bridge_test {

using namespace std::chrono_literals;

/// A child that is killed and waited for at the end, whatever happens.
class Program {
 public:
  Program() = default;
  Program(const std::string& file, std::vector<std::string> arguments);
  Program(Program&& other) noexcept : pid_(std::exchange(other.pid_, -1)), status_(other.status_) {}
  Program& operator=(Program&& other) noexcept;
  ~Program() { kill(); }

  [[nodiscard]] ::pid_t pid() const { return pid_; }
  [[nodiscard]] bool running();
  void kill();
  void stop() const { (void)::kill(pid_, SIGSTOP); }
  void go_on() const { (void)::kill(pid_, SIGCONT); }
  /// Its exit status; -signal when it was killed. Fails the test, and kills it, after `patience`.
  int wait(std::chrono::seconds patience = 120s);

 private:
  ::pid_t pid_ = -1;
  int status_ = 0;
};

/// What the domain says when everything is over.
struct Outcome {
  std::uint64_t read = 0, twice = 0, damaged = 0, orphans = 0, dropped_hands = 0, sent_again = 0,
                received = 0, drained = 0;
  std::uint32_t sources = 0;
};

class Processes : public ::testing::Test {
 protected:
  static constexpr const char* kDomain = "t";

  void SetUp() override;
  void TearDown() override;
  /// Writes the capture: `packets` packets of at most `longest` bytes.
  void capture(std::uint64_t packets, std::size_t longest = 1438);
  Program reader(std::vector<std::string> options = {});
  Program source(std::vector<std::string> options = {});
  /// Reads what is in the domain, checks all of it (rings, heap, metadata), and removes it.
  Outcome audit();
  /// That every packet was read, once, and nothing is left over.
  void expect_all_read(const Outcome& outcome) const;
  /// How many packets were read so far; 0 while there is no domain.
  std::uint64_t read_so_far();
  /// What the domain counts now; zeroes while there is none.
  Outcome counters();

  extmem::test::RuntimeDirectory directory_;
  extmem::test::RuntimeDirectory dpdk_directory_;  // EAL leaves a folder for each file prefix
  std::string capture_file_;
  std::uint64_t packets_ = 0;
  std::vector<std::string> eal_;  // instead of the usual: no hugepages, no files, net_pcap with the capture

 private:
  static Outcome outcome_of(const extmem::Domain& domain, std::uint64_t packets);
  bool look();
  extmem::Domain seen_;  // while the programs run
};

}  // namespace bridge_test
