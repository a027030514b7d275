// A private copy in the place of a shared mapping: what a fork's child needs to have memory of its own.
//
// Thread-safety: nobody else may use the range meanwhile. No allocation.
#pragma once

#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::os {

struct CopyRequest {
  std::byte* addr = nullptr;  ///< page-aligned; a shared mapping of the first `length` bytes of a file
  std::size_t length = 0;     ///< whole pages
  int fd = -1;                ///< that file: what was never written is then not copied. -1: all of it is
  int node = -1;              ///< NUMA node to bind the copy to; -1: any
};

/// Puts private anonymous memory with the same content in the place of a shared mapping. Others who map the file notice
/// nothing; what they write meanwhile is in the copy, or is not. Errors: ENOMEM, EIO..., and then all is as it was.
Result<void> copy_in_place(const CopyRequest& request) noexcept;

/// How many bytes a copy of the first `length` bytes of a file takes; `length` where that cannot be found out.
[[nodiscard]] std::uint64_t bytes_to_copy(int fd, std::uint64_t length) noexcept;

}  // namespace extmem::os
