// The command line of rte_eal_init(): what each option does, and what is refused.
#include "faces/dpdk/options.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rte_log.h>

#include <cstring>
#include <string>
#include <vector>

namespace extmem::dpdk {
namespace {

using ::testing::ElementsAre;

constexpr std::uint64_t kMiB = 1u << 20;

// Parses as a process that may use processors 0 to 7, and is pinned to 0 to 3 of them.
struct Parsed {
  bool good = false;
  CommandLine line{};
  std::vector<std::string> left;  // what the program gets
};

Parsed parse(const std::vector<std::string>& words) {
  ProcessCpus process;
  for (unsigned cpu = 0; cpu < 8; ++cpu) CPU_SET(cpu, &process.allowed);
  for (unsigned cpu = 0; cpu < 4; ++cpu) CPU_SET(cpu, &process.now);
  std::vector<std::string> copies{"/bin/program"};
  copies.insert(copies.end(), words.begin(), words.end());
  std::vector<char*> argv;
  for (std::string& word : copies) argv.push_back(word.data());
  argv.push_back(nullptr);
  const int argc = static_cast<int>(copies.size());
  Parsed parsed;
  rte_openlog_stream(stderr);
  parsed.good = parse_command_line(argc, argv.data(), process, parsed.line);
  for (int i = parsed.line.taken; parsed.good && i < argc; ++i)
    parsed.left.emplace_back(argv[static_cast<std::size_t>(i)]);
  return parsed;
}

std::vector<unsigned> wanted(const Parsed& parsed) {
  std::vector<unsigned> ids;
  for (unsigned id = 0; id < kMaxLcores; ++id) {
    if (parsed.line.lcores.wanted[id]) ids.push_back(id);
  }
  return ids;
}

std::vector<unsigned> cpus(const Parsed& parsed, unsigned id) {
  std::vector<unsigned> set;
  for (unsigned cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &parsed.line.lcores.cpus[id])) set.push_back(cpu);
  }
  return set;
}

TEST(DpdkOptions, LeaveTheProgramItsOwnArguments) {
  EXPECT_THAT(parse({}).left, ElementsAre("/bin/program"));
  EXPECT_THAT(parse({"--no-huge"}).left, ElementsAre("/bin/program"));
  EXPECT_THAT(parse({"-m", "5", "--", "-m", "x"}).left, ElementsAre("/bin/program", "-m", "x"));
  EXPECT_THAT(parse({"file", "-m", "5"}).left, ElementsAre("/bin/program", "file"));
  EXPECT_EQ(parse({"-m", "5", "--", "-m", "x"}).line.taken, 3);
}

TEST(DpdkOptions, ParseTwiceAndLeaveGetoptAsItWas) {
  optind = 7;
  EXPECT_TRUE(parse({"-m", "5"}).good);
  EXPECT_TRUE(parse({"-m", "6"}).good);
  EXPECT_EQ(optind, 7);
  optind = 1;
}

TEST(DpdkOptions, HaveDpdksDefaults) {
  const Parsed p = parse({});
  ASSERT_TRUE(p.good);
  EXPECT_STREQ(p.line.eal.file_prefix.data(), "rte");
  EXPECT_EQ(p.line.eal.process, RTE_PROC_PRIMARY);
  EXPECT_EQ(p.line.eal.iova_mode, RTE_IOVA_VA);
  EXPECT_EQ(p.line.eal.memory, 0u);
  EXPECT_TRUE(p.line.eal.shared());
  EXPECT_THAT(wanted(p), ElementsAre(0, 1, 2, 3));
  EXPECT_EQ(p.line.lcores.main, 0u);
}

