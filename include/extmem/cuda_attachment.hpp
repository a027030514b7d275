// Attachment: a domain's host memory, pinned for a GPU while it is there. Part of extmem/cuda.hpp.
//
// What it is: a listener of the domain's regions (RegionListener). Memory that the CPU reaches is registered with CUDA
// (cuMemHostRegister) before its region serves the first allocation, and unregistered before it goes: copies then run at the
// bus' full speed and beside the CPU, and kernels may use the heap's pointers. Regions that growth adds are no exception.
// And it answers RegionEventKind::reclaiming: what a killed process held is not given out again while its GPU work may go on.
// Thread-safety: one thread attaches and ends it; the domain calls it under its lock of regions.
// Invariants:
//  1. pinned_ has exactly the regions that this object has registered. Only the lock of regions' holder touches it.
//  2. It stays where it is, its Gpu outlives it, and the Domain object does too and stays where it is.
#pragma once

#include <dirent.h>
#include <poll.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <bitset>
#include <cerrno>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <utility>

#include "extmem/cuda_memory.hpp"
#include "extmem/domain.hpp"
#include "extmem/types.hpp"

namespace extmem::cuda {

namespace detail {

inline constexpr ErrorInfo kAttached{EEXIST, "this Attachment belongs to a domain already: make another one"};

/// Whether a process may still have work on a GPU: it has a file of the driver's open, or is ending and may have one. A
/// process' locks go before its devices are closed, and only what is seen here says that they are.
inline bool may_use_gpu(::pid_t pid, const char* files) noexcept {
  const int fd = static_cast<int>(::syscall(SYS_pidfd_open, pid, 0));
  if (fd < 0) {
    if (errno == ENOSYS) return ::kill(pid, 0) == 0 || errno != ESRCH;  // before Linux 5.3: until it is gone
    return errno == EMFILE || errno == ENFILE || errno == ENOMEM;       // else there is no such process
  }
  ::pollfd ended{fd, POLLIN, 0};
  const bool over = ::poll(&ended, 1, 0) == 1;  // every thread of it, and with the last one its files
  (void)::close(fd);
  if (over) return false;
  char path[64];
  (void)std::snprintf(path, sizeof path, "/proc/%d/fd", static_cast<int>(pid));
  ::DIR* const folder = ::opendir(path);
  if (folder == nullptr) return errno != ENOENT;
  bool found = false;
  while (const ::dirent* const entry = ::readdir(folder)) {
    char target[256] = {};
    found = found || (::readlinkat(::dirfd(folder), entry->d_name, target, sizeof target - 1) > 0 &&
                      std::strncmp(target, files, std::strlen(files)) == 0);
  }
  (void)::closedir(folder);
  if (found) return true;
  // After that: a process that ends has this flag before its files leave /proc, which is before they are closed.
  (void)std::snprintf(path, sizeof path, "/proc/%d/stat", static_cast<int>(pid));
  char text[512] = {};
  if (std::FILE* const stat = std::fopen(path, "re"); stat != nullptr) {
    (void)std::fread(text, 1, sizeof text - 1, stat);
    (void)std::fclose(stat);
  }
  const char* const name_end = std::strrchr(text, ')');
  unsigned flags = 0;
  constexpr unsigned kExiting = 4;  // PF_EXITING
  return name_end != nullptr && std::sscanf(name_end, ") %*c %*d %*d %*d %*d %*d %u", &flags) == 1 &&
         (flags & kExiting) != 0;
}

}  // namespace detail

class Attachment {
 public:
  /// `device_files`: how the names of the GPUs' files begin.
  explicit Attachment(const char* device_files = "/dev/nvidia") noexcept : device_files_(device_files) {}
  Attachment(const Attachment&) = delete;
  Attachment& operator=(const Attachment&) = delete;
  ~Attachment() { detach(); }

  /// Pins the regions of `heap`, or of every heap for an empty handle: those that there are now, and from now on each one
  /// before it is used. A region that CUDA does not pin is refused (RegionEvent); so then is the allocation that wanted it.
  /// Errors: EEXIST it is attached; EINVAL the Gpu is not open; those of Domain::add_listener; what CUDA answers to the
  /// regions that there are, and then nothing is pinned.
  Result<void> attach(Domain& domain, const Gpu& gpu, Heap heap = {}) noexcept {
    if (domain_ != nullptr) return Error(&detail::kAttached);
    if (!gpu) return Error(&detail::kNotOpen);
    gpu_ = &gpu;
    ended_.store(false, std::memory_order_relaxed);
    all_heaps_ = !heap;
    heap_id_ = heap.id();
    if (auto listening = domain.add_listener(&Attachment::hear, this); !listening) return listening;
    domain_ = &domain;
    pid_ = ::getpid();
    int refused = 0;
    auto pin_first = [&](const RegionInfo& info) { return (refused = pin(info)) == 0; };
    auto walked = domain.walk_regions(pin_first);
    if (walked && refused != 0) walked = check(last_status());
    if (!walked) detach();
    return walked;
  }
  /// Unpins what it has pinned and listens no more. Requires: no copy to or from the regions is under way.
  void detach() noexcept {
    if (domain_ == nullptr) return;
    Domain* const domain = std::exchange(domain_, nullptr);
    if (::getpid() != pid_) return;  // a child of fork: its parent's
    // Relaxed: a region that is being added now is either seen by the walk, or its pin() sees this: the lock orders them.
    ended_.store(true, std::memory_order_relaxed);
    auto unpin_all = [this](const RegionInfo& info) {
      (void)unpin(info);
      return true;
    };
    (void)domain->walk_regions(unpin_all);
    (void)domain->remove_listener(&Attachment::hear, this);
  }
  /// What is pinned now.
  [[nodiscard]] std::uint64_t pinned_bytes() const noexcept { return bytes_.load(std::memory_order_relaxed); }
  [[nodiscard]] std::uint64_t pinned_regions() const noexcept {
    return regions_.load(std::memory_order_relaxed);
  }

