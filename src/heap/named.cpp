// Named domains: creating, opening, listing and removing the control segment that processes share.
//
// The folder's lock (os/domain_folder.hpp) is held while a domain is created or joined, and while it is removed: so of
// two creators exactly one creates, and nobody joins what is being removed. The control file appears by a rename, whole.
#include <cstring>
#include <utility>

#include "base/error.hpp"
#include "heap/domain_state.hpp"
#include "heap/live_domains.hpp"
#include "heap/making_note.hpp"
#include "os/descriptor.hpp"
#include "os/file.hpp"
#include "os/kernel_text.hpp"
#include "os/process.hpp"
#include "os/record_lock.hpp"
#include "os/shared_mapping.hpp"

namespace extmem::heap {

namespace {

os::FolderRequest folder_request(std::string_view name, const char* directory, bool create,
                                 bool group) noexcept {
  os::FolderRequest request;
  request.directory = directory;
  request.name = name;
  request.create = create;
  request.group = group;
  return request;
}

Error in_use() noexcept {
  return EXTMEM_ERROR(EBUSY, "living processes use the domain (`extmem ls` names them): end them first");
}

/// Counts the participants of a segment that this process has not open, in a copy of their records. `token` -1: without looking
/// at their tokens.
Result<void> look_at(int control, int token, std::uint64_t participants_at, DomainInfo& info) noexcept {
  alignas(shared::Participant)
      std::byte bytes[(shared::kMaxParticipants + 1) * sizeof(shared::Participant)] = {};
  const auto got = os::read_at(control, bytes, sizeof bytes, participants_at);
  if (!got || *got != sizeof bytes) {
    return EXTMEM_ERROR(EUCLEAN, "the control segment of the domain is cut short: remove the domain");
  }
  shared::Participants all;
  all.bind(nullptr, 0, reinterpret_cast<shared::Participant*>(bytes), nullptr, 0, token, control);
  for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
    if (shared::Participant::life_of(all.record(i).state.load(std::memory_order_relaxed)) ==
        shared::Life::free)
      continue;
    ++(all.dead(i) ? info.dead : info.participants);
  }
  return {};
}

}  // namespace

DomainOptions DomainState::options_of(const shared::Geometry& g) noexcept {
  DomainOptions o;
  o.max_regions = g.max_regions;
  o.max_heaps = g.max_heaps;
  o.max_memzones = g.max_memzones;
  o.max_tags = g.max_tags;
  o.max_threads = g.max_threads;
  o.small_metadata = g.small_bytes;
  o.large_metadata = g.large_bytes;
  return o;
}

Result<void> DomainState::check_options(const DomainOptions& o) noexcept {
  if (o.max_regions == 0 || o.max_regions > shared::kMostRegions)
    return EXTMEM_ERROR(EINVAL, "max_regions must be 1 to 65535");
  if (o.max_heaps == 0 || o.max_heaps > shared::kMostHeaps)
    return EXTMEM_ERROR(EINVAL, "max_heaps must be 1 to 65536");
  if (o.max_memzones > shared::kMostMemzones)
    return EXTMEM_ERROR(EINVAL, "max_memzones must be at most 2^24");
  if (o.max_tags > shared::kMostTags) {
    return EXTMEM_ERROR(EINVAL, "max_tags must be at most 48,000: a tag is part of an object's 16-bit state");
  }
  if (o.max_threads == 0 || o.max_threads > shared::kMaxThreadSlots) {
    return EXTMEM_ERROR(EINVAL,
                        "max_threads must be 1 to 16383: a thread is part of an object's 16-bit state");
  }
  if (o.small_metadata < shared::kLeastSmallBytes || o.small_metadata > shared::kMostSmallBytes) {
    return EXTMEM_ERROR(EINVAL, "small_metadata must be 64 KiB to 8 GiB");
  }
  if (o.large_metadata < shared::kLeastLargeBytes || o.large_metadata > shared::kMostLargeBytes) {
    return EXTMEM_ERROR(EINVAL, "large_metadata must be 1 MiB to 32 TiB");
  }
  return {};
}

Result<void> DomainState::open_control(const OpenOptions& o) noexcept {
  auto existing = folder_.open_file(os::kControlFile, false);
  if (!existing && existing.error().code() != ENOENT) return existing.error();
  if (existing) {
    os::Descriptor fd(*existing);
    if (o.mode == OpenMode::create_only)
      return EXTMEM_ERROR(EEXIST, "a domain of this name exists: open it, or remove it first");
    EXTMEM_TRY(header, shared::ControlSegment::read_header(fd.get()));
    const Tables tables = place_tables(header.geometry);
    EXTMEM_TRY_VOID(segment_.open_shared(fd.get(), header, tables.layout));
    (void)fd.release();
    bind_tables(tables, header.geometry);
    return {};
  }
  if (o.mode == OpenMode::open_only) return existing.error();
  EXTMEM_TRY(made, folder_.open_new_control());
  os::Descriptor fd(made);
  const shared::Geometry g = geometry_of(o.sizes);
  const Tables tables = place_tables(g);
  EXTMEM_TRY_VOID(segment_.create_shared(fd.get(), tables.layout, g, tables.always));
  (void)fd.release();
  bind_tables(tables, g);
  if (!core_.ensure_format(shared::Ground(segment_))) {
    return EXTMEM_ERROR(ENOSPC,
                        "the tmpfs of the runtime directory is full: remove files, or mount it larger");
  }
  format_tables(tables, g);
  directory_->next_place = os::random_number();
  if (o.permanent) segment_.at<shared::SegmentHeader>(0)->flags |= shared::kSegmentPermanent;
  return folder_.publish_control();
}

