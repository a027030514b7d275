// What the tests of backings share: requests of each kind, and a count of what a process holds.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>

#include "os/backing.hpp"
#include "os/kernel_text.hpp"
#include "unit/os/child.hpp"

namespace extmem::os::test {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

/// A request without a path.
inline BackingRequest ask(BackingKind kind, std::size_t length) {
  BackingRequest request;
  request.kind = kind;
  request.length = length;
  return request;
}

/// A request for a file at `path`, which must outlive it.
inline BackingRequest ask_for_file(const std::string& path, std::size_t length) {
  BackingRequest request = ask(BackingKind::file, length);
  request.path_or_name = path.c_str();
  return request;
}

/// A shm name that no other test has.
inline std::string shm_name(const char* test) {
  return "/extmem-os-test-" + std::to_string(::getpid()) + "-" + test;
}

/// The number of open descriptors and of mappings: what a failure must leave as it was.
struct Holdings {
  std::size_t descriptors = 0;
  std::size_t mapped_pages = 0;

  static Holdings now() {
    Holdings holdings;
    FolderReader reader("/proc/self/fd");
    while (reader.next()) ++holdings.descriptors;
    holdings.mapped_pages = read_number("/proc/self/statm").value_or(0);
    return holdings;
  }
  friend bool operator==(const Holdings&, const Holdings&) = default;
};

/// The memory holds zeroes, can be written, and holds then what was written.
inline bool works(const Mapping& mapping) {
  auto* const first = mapping.addr;
  auto* const end = first + mapping.length;
  if (std::any_of(first, end, [](std::byte b) { return b != std::byte{0}; })) return false;
  std::fill(first, end, std::byte{0x5a});
  return std::all_of(first, end, [](std::byte b) { return b == std::byte{0x5a}; });
}

}  // namespace extmem::os::test
