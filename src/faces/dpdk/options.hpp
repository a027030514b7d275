// The command line of rte_eal_init(): from words to EalOptions and LcoreOptions.
//
// What it is: one table of options (options.cpp), the readers of their values (option_values.cpp), the rules that go
// over several (options_check.cpp), the names of devices (option_devices.cpp), and the text of --help (usage.cpp). Nothing here touches memory or threads.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "faces/dpdk/cpus.hpp"
#include "faces/dpdk/eal.hpp"

namespace extmem::dpdk {

inline constexpr unsigned kMaxLcores = RTE_MAX_LCORE;

/// Which lcores there shall be, and where.
struct LcoreOptions {
  std::array<bool, kMaxLcores> wanted{};
  std::array<bool, kMaxLcores> service{};  ///< of those wanted, set aside
  std::array<cpu_set_t, kMaxLcores> cpus{};
  bool named = false;  ///< -c, -l or --lcores was given; else every processor that the process is pinned to
  std::optional<unsigned> main;
};

struct CommandLine {
  EalOptions eal;
  LcoreOptions lcores;
  bool help = false;
  bool log_help = false;
  bool version = false;
  int taken = 0;  ///< what rte_eal_init() returns
};

/// Reads the command line, moving the options to the front. Lcores are on `cpus.now` where the command line names none, and it
/// may name any of `cpus.allowed`.
/// Returns: false where something is wrong; the log says what.
bool parse_command_line(int argc, char** argv, const ProcessCpus& cpus, CommandLine& line);

/// What must hold over several options, and the values that are left to be chosen (--proc-type=auto is not: it needs a
/// look at the runtime directory). Returns: false where options do not go together; the log says which.
bool check_options(CommandLine& line, const ProcessCpus& cpus, bool mem_given, bool unlink_never);

void print_usage(const char* program, rte_usage_hook_t application);

// ---- values; each returns nothing, or false, where the text is malformed ----

/// A decimal number, or with base 0 one as strtoull() reads it; the whole text.
std::optional<std::uint64_t> parse_number(std::string_view text, int base = 10) noexcept;
/// "512,0,1024" in MiB, one for each socket, to bytes.
bool parse_socket_sizes(const char* text, std::span<std::uint64_t> bytes) noexcept;
/// A hexadecimal mask, with or without 0x: which of the bits are set. At least one is.
bool parse_mask(std::string_view text, std::span<bool> bits) noexcept;
/// "0-3, 7". At least one is set.
bool parse_list(std::string_view text, std::span<bool> bits) noexcept;
/// The name of a device that some bus of DPDK's reads (-a, -b), or of a software device (--vdev); what follows a comma is not
/// looked at.
bool is_device(std::string_view text) noexcept;
bool is_software_device(std::string_view text) noexcept;
/// "0-3,(4,5)@(0-1),6@2": lcores with their processors.
bool parse_lcore_map(std::string_view text, LcoreOptions& lcores) noexcept;

}  // namespace extmem::dpdk
