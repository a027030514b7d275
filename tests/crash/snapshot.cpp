#include "crash/snapshot.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace extmem::crash {

namespace {

/// Copies `length` bytes, and tells whether they differ from what was there.
bool renew(char* copy, const void* from, std::size_t length) {
  if (std::memcmp(copy, from, length) == 0) return false;
  std::memcpy(copy, from, length);
  return true;
}

}  // namespace

Snapshot::Snapshot(const std::string& path) : fd_(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
  struct stat status {};
  if (fd_ < 0 || ::fstat(fd_, &status) != 0) return;
  void* const p = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_SHARED, fd_, 0);
  if (p == MAP_FAILED) return;
  mapped_ = static_cast<const char*>(p);
  size_ = static_cast<std::size_t>(status.st_size);
}

Snapshot::~Snapshot() {
  if (mapped_ != nullptr) ::munmap(const_cast<char*>(mapped_), size_);
  if (fd_ >= 0) ::close(fd_);
}

bool Snapshot::find_extents() {
  std::vector<Extent> now;
  now.reserve(extents_.size());
  std::size_t total = 0;
  for (off_t at = 0; (at = ::lseek(fd_, at, SEEK_DATA)) >= 0;) {
    const off_t end = ::lseek(fd_, at, SEEK_HOLE);
    if (end < at) return false;
    now.push_back({static_cast<std::size_t>(at), static_cast<std::size_t>(end - at)});
    total += now.back().length;
    at = end;
  }
  if (now == extents_) return true;
  extents_ = std::move(now);
  bytes_.assign(total, '\0');  // other extents: every byte is taken anew
  log_.clear();                // and counts as a change
  return true;
}

bool Snapshot::take(const Log& log) {
  if (mapped_ == nullptr || !find_extents()) return true;
  bool changed = false;
  std::size_t taken = 0;
  for (const Extent& extent : extents_) {
    changed |= renew(bytes_.data() + taken, mapped_ + extent.at, extent.length);
    taken += extent.length;
  }
  const std::size_t entries = std::min<std::size_t>(log.entries, kEntries) * sizeof(Entry);
  if (log_.size() != entries + sizeof log.zone) {
    log_.assign(entries + sizeof log.zone, '\0');
    changed = true;
  }
  changed |= renew(log_.data(), log.entry, entries);
  changed |= renew(log_.data() + entries, log.zone, sizeof log.zone);
  return changed;
}

bool Snapshot::write_to(int fd) const {
  if (mapped_ == nullptr || ::ftruncate(fd, 0) != 0 || ::ftruncate(fd, static_cast<off_t>(size_)) != 0)
    return false;
  const char* from = bytes_.data();
  for (const Extent& extent : extents_) {
    if (::pwrite(fd, from, extent.length, static_cast<off_t>(extent.at)) !=
        static_cast<ssize_t>(extent.length))
      return false;
    from += extent.length;
  }
  return !extents_.empty();
}

}  // namespace extmem::crash