Result<DomainState*> DomainState::open_named(std::string_view name, const OpenOptions& o) noexcept {
  EXTMEM_TRY_VOID(os::DomainFolder::check_name(name));
  EXTMEM_TRY_VOID(check_options(o.sizes));  // before anything is made
  if (o.mode > OpenMode::create_only)
    return EXTMEM_ERROR(EINVAL, "unknown mode: use create_or_open, open_only or create_only");
  EXTMEM_TRY(folder, os::DomainFolder::open_locked(
                         folder_request(name, o.directory, o.mode != OpenMode::open_only, o.group)));
  // One view per process: a second one would open the token file a second time, and closing that drops the token.
  if (DomainState* open = find_live(folder.fd()); open != nullptr) {
    folder.unlock();
    if (o.same_address && !open->same_address_) {
      drop_user(open);
      return EXTMEM_ERROR(EBUSY,
                          "this process has the domain open without same_address, so regions may be mapped "
                          "elsewhere: close it first, or ask for same_address from the start");
    }
    if (open->forked_.load(
            std::memory_order_acquire)) {  // a fork's child joins now, or hears here why it cannot
      if (auto joined = open->after_fork(); !joined) {
        drop_user(open);
        return joined.error();
      }
    }
    if (o.mode == OpenMode::create_only) {
      drop_user(open);
      return EXTMEM_ERROR(EEXIST, "a domain of this name exists: open it, or remove it first");
    }
    return open;
  }
  // The sizes of a domain that exists are in its header: they size this process' side.
  DomainOptions sizes = o.sizes;
  if (auto existing = folder.open_file(os::kControlFile, false); existing) {
    const os::Descriptor fd(*existing);
    EXTMEM_TRY(header, shared::ControlSegment::read_header(fd.get()));
    sizes = options_of(header.geometry);
  }
  EXTMEM_TRY(state, make(sizes));
  const auto fail = [&](Error why) {
    // Under the folder's lock: what has no control segment is nobody's, so a failed creation leaves nothing behind.
    if (!state->folder_.has(os::kControlFile)) (void)state->folder_.remove_all();
    os::close_file(state->token_.get());
    state->segment_.close();
    state->unmake();
    return why;
  };
  state->shared_ = true;
  state->remove_when_last_ = o.remove_when_last;
  state->same_address_ = o.same_address;
  state->folder_ = std::move(folder);
  std::memcpy(state->name_, name.data(), name.size());
  auto token = state->folder_.open_file(os::kTokenFile, true);
  if (!token) return fail(token.error());
  state->token_ = os::WatchedDescriptor(*token);
  if (auto opened = state->open_control(o); !opened) return fail(opened.error());
  if (auto joined = state->join(); !joined) return fail(joined.error());
  enlist(state);
  // From here on this process is one of the domain's: whatever fails now, it leaves in good order.
  Result<void> ready;
  // Still under the folder's lock: of two processes that find none, one would be refused.
  if (state->directory_->node_heaps == 0) ready = state->make_node_heaps();
  state->folder_.unlock();
  if (ready) {
    auto recovered = state->recover();
    if (!recovered) {
      ready = recovered.error();
    } else {
      state->opening_ = *recovered;
      state->opening_untold_.store(1, std::memory_order_relaxed);
    }
  }
  if (!ready) {
    state->close();
    return ready.error();
  }
  state->synced_.store(~std::uint64_t{0}, std::memory_order_relaxed);
  state->tend();
  return state;
}

Result<void> DomainState::join() noexcept {
  ground_ = shared::Ground(segment_);
  const Tables tables = place_tables(core_.geometry());
  participants_.bind(segment_.base(), segment_.bytes(), segment_.at<shared::Participant>(tables.participants),
                     &core_.slot(0), core_.geometry().max_threads, token_.get(), segment_.fd());
  EXTMEM_TRY(self, participants_.join());
  if (!ground_.ensure(&mapped(self, 0),
                      sizeof(std::uint32_t) * (std::uint64_t{core_.geometry().max_regions} + 1))) {
    participants_.bury(self);
    participants_.release_token(self);
    return EXTMEM_ERROR(ENOSPC,
                        "the tmpfs of the runtime directory is full: remove files, or mount it larger");
  }
  for (std::uint32_t region = 0; region <= core_.geometry().max_regions; ++region) mapped(self, region) = 0;
  core_.share(ground_, self);
  index_.rebind(participants_.record(self).sequence);
  return {};
}

