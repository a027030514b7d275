// Files of regions that are to go when nobody else removes them: made by somebody who died before a region had them, or
// left with a domain that nobody uses any more.
#include <cstring>

#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/making_note.hpp"
#include "os/descriptor.hpp"
#include "os/file.hpp"

namespace extmem::heap {

namespace {
/// What a note holds.
struct Noted {
  std::uint64_t device;
  std::uint64_t inode;
  char path[4096];  // absolute, ends in a zero
  char aside[64];   // the name in the same folder that it has before; "": none
};

/// Whether it is such a name, and nothing else.
bool is_aside(const char* name, std::size_t size) noexcept {
  const std::size_t prefix = std::strlen(os::kAsidePrefix);
  if (std::memchr(name, '\0', size) == nullptr || std::strncmp(name, os::kAsidePrefix, prefix) != 0)
    return false;
  return std::strspn(name + prefix, "0123456789-") == std::strlen(name + prefix);
}

/// Removes what has the name that the file has first. False: somebody else must try.
bool remove_aside(const Noted& noted, const os::SharedFile& file) noexcept {
  if (!is_aside(noted.aside, sizeof noted.aside)) return true;
  char path[sizeof noted.path + sizeof noted.aside];
  const std::size_t folder = static_cast<std::size_t>(std::strrchr(noted.path, '/') - noted.path) + 1;
  std::memcpy(path, noted.path, folder);
  std::memcpy(path + folder, noted.aside, std::strlen(noted.aside) + 1);
  return os::unlink_aside(path, file).ok();
}
}  // namespace

Result<void> MakingNote::write(std::uint32_t participant, std::uint64_t number,
                               const os::NewFile& file) noexcept {
  Noted noted{};
  if (file.fd >= 0) {
    EXTMEM_TRY(identity, os::identify(file.fd));
    noted.device = identity.device;
    noted.inode = identity.inode;
  }
  std::strncpy(noted.aside, file.aside, sizeof noted.aside - 1);
  const std::size_t length = std::strlen(file.name);
  EXTMEM_TRY_VOID(os::path_of(file.folder, noted.path, sizeof noted.path - length - 1));
  const std::size_t folder = std::strlen(noted.path);
  noted.path[folder] = '/';
  std::memcpy(noted.path + folder + 1, file.name, length + 1);
  if (!written_) name_ = os::Path(kMakingNote).add(std::uint64_t{participant}).add("-").add(number);
  // Over what it says of the same file: the numbers, which are new, lie on one page, and are changed whole.
  EXTMEM_TRY(note, folder_.open_file(name_.c_str(), true));
  const os::Descriptor fd(note);
  written_ = true;
  if (auto put = os::write_at(note, &noted, sizeof noted, 0); !put) {
    return put.error().code() != ENOSPC ? put
                                        : EXTMEM_ERROR(ENOSPC,
                                                       "the tmpfs of the runtime directory is full: remove "
                                                       "files, or mount it larger");
  }
  return {};
}

void MakingNote::remove() noexcept {
  if (written_) folder_.remove_file(name_.c_str());
  written_ = false;
}

void remove_unfinished(os::DomainFolder& folder, const char* prefix, bool of_group,
                       FunctionRef<bool(const os::SharedFile&)> claimed) noexcept {
  folder.remove_files(prefix, [&](const char* name) {
    auto note = folder.open_file(name, false);
    if (!note) return false;
    const os::Descriptor fd(*note);
    Noted noted;
    const auto got = os::read_at(*note, &noted, sizeof noted, 0);
    // Not whole: its writer died before the file had its name. And whatever else it says is believed no further than an
    // absolute path that names this very file.
    if (!got || *got != sizeof noted || noted.path[0] != '/' ||
        std::memchr(noted.path, '\0', sizeof noted.path) == nullptr)
      return false;
    const os::SharedFile file{noted.device, noted.inode, 0};
    if (!remove_aside(noted, file)) return true;
    if (noted.inode == 0 || claimed(file)) return false;  // it had no other name yet, or it is a region's
    return !os::unlink_shared_path(noted.path, file, of_group).ok();  // then somebody else tries again
  });
}

/// Whether a region is backed by the file.
bool DomainState::names_file(const os::SharedFile& file) const noexcept {
  for (std::uint32_t region = 1; region <= regions_high(); ++region) {
    if ((core_.region(region).flags & alloc::kRegionUsed) != 0 && shares_[region].inode == file.inode &&
        shares_[region].device == file.device)
      return true;
  }
  return false;
}

/// Removes what a dead participant had made and not added yet. Its number is in the names, and is nobody else's until
/// it is buried.
Result<void> DomainState::remove_leftovers(std::uint32_t dead, std::uint32_t slot) noexcept {
  const OrderedGuard guard(core_, slot, directory_->region_lock, Rank::regions);
  if (!guard.held())
    return guard.refused(EXTMEM_ERROR(EDEADLK, "recovery cannot run inside a walk over regions"));
  os::Path prefix("region-");
  prefix.add(std::uint64_t{dead}).add("-");
  folder_.remove_files(prefix.c_str(), [&](const char* name) {
    for (std::uint32_t region = 1; region <= regions_high(); ++region) {
      if ((core_.region(region).flags & alloc::kRegionUsed) == 0 || shares_[region].unlink == 0) continue;
      if (const char* path = std::strrchr(shares_[region].path, '/');
          path != nullptr && std::strcmp(path + 1, name) == 0)
        return true;
    }
    return false;
  });
  const os::Path notes = os::Path(kMakingNote).add(std::uint64_t{dead}).add("-");
  remove_unfinished(folder_, notes.c_str(), !folder_.private_to_user(),
                    [this](const os::SharedFile& file) { return names_file(file); });
  return {};
}

/// Removes the file outside the domain's folder that is to go with a region, if there is one. `of_group`: only a file that
/// the group may write to.
Result<void> DomainState::remove_path(const RegionShare& share, bool of_group) noexcept {
  if (share.unlink != 2 || std::memchr(share.path, '\0', sizeof share.path) == nullptr) return {};
  auto removed = os::unlink_shared_path(share.path, os::SharedFile{share.device, share.inode, 0}, of_group);
  if (removed) return {};
  struct Stays {
    ErrorInfo info;
    os::Path text;
  };
  // It names the file: one per thread, which lives until this thread's next such error.
  static thread_local constinit Stays stays{{EIO, nullptr}, os::Path()};
  stays.text = os::Path("the domain stays: cannot remove a region's file: ").add(share.path);
  stays.info = ErrorInfo{removed.error().code(), stays.text.c_str()};
  return Error(&stays.info);
}

/// The same for all regions of a domain that nobody uses, and for what was being made for one.
Result<void> DomainState::remove_paths(os::DomainFolder& folder, int control) noexcept {
  const bool of_group = !folder.private_to_user();
  const auto header = shared::ControlSegment::read_header(control);
  if (!header) return {};  // damaged or another version's: nothing that it says is to be believed
  const Tables tables = place_tables(header->geometry);
  if (header->layout_hash != tables.layout.hash()) return {};
  alignas(RegionShare) std::byte bytes[sizeof(RegionShare)] = {};
  const RegionShare& share = *reinterpret_cast<const RegionShare*>(bytes);
  const auto read = [&](std::uint64_t region) {
    const auto got = os::read_at(control, bytes, sizeof bytes, tables.shares + region * sizeof(RegionShare));
    return region <= header->geometry.max_regions && got && *got == sizeof bytes;
  };
  remove_unfinished(folder, kMakingNote, of_group, [&](const os::SharedFile& file) {
    for (std::uint64_t region = 1; read(region); ++region) {
      if (share.inode == file.inode && share.device == file.device) return true;
    }
    return false;
  });
  for (std::uint64_t region = 1; read(region); ++region) EXTMEM_TRY_VOID(remove_path(share, of_group));
  return {};
}

}  // namespace extmem::heap
