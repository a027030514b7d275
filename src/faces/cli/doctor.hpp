// What `extmem doctor` looks at: a list of checks, each with what was found, what it matters for and what fixes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

namespace extmem::cli::doctor {

enum class State : std::uint8_t {
  ok,
  limited,  ///< something that some programs want is not there
  lacking,  ///< extmem, or a part of it, does not work
  unknown,  ///< this user cannot find out
};

struct Check {
  std::string group;
  std::string name;
  State state = State::ok;
  std::string found;
  std::string matters;  ///< for whom; empty where the state is ok
  std::string fix;      ///< a command line, or empty where there is none
};

using Checks = std::vector<Check>;

/// Which runtime directory is looked at: empty, the one that programs find.
void check_kernel(Checks& checks);
void check_memory(Checks& checks);
void check_limits(Checks& checks);
void check_devices(Checks& checks);
void check_runtime_directory(Checks& checks, const std::string& directory);

// ---- reading what the kernel says --------------------------------------------------------------------------

/// The first line of a file; "" where it cannot be read.
std::string first_line(const std::filesystem::path& path);
/// The word in brackets of a file like "always [madvise] never".
std::string chosen(const std::filesystem::path& path);
/// A number in a file; `otherwise` where there is none.
std::int64_t number_in(const std::filesystem::path& path, std::int64_t otherwise = -1);
/// Whether this process has that capability now (CAP_SYS_ADMIN, ...).
bool has_capability(unsigned capability);
/// "sudo " unless this is root.
std::string as_root();

}  // namespace extmem::cli::doctor
