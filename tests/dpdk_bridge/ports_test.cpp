// The same packets by other ports and on other memory, where the machine has what it takes: a network namespace of the test's
// own with a pair of veth devices; hugepages.
#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <cstdlib>
#include <fstream>
#include <thread>

#include "programs.hpp"

using namespace extmem;

namespace bridge_test {
namespace {

/// Runs a command, and tells whether it succeeded.
bool runs(const std::string& command) {
  const int status = std::system((command + " 2>/dev/null").c_str());
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

/// The frames of a capture that make_capture wrote.
std::vector<std::string> frames_of(const std::string& file) {
  std::ifstream in(file, std::ios::binary);
  in.ignore(24);
  std::vector<std::string> frames;
  std::uint32_t record[4];
  while (in.read(reinterpret_cast<char*>(record), sizeof record)) {
    frames.emplace_back(record[2], '\0');
    in.read(frames.back().data(), record[2]);
  }
  return frames;
}

/// Sends frames out of a device, never more than `window` ahead of what was read.
class Sender {
 public:
  explicit Sender(const char* device) : socket_(::socket(AF_PACKET, SOCK_RAW, htons(packets::kEtherType))) {
    address_.sll_family = AF_PACKET;
    address_.sll_ifindex = static_cast<int>(::if_nametoindex(device));
    address_.sll_halen = 6;
    EXPECT_GE(socket_, 0) << std::strerror(errno);
    EXPECT_NE(address_.sll_ifindex, 0);
  }
  Sender(const Sender&) = delete;
  Sender& operator=(const Sender&) = delete;
  ~Sender() { ::close(socket_); }
  [[nodiscard]] bool send(const std::string& frame) const {
    return ::sendto(socket_, frame.data(), frame.size(), 0, reinterpret_cast<const sockaddr*>(&address_),
                    sizeof address_) == static_cast<ssize_t>(frame.size());
  }

 private:
  int socket_;
  sockaddr_ll address_{};
};

using Ports = Processes;

TEST_F(Ports, OfAfPacketReceiveFromTheKernel) {
  if (::unshare(CLONE_NEWNET) != 0)
    GTEST_SKIP() << "needs the right to make a network namespace: " << std::strerror(errno);
  if (!runs("ip link add extmem0 type veth peer name extmem1"))
    GTEST_SKIP() << "needs ip (iproute2) and a kernel with veth devices";
  ASSERT_TRUE(runs("ip link set extmem0 up") && runs("ip link set extmem1 up"));
  capture(3000);
  eal_ = {"--no-huge", "--no-shconf", "-m32", "--vdev=net_af_packet0,iface=extmem0"};
  Program victim = reader({"--die", "read", "1000"});
  Program the_source = source();
  // The source receives only when its port has started, which shows when a packet arrives: knock with one that is none of ours.
  const std::vector<std::string> frames = frames_of(capture_file_);
  ASSERT_EQ(frames.size(), packets_);
  const Sender sender("extmem1");
  std::string knock = frames[0];
  knock[packets::kEthernet] = 0;
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (counters().received == 0 && the_source.running() && std::chrono::steady_clock::now() < patience) {
    ASSERT_TRUE(sender.send(knock));
    std::this_thread::sleep_for(5ms);
  }
  Program next;
  std::uint64_t sent = 0;
  while (sent < packets_ && the_source.running() && std::chrono::steady_clock::now() < patience) {
    if (!victim.running() && next.pid() < 0) next = reader();
    if (sent >= read_so_far() + 64) {  // the kernel's ring has room for a few hundred
      std::this_thread::sleep_for(1ms);
      continue;
    }
    ASSERT_TRUE(sender.send(frames[sent++])) << std::strerror(errno);
  }
  if (next.pid() < 0) next = reader();
  EXPECT_EQ(the_source.wait(), 0);
  EXPECT_EQ(next.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.sent_again, 1u);
}

TEST_F(Ports, AndBuffersMayUseHugepages) {
  // DPDK's headers and our buffers: 32 MiB and some, in pages of 2 MiB.
  std::ifstream info("/proc/meminfo");
  std::string word;
  std::uint64_t free = 0;
  bool of_2_mib = false;
  while (info >> word) {
    if (word == "HugePages_Free:") info >> free;
    if (word == "Hugepagesize:") of_2_mib = (info >> word) && word == "2048";
  }
  if (!of_2_mib || free < 40) GTEST_SKIP() << "needs 40 free hugepages: echo 64 > /proc/sys/vm/nr_hugepages";
  capture(3000);
  eal_ = {"--in-memory", "-m32", "--vdev=net_pcap0,rx_pcap=" + capture_file_};
  Program victim = reader({"--die", "hand", "500"});
  Program the_source = source({"--hugetlb"});
  Program next;
  while (the_source.running()) {
    (void)counters();  // maps the memory, which has no name and would go with the last process that does
    if (!victim.running() && next.pid() < 0) next = reader();
    std::this_thread::sleep_for(2ms);
  }
  const int status = the_source.wait();
  if (status == 77 || (status == 1 && counters().sources == 0))
    GTEST_SKIP() << "needs 40 free hugepages: others took them meanwhile";
  EXPECT_EQ(status, 0);
  EXPECT_EQ(next.wait(), 0);
  const Outcome outcome = audit();
  expect_all_read(outcome);
  EXPECT_EQ(outcome.orphans, 1u);
}

TEST_F(Ports, OfASecondaryProcessShareWhatIsLent) {
  // DPDK's own memory is shared by way of a mounted hugetlbfs only.
  const std::string mount_point = ::testing::TempDir() + "extmem-huge-" + std::to_string(::getpid());
  if (::unshare(CLONE_NEWNS) != 0 || ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
    GTEST_SKIP() << "needs the right to make a mount namespace: " << std::strerror(errno);
  ASSERT_EQ(::mkdir(mount_point.c_str(), 0700), 0);
  const bool mounted = ::mount("none", mount_point.c_str(), "hugetlbfs", 0, nullptr) == 0;
  if (mounted) {
    // A secondary process must map what the primary has at the same address. Where DPDK begins by itself, 4 GiB, a
    // sanitizer has its shadow; what the kernel then gives to the primary is the secondary's by chance only. 32 TiB is
    // free in every one.
    Program both(TWO_PROCESSES, {"-m16", "--no-pci", "--no-telemetry", "--log-level=critical",
                                 "--base-virtaddr=0x200000000000",
                                 "--file-prefix=t" + std::to_string(::getpid()), "--huge-dir", mount_point});
    const int status = both.wait();
    (void)::umount2(mount_point.c_str(), MNT_DETACH);
    (void)::rmdir(mount_point.c_str());
    if (status == 77) GTEST_SKIP() << "needs 8 free hugepages of the kernel's default size";
    EXPECT_EQ(status, 0);
    EXPECT_TRUE(Domain::remove("two"));
  } else {
    (void)::rmdir(mount_point.c_str());
    GTEST_SKIP() << "needs hugetlbfs in the kernel";
  }
}

TEST_F(Ports, OfHugepagesWithoutANameSayThatTheyAreGone) {
  capture(100);
  eal_ = {"--no-huge", "--no-shconf", "-m32", "--vdev=net_pcap0,rx_pcap=" + capture_file_};
  Program only = source({"--hugetlb", "--die", "created", "1"});
  const int status = only.wait();
  if (status == 77) GTEST_SKIP() << "needs 3 free hugepages";
  EXPECT_EQ(status, -SIGKILL);
  EXPECT_EQ(reader().wait(), 1);
  EXPECT_EQ(source({"--hugetlb"}).wait(), 1);
  EXPECT_TRUE(Domain::remove(kDomain));
}

}  // namespace
}  // namespace bridge_test