TEST(DpdkOptions, ReadMemory) {
  EXPECT_EQ(parse({"-m", "64"}).line.eal.memory, 64 * kMiB);
  const Parsed p = parse({"--socket-mem=1,0,3", "--socket-limit", "0,5"});
  ASSERT_TRUE(p.good);
  EXPECT_TRUE(p.line.eal.has_socket_mem && p.line.eal.has_socket_limit);
  EXPECT_EQ(p.line.eal.socket_mem[0], kMiB);
  EXPECT_EQ(p.line.eal.socket_mem[1], 0u);
  EXPECT_EQ(p.line.eal.socket_mem[2], 3 * kMiB);
  EXPECT_EQ(p.line.eal.socket_limit[1], 5 * kMiB);
  EXPECT_TRUE(parse({"--socket-mem=0"}).good);  // as DPDK 22.11 has it
  EXPECT_STREQ(parse({"--huge-dir", "/mnt/huge"}).line.eal.huge_dir.data(), "/mnt/huge");
  EXPECT_EQ(parse({"--base-virtaddr=0x100000"}).line.eal.base_virtaddr, 0x100000u);
  EXPECT_EQ(parse({"--base-virtaddr=7f0000000000"}).line.eal.base_virtaddr, 0x7f0000000000u);
  EXPECT_EQ(parse({"--iova-mode=pa"}).line.eal.iova_mode, RTE_IOVA_PA);
  EXPECT_TRUE(parse({"--huge-unlink"}).line.eal.huge_unlink);
  EXPECT_TRUE(parse({"--huge-unlink=always"}).line.eal.huge_unlink);
  EXPECT_FALSE(parse({"--huge-unlink=existing"}).line.eal.huge_unlink);
  const Parsed counts = parse({"-n", "4", "-r2"});
  EXPECT_EQ(counts.line.eal.channels, 4u);
  EXPECT_EQ(counts.line.eal.ranks, 2u);
}

TEST(DpdkOptions, ReadFlags) {
  const Parsed p = parse({"--no-huge", "--in-memory", "--no-shconf", "--legacy-mem", "--single-file-segments",
                          "--create-uio-dev", "-v"});
  ASSERT_TRUE(p.good);
  const EalOptions& eal = p.line.eal;
  EXPECT_TRUE(eal.no_huge && eal.in_memory && eal.no_shconf && eal.legacy_mem && eal.single_file_segments);
  EXPECT_TRUE(eal.create_uio_dev && p.line.version && !eal.shared());
  EXPECT_TRUE(parse({"--match-allocations"}).line.eal.match_allocations);
  EXPECT_TRUE(parse({"-h", "--proc-type=auto"}).line.help);
  EXPECT_TRUE(parse({"--log-level=help"}).line.log_help);
}

TEST(DpdkOptions, ReadWords) {
  const Parsed p =
      parse({"--file-prefix=mine", "--proc-type=secondary", "--vfio-intr=msix", "--mbuf-pool-ops-name",
             "stack", "--vfio-vf-token=6ba7b810-9dad-11d1-80b4-00c04fd430c8"});
  ASSERT_TRUE(p.good);
  EXPECT_STREQ(p.line.eal.file_prefix.data(), "mine");
  EXPECT_EQ(p.line.eal.process, RTE_PROC_SECONDARY);
  EXPECT_EQ(p.line.eal.vfio_intr, RTE_INTR_MODE_MSIX);
  EXPECT_STREQ(p.line.eal.mbuf_pool_ops.data(), "stack");
  EXPECT_EQ(p.line.eal.vfio_vf_token[0], 0x6b);
  EXPECT_EQ(parse({"--proc-type", "auto"}).line.eal.process, RTE_PROC_AUTO);
  EXPECT_EQ(parse({"--proc-type=Secondary"}).line.eal.process, RTE_PROC_SECONDARY);
}

TEST(DpdkOptions, ReadLcores) {
  EXPECT_THAT(wanted(parse({"-l", "1,3-5"})), ElementsAre(1, 3, 4, 5));
  EXPECT_THAT(wanted(parse({"-l", "5-3"})), ElementsAre(3, 4, 5));
  EXPECT_THAT(wanted(parse({"-l", " 1 , 3 - 5\t,7"})), ElementsAre(1, 3, 4, 5, 7));
  EXPECT_THAT(wanted(parse({"--lcores", "( 1 , 2 ) @ ( 3 ), 5"})), ElementsAre(1, 2, 5));
  EXPECT_THAT(wanted(parse({"-c", "0xa1"})), ElementsAre(0, 5, 7));
  EXPECT_THAT(wanted(parse({"-c", "A1"})), ElementsAre(0, 5, 7));
  EXPECT_EQ(parse({"-l", "3-5"}).line.lcores.main, 3u);
  EXPECT_EQ(parse({"-l", "3-5", "--main-lcore=4"}).line.lcores.main, 4u);
  const Parsed p = parse({"-l", "0-3", "-s", "0x81"});
  EXPECT_EQ(p.line.lcores.main, 1u);
  EXPECT_TRUE(p.line.lcores.service[0]);
  EXPECT_FALSE(p.line.lcores.service[7]) << "it is no lcore";
}