void DomainState::finish_leaving() noexcept {
  const std::uint32_t self = participants_.self();
  if (self == 0) {  // a fork's child that never used the domain
    os::close_file(token_.get());
    return;
  }
  for (std::uint32_t region = 0; region <= core_.geometry().max_regions; ++region) mapped(self, region) = 0;
  const bool locked = folder_.lock().ok();
  participants_.bury(self);
  participants_.release_token(self);
  if (locked && remove_when_last_ && (segment_.header().flags & shared::kSegmentPermanent) == 0) {
    bool last = true;
    for (std::uint32_t i = 1; i <= shared::kMaxParticipants && last; ++i) {
      last = i == self ||
             shared::Participant::life_of(participants_.record(i).state.load(std::memory_order_acquire)) ==
                 shared::Life::free ||
             participants_.dead(i);
    }
    // With a file that cannot be removed the domain stays, which alone knows of it: remove_named() tries again.
    for (std::uint32_t region = 1; region <= directory_->regions.high && last; ++region)
      last = remove_path(shares_[region], false).ok();
    if (last) {
      remove_unfinished(folder_, kMakingNote, !folder_.private_to_user(),
                        [this](const os::SharedFile& file) { return names_file(file); });
      (void)folder_.remove_all();
    }
  }
  os::close_file(token_.get());
  if (locked) folder_.unlock();
}

Result<void> DomainState::remove_named(std::string_view name, const char* directory) noexcept {
  // A group's domains, too: what members of the group may have written is believed no further than they could go themselves.
  EXTMEM_TRY(folder, os::DomainFolder::open_locked(folder_request(name, directory, false, true)));
  if (DomainState* open = find_live(folder.fd()); open != nullptr) {
    folder.unlock();
    drop_user(open);
    return EXTMEM_ERROR(EBUSY, "this process has the domain open: close it first");
  }
  auto control = folder.open_file(os::kControlFile, false);
  auto token = folder.open_file(os::kTokenFile, false);
  const os::Descriptor control_fd(control ? *control : -1);
  const os::Descriptor token_fd(token ? *token : -1);
  if (token) {
    for (std::uint32_t i = 1; i <= shared::kMaxParticipants; ++i) {
      if (os::byte_is_locked(token_fd.get(), i)) return in_use();
    }
  }
  // Not all who live have their token: see process_lives().
  if (auto header = shared::ControlSegment::read_header(control_fd.get()); control && header) {
    const Tables tables = place_tables(header->geometry);
    DomainInfo info;  // of another version: then it says nothing
    if (header->layout_hash == tables.layout.hash())
      (void)look_at(control_fd.get(), token_fd.get(), tables.participants, info);
    if (info.participants != 0) return in_use();
  }
  if (control) EXTMEM_TRY_VOID(remove_paths(folder, control_fd.get()));
  return folder.remove_all();
}

Result<void> DomainState::list_named(const char* directory,
                                     FunctionRef<bool(const DomainInfo&)> visit) noexcept {
  if (!visit) return EXTMEM_ERROR(EINVAL, "a walk needs a visitor");
  return os::DomainFolder::list(directory, [&](std::string_view name) {
    auto folder = os::DomainFolder::open_locked(folder_request(name, directory, false, true));
    DomainInfo info;
    std::memcpy(info.name, name.data(), name.size());
    if (!folder && folder.error().code() != ETIMEDOUT) return true;  // not ours, or going just now
    if (!folder) {
      // A stopped process keeps the lock. Without it the token file is not opened: another thread may be joining, and closing
      // it would give its token up.
      auto seen = os::DomainFolder::open_to_look(folder_request(name, directory, false, true));
      if (!seen) return true;
      const os::Descriptor fd(*seen);
      info.bytes = os::occupied_bytes(fd.get());
      if (auto header = shared::ControlSegment::read_header(fd.get()); header)
        (void)look_at(fd.get(), -1, place_tables(header->geometry).participants, info);
      return visit(info);
    }
    auto control = folder->open_file(os::kControlFile, false);
    if (!control) return true;
    const os::Descriptor control_fd(*control);
    info.bytes = os::occupied_bytes(control_fd.get());
    if (DomainState* open = find_live(folder->fd()); open != nullptr) {
      (void)open->walk_participants([&](const ParticipantInfo& one) {
        ++(one.dead ? info.dead : info.participants);
        return true;
      });
      folder->unlock();
      drop_user(open);
      return visit(info);
    }
    auto token = folder->open_file(os::kTokenFile, false);
    const os::Descriptor token_fd(token ? *token : -1);
    auto header = shared::ControlSegment::read_header(control_fd.get());
    if (token && header)
      (void)look_at(control_fd.get(), token_fd.get(), place_tables(header->geometry).participants, info);
    return visit(info);
  });
}

}  // namespace extmem::heap
