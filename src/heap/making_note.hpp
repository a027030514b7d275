// MakingNote: says in the domain's folder which file this process is making for a region, until the region is there or the
// file is gone again.
//
// What it is: a file "making-PARTICIPANT-n", written before the file that it tells of has its name, and where a file cannot be without
// one before the file is there: with the name that it has first, which has so much chance in it that nobody else has it. Who recovers a dead
// participant reads its notes: a file that no region names is removed (leftovers.cpp). Only of files that go with their region
// (BackingSpec::unlink_on_remove): removing one of these is never too much.
// Thread-safety: one owner.
#pragma once

#include <cstdint>

#include "extmem/function_ref.hpp"
#include "os/backing.hpp"
#include "os/domain_folder.hpp"
#include "os/kernel_text.hpp"
#include "os/shared_mapping.hpp"

namespace extmem::heap {

inline constexpr const char* kMakingNote = "making-";

class MakingNote {
 public:
  explicit MakingNote(os::DomainFolder& folder) noexcept : folder_(folder) {}
  MakingNote(const MakingNote&) = delete;
  ~MakingNote() { remove(); }
  /// Again for the same file: says what is known by now. Errors: those of the domain's folder; ENOSPC its tmpfs is full.
  Result<void> write(std::uint32_t participant, std::uint64_t number, const os::NewFile& file) noexcept;

 private:
  void remove() noexcept;

  os::DomainFolder& folder_;
  bool written_ = false;
  os::Path name_;
};

/// Removes the files that notes tell of whose names begin with `prefix`, and the notes, but what `claimed` says to be some
/// region's. `of_group`: only files that the group may write to.
void remove_unfinished(os::DomainFolder& folder, const char* prefix, bool of_group,
                       FunctionRef<bool(const os::SharedFile&)> claimed) noexcept;

}  // namespace extmem::heap
