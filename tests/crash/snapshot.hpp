// Snapshot: whether the control segment, and what the log says is held, are as they were at the last look.
//
// What it is: a copy of both. A recovery reads nothing else, so a state that equals one which was recovered and found right needs
// no recovery of its own: that is what lets a sweep stop after every instruction, of which few store into the segment.
// Cost: a comparison of the pages that are there. Thread-safety: one thread.
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "crash/log.hpp"

namespace extmem::crash {

class Snapshot {
 public:
  /// `path`: of the control segment. Its length does not change while a Snapshot of it lives.
  explicit Snapshot(const std::string& path);
  Snapshot(const Snapshot&) = delete;
  Snapshot& operator=(const Snapshot&) = delete;
  ~Snapshot();

  /// Takes what is there now. Returns: whether it differs from what was taken before; true the first time, and where the segment cannot
  /// be read.
  bool take(const Log& log);

  /// Writes the segment as it was taken to an empty file, with the same holes. False: it cannot be written, or nothing was taken.
  [[nodiscard]] bool write_to(int fd) const;

 private:
  struct Extent {
    std::size_t at, length;
    bool operator==(const Extent&) const = default;
  };
  bool find_extents();

  int fd_ = -1;
  const char* mapped_ = nullptr;
  std::size_t size_ = 0;
  // Where the file has pages: nothing else may be read, which would fill the holes. Asked for each time, since holes are made, too.
  std::vector<Extent> extents_;
  std::vector<char> bytes_;  // the extents' content, one after the other
  std::vector<char> log_;
};

}  // namespace extmem::crash