TEST(DpdkOptions, ReadTheMapOfLcores) {
  const Parsed p = parse({"--lcores", "0,(1,2)@3,(4-6),100@(5-7),7@0"});
  ASSERT_TRUE(p.good);
  EXPECT_THAT(wanted(p), ElementsAre(0, 1, 2, 4, 5, 6, 7, 100));
  EXPECT_THAT(cpus(p, 0), ElementsAre(0));
  EXPECT_THAT(cpus(p, 1), ElementsAre(3));
  EXPECT_THAT(cpus(p, 2), ElementsAre(3));
  EXPECT_THAT(cpus(p, 5), ElementsAre(4, 5, 6)) << "a group floats over all of its processors";
  EXPECT_THAT(cpus(p, 100), ElementsAre(5, 6, 7));
  EXPECT_THAT(cpus(p, 7), ElementsAre(0));
  EXPECT_THAT(cpus(parse({"--lcores=1-2"}), 2), ElementsAre(2));
}

TEST(DpdkOptions, TakeWhatHasNoMeaningHere) {
  EXPECT_TRUE(parse({"-a",
                     "0000:01:00.0",
                     "--allow=02:00.0",
                     "-d",
                     "libx.so",
                     "--vdev=net_null0",
                     "--vdev",
                     "net_ring",
                     "--no-pci",
                     "--no-hpet",
                     "--no-telemetry",
                     "--telemetry",
                     "--syslog=user",
                     "--trace=.*",
                     "--trace-dir=/tmp",
                     "--trace-bufsz=1M",
                     "--trace-mode=d",
                     "--vmware-tsc-map",
                     "--force-max-simd-bitwidth=256",
                     "--huge-worker-stack",
                     "--huge-worker-stack=256"})
                  .good);
  for (const char* device :
       {"01:00.0", "FF:09.0", "00FF:09:0B.3", "09:0B.3,type=test,fix=1", "pci:0000:01:00.0", "0:1.0",
        "auxiliary:mlx5_core.sf.1", "net_pcap0", "bus=pci,addr=0:1.0"}) {
    EXPECT_TRUE(parse({"-a", device}).good) << device;
    EXPECT_TRUE(parse({"-b", device}).good) << device;
  }
}

TEST(DpdkOptions, SetLogLevels) {
  ASSERT_TRUE(parse({"--log-level=error"}).good);
  EXPECT_EQ(rte_log_get_global_level(), RTE_LOG_ERR);
  ASSERT_TRUE(parse({"--log-level", "8", "--log-level=user1:debug", "--log-level=^user[23]$,warn"}).good);
  EXPECT_EQ(rte_log_get_global_level(), RTE_LOG_DEBUG);
  EXPECT_EQ(rte_log_get_level(RTE_LOGTYPE_USER1), static_cast<int>(RTE_LOG_DEBUG));
  EXPECT_EQ(rte_log_get_level(RTE_LOGTYPE_USER2), static_cast<int>(RTE_LOG_WARNING));
  EXPECT_EQ(rte_log_get_level(RTE_LOGTYPE_USER4), static_cast<int>(RTE_LOG_INFO));
}

class DpdkOptionsRefuse : public ::testing::TestWithParam<std::vector<std::string>> {};

TEST_P(DpdkOptionsRefuse, What) { EXPECT_FALSE(parse(GetParam()).good); }

