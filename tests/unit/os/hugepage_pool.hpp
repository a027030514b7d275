// Hugepages for the length of a test.
//
// Reserving them needs root and memory that is not fragmented; a test that gets none says so and is skipped.
// What was added is taken away again afterwards. Tests that run at the same time take turns.
#pragma once

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <string>

#include "os/hugepages.hpp"
#include "os/kernel_text.hpp"
#include "unit/os/child.hpp"

namespace extmem::os::test {

class HugepagesForATest {
 public:
  /// Sees to it that `count` pages of `page_size` bytes are free, if that can be done.
  HugepagesForATest(std::size_t page_size, std::uint64_t count)
      : page_size_(page_size),
        folder_("/sys/kernel/mm/hugepages/hugepages-" + std::to_string(page_size / 1024) + "kB") {
    turn_ = ::open("/sys/kernel/mm/hugepages", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (turn_ >= 0) ::flock(turn_, LOCK_EX);
    if (available() >= count) {
      ready_ = true;
      return;
    }
    const std::uint64_t before = number("nr_hugepages");
    if (!set(before + count)) return;
    added_ = number("nr_hugepages") - before;  // as many as the kernel found
    ready_ = available() >= count;
  }
  ~HugepagesForATest() {
    // Relative: someone else may have changed the pool meanwhile.
    const std::uint64_t now = number("nr_hugepages");
    if (added_ > 0 && !set(now > added_ ? now - added_ : 0)) std::abort();
    if (turn_ >= 0) ::close(turn_);
  }
  HugepagesForATest(const HugepagesForATest&) = delete;
  HugepagesForATest& operator=(const HugepagesForATest&) = delete;

  [[nodiscard]] bool ready() const { return ready_; }
  [[nodiscard]] std::string why_not() const {
    return "no hugepages of " + std::to_string(page_size_) + " bytes: none are free, and " + folder_ +
           "/nr_hugepages could not be raised (needs root and memory in one piece)";
  }
  [[nodiscard]] std::uint64_t available() const {
    const Result<HugepagePools> pools = hugepage_pools();
    const HugepagePool* const pool = pools ? pools->find(page_size_) : nullptr;
    return pool != nullptr ? pool->available() : 0;
  }

 private:
  [[nodiscard]] std::uint64_t number(const char* name) const {
    return read_number((folder_ + "/" + name).c_str()).value_or(0);
  }
  [[nodiscard]] bool set(std::uint64_t pages) const {
    const int fd = ::open((folder_ + "/nr_hugepages").c_str(), O_WRONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const std::string text = std::to_string(pages);
    const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size());
    ::close(fd);
    return written;
  }

  std::size_t page_size_;
  std::string folder_;
  int turn_ = -1;
  bool ready_ = false;
  std::uint64_t added_ = 0;
};

}  // namespace extmem::os::test