 private:
  static constexpr std::size_t kMaxRegions = std::size_t{1}
                                             << 16;  // RegionPtr has 16 bits for a region's slot
  static constexpr std::size_t kMaxDead = 256;       // participants of a domain

  static int hear(const RegionEvent& event, void* arg) noexcept {
    auto& self = *static_cast<Attachment*>(arg);
    if (event.kind == RegionEventKind::added) return self.pin(event.info);
    if (event.kind == RegionEventKind::removing) return self.unpin(event.info);
    return self.still_used(static_cast<::pid_t>(event.pid)) ? EBUSY : 0;
  }
  [[nodiscard]] bool ours(const RegionInfo& info) const noexcept {
    return info.cpu_accessible && info.base != nullptr && (all_heaps_ || info.heap_id == heap_id_);
  }
  int pin(const RegionInfo& info) noexcept {
    if (ended_.load(std::memory_order_relaxed) || !ours(info) || pinned_[info.id.slot % kMaxRegions])
      return 0;
    bool others = false;  // have pinned it: memory that CUDA allocated, say
    const auto pinned = gpu_->run([&](const Driver& d) -> Status {
      const DevicePtr first = device_ptr(info.base), last = first + info.length - 1;
      int type = 0;
      others = d.pointer_attribute(&type, kPointerMemoryType, first) == 0 && type == 1 &&
               d.pointer_attribute(&type, kPointerMemoryType, last) == 0 && type == 1;
      return others ? 0 : d.host_register(info.base, info.length, kHostPortable | kHostMapped);
    });
    if (!pinned) return pinned.error().code();
    if (others) return 0;
    pinned_[info.id.slot % kMaxRegions] = true;
    count(info, 1);
    return 0;
  }
  int unpin(const RegionInfo& info) noexcept {
    if (info.base == nullptr || !pinned_[info.id.slot % kMaxRegions]) return 0;
    const auto gone = gpu_->run([&](const Driver& d) { return d.host_unregister(info.base); });
    // Without its context nothing is pinned any more.
    if (!gone && last_status() != kNotRegistered && last_status() != kDeinitialized &&
        last_status() != kContextDestroyed)
      return gone.error().code();
    pinned_[info.id.slot % kMaxRegions] = false;
    count(info, -1);
    return 0;
  }
  void count(const RegionInfo& info, int sign) noexcept {
    // Relaxed: figures; who changes them holds the lock of regions.
    const auto length = static_cast<std::uint64_t>(info.length);
    bytes_.store(bytes_.load(std::memory_order_relaxed) + (sign > 0 ? length : ~length + 1),
                 std::memory_order_relaxed);
    regions_.store(regions_.load(std::memory_order_relaxed) + static_cast<std::uint64_t>(sign),
                   std::memory_order_relaxed);
  }
  /// pid 0: several dead processes at once, which were asked about one by one before (of those that another cleaner was asked
  /// about, and that then died too, nobody knows the pids: they are long dead).
  bool still_used(::pid_t pid) noexcept {
    if (pid != 0) {
      const bool used = detail::may_use_gpu(pid, device_files_);
      const auto end = dead_ + dead_count_;
      if (used && std::find(dead_, end, pid) == end && dead_count_ < kMaxDead) dead_[dead_count_++] = pid;
      return used;
    }
    std::size_t left = 0;
    for (std::size_t i = 0; i < dead_count_; ++i)
      if (detail::may_use_gpu(dead_[i], device_files_)) dead_[left++] = dead_[i];
    dead_count_ = left;
    return left != 0;
  }

  const char* device_files_;
  const Gpu* gpu_ = nullptr;
  Domain* domain_ = nullptr;
  ::pid_t pid_ = 0;
  bool all_heaps_ = true;
  std::uint32_t heap_id_ = 0;
  std::atomic<bool> ended_{false};
  std::atomic<std::uint64_t> bytes_{0}, regions_{0};
  std::bitset<kMaxRegions> pinned_{};
  ::pid_t dead_[kMaxDead] = {};
  std::size_t dead_count_ = 0;
};

}  // namespace extmem::cuda