using Words = std::vector<std::string>;
INSTANTIATE_TEST_SUITE_P(
    UnknownOrMalformed, DpdkOptionsRefuse,
    ::testing::Values(Words{"--bogus"}, Words{"-Z"}, Words{"-m"}, Words{"-m", "abc"}, Words{"-m", "-5"},
                      Words{"-m", "99999999999999999"}, Words{"--socket-mem="}, Words{"--proc-type="},
                      Words{"--socket-mem=1,,2"}, Words{"--socket-mem=1,x"}, Words{"--socket-limit=y"},
                      Words{"-n", "0"}, Words{"-r", "0"}, Words{"-r", "17"}, Words{"--base-virtaddr=zz"},
                      Words{"--iova-mode=dc"}, Words{"--huge-unlink=sometimes"}, Words{"--huge-dir="},
                      Words{"--file-prefix="}, Words{"--file-prefix=a%b"}, Words{"--file-prefix=a/b"},
                      Words{"--file-prefix", std::string(59, 'a')}, Words{"--proc-type=third"},
                      Words{"--log-level=loud"}, Words{"--log-level=9"}, Words{"--log-level=lib.eal:e"},
                      Words{"--log-level=[,8"}, Words{"--syslog=here"}, Words{"--vfio-intr=none"},
                      Words{"--vfio-vf-token=5"}, Words{"--mbuf-pool-ops-name="},
                      Words{"--force-max-simd-bitwidth=100"}, Words{"--huge-worker-stack=x"},
                      Words{"--no-huge=1"}, Words{"--trace-mode=x"}, Words{"--trace-mode="},
                      Words{"--trace-bufsz=0"}, Words{"--trace-bufsz=x"}, Words{"--vdev=eth_dummy"},
                      Words{"--vdev=net_"}, Words{"--vdev="}));
INSTANTIATE_TEST_SUITE_P(DevicesThatNoBusKnows, DpdkOptionsRefuse,
                         ::testing::Values(Words{"-b", "error"}, Words{"-b", "0:0:0"},
                                           Words{"-b", "0:error:0.1"}, Words{"-b", "0:0:0.1error"},
                                           Words{"-b", "error0:0:0.1"}, Words{"-b", "0:0:0.1.2"},
                                           Words{"-b", ""}, Words{"-a", "error"}, Words{"-a", "pci:"},
                                           Words{"-a", "000000000:01:00.0"}, Words{"-a", "001:00.0"},
                                           Words{"-a", ","}));
INSTANTIATE_TEST_SUITE_P(
    LcoresThatAreNotThere, DpdkOptionsRefuse,
    ::testing::Values(Words{"-l", "8"}, Words{"-l", "500"}, Words{"-l", ""}, Words{"-l", "1,"},
                      Words{"-l", "1-"}, Words{"-l", "1 2"}, Words{"-c", "0"}, Words{"-c", "0x"},
                      Words{"-c", "xyz"}, Words{"-c", "0x100"}, Words{"--lcores="}, Words{"--lcores=(1,2"},
                      Words{"--lcores=1@"}, Words{"--lcores=1@8"}, Words{"--lcores=1,1@2"},
                      Words{"--lcores=1;2"}, Words{"--lcores=200@0"}, Words{"-l", "0", "-l", "1"},
                      Words{"-l", "0", "-c", "1"}, Words{"-c", "1", "--lcores=0"},
                      Words{"-l", "0", "--main-lcore=1"}, Words{"--main-lcore=128"}, Words{"--main-lcore=x"},
                      Words{"-l", "0", "-S", "0"}, Words{"-l", "0-1", "-S", "1", "--main-lcore=1"},
                      Words{"-s", "q"}));
INSTANTIATE_TEST_SUITE_P(WhatDoesNotGoTogether, DpdkOptionsRefuse,
                         ::testing::Values(Words{"-m", "64", "--socket-mem=64"},
                                           Words{"--no-huge", "--socket-mem=64"},
                                           Words{"--no-huge", "--huge-unlink"},
                                           Words{"--no-huge", "--match-allocations"},
                                           Words{"--legacy-mem", "--match-allocations"},
                                           Words{"--single-file-segments", "--huge-unlink"},
                                           Words{"--in-memory", "--huge-unlink=never"},
                                           Words{"--in-memory", "--proc-type=secondary"},
                                           Words{"--no-shconf", "--proc-type=secondary"},
                                           Words{"-a", "01:00.0", "-b", "02:00.0"}));

TEST(DpdkOptions, GoTogetherWhereDpdkRefusesForNoReason) {
  EXPECT_TRUE(parse({"--no-huge", "--in-memory", "-m", "64"}).good);
  EXPECT_TRUE(parse({"--in-memory", "--single-file-segments"}).good);
}

}  // namespace
}  // namespace extmem::dpdk
