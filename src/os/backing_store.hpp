// The file behind a shared mapping: opening it, making it long enough, undoing that.
//
// What it is: the half of backing.cpp that deals with descriptors and names.
// Thread-safety: one owner. No allocation.
//
// Invariants:
//  1. Until released, a Store's destruction puts things back: the descriptor is closed, a name that it made
//     is removed, a file that it lengthened gets its old length back.
//  2. A file grows only as fast as its space is held, so that another process that opens it too early sees a
//     short file and not one that faults. (Hugetlb files get their length at once: the kernel reserves at
//     mmap.)
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "extmem/result.hpp"
#include "extmem/types.hpp"
#include "os/backing.hpp"

namespace extmem::os {

/// What a file's bytes are made of.
enum class Medium : std::uint8_t {
  tmpfs,    ///< memory: memfd, shm, files on a tmpfs
  hugetlb,  ///< memory in hugepages: memfd_hugetlb, files on a hugetlbfs
  disk,     ///< anything that has a page cache, and DAX files
  device,   ///< a device-DAX character device
};

class Store {
 public:
  Store() noexcept = default;
  Store(Store&& other) noexcept;
  Store& operator=(Store&&) = delete;
  ~Store();

  /// Opens or creates what a request of kind memfd, memfd_hugetlb, shm, file or dax names.
  /// Requires: the request was checked; `page_size` is the hugepage size for memfd_hugetlb, else not looked
  /// at.
  static Result<Store> open(const BackingRequest& request, std::size_t page_size) noexcept;

  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] Medium medium() const noexcept { return medium_; }
  [[nodiscard]] std::size_t page_size() const noexcept { return page_size_; }
  /// True where this Store made the file, so that none of its pages existed before.
  [[nodiscard]] bool is_new() const noexcept { return is_new_; }

  /// Checks that the file is, or may become, `length` bytes long; a hugetlb file becomes it.
  Result<void> prepare(std::uint64_t length, bool may_grow) noexcept;
  /// Makes the file at least `length` bytes long without holding space.
  Result<void> lengthen(std::uint64_t length) noexcept;
  /// How many bytes of space the file has by now.
  [[nodiscard]] std::uint64_t held() const noexcept;
  /// Makes sure that [offset, offset + bytes) of the file has its space, lengthening the file as needed.
  Result<void> hold(std::uint64_t offset, std::uint64_t bytes) noexcept;
  /// Forbids that anyone ever changes the length: memfds only, nothing happens for others.
  Result<void> seal() noexcept;
  /// Hands descriptor and name over to `mapping`: nothing is undone any more.
  void release(Mapping& mapping, bool unlink_on_close) noexcept;

 private:
  Result<void> open_memfd(const BackingRequest& request, std::size_t page_size) noexcept;
  Result<void> open_shm(const BackingRequest& request) noexcept;
  Result<void> open_path(const BackingRequest& request) noexcept;
  Result<void> open_name(const BackingRequest& request, const char* folder, std::string_view name,
                         int flags) noexcept;
  Result<void> create_known(const BackingRequest& request, int flags) noexcept;
  Result<bool> create_aside(const BackingRequest& request, int flags) noexcept;
  void take_name(int made_fd, int flags) noexcept;
  Result<void> recognise(BackingKind kind) noexcept;
  Result<void> recognise_device(std::uint64_t device) noexcept;

  int fd_ = -1;
  int folder_ = -1;
  Medium medium_ = Medium::tmpfs;
  bool is_memfd_ = false;
  bool is_new_ = false;
  bool may_have_grown_ = false;
  std::size_t page_size_ = 0;
  std::uint64_t old_length_ = 0;
  std::uint64_t length_ = 0;
  std::array<char, 256> name_{};
};

/// Removes `name` from `folder` where it still names the file that `fd` has open.
/// Errors: EACCES, EPERM, EROFS, EBUSY. A name that is gone, or names another file now, is no error.
Result<void> unlink_if_same(int folder, const char* name, int fd) noexcept;

}  // namespace extmem::os
