#include "os/backing.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <limits>
#include <optional>
#include <utility>

#include "base/error.hpp"
#include "os/backing_store.hpp"
#include "os/errno_keeper.hpp"
#include "os/hugepage_shortage.hpp"
#include "os/hugepages.hpp"
#include "os/lock.hpp"
#include "os/mapping.hpp"
#include "os/memory_left.hpp"
#include "os/numa.hpp"
#include "os/prefault.hpp"
#include "os/shared_mapping.hpp"

#ifndef MAP_SHARED_VALIDATE
#define MAP_SHARED_VALIDATE 0x03  // Linux 4.15
#endif

namespace extmem::os {
namespace {

constexpr std::size_t kChunk = std::size_t{64} << 20;  // between two calls of the progress callback
constexpr int kPlaces =
    184;  // addresses that are tried from lowest_address upwards, over 2^45 bytes: past a sanitizer's shadow
constexpr int kIgnored = 16;  // addresses for which others were given before nobody is asked any more
constexpr int kHints = 4;     // addresses that are asked for before one is taken

bool is_hugetlb_kind(BackingKind kind) noexcept {
  return kind == BackingKind::hugetlb || kind == BackingKind::memfd_hugetlb;
}

bool has_path(BackingKind kind) noexcept {
  return kind == BackingKind::shm || kind == BackingKind::file || kind == BackingKind::dax;
}

}  // namespace

Result<void> check_backing(const BackingRequest& request) noexcept {
  if (request.kind == BackingKind::external || request.kind > BackingKind::dax) {
    return EXTMEM_ERROR(EINVAL, "a backing must be of a kind that extmem can make: any but external");
  }
  if (request.length == 0) return EXTMEM_ERROR(EINVAL, "a backing must be at least one byte long");
  if (request.length > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max())) {
    return EXTMEM_ERROR(EINVAL, "the length of the backing exceeds the address space: did a size overflow?");
  }
  if (request.os_page_size != 0 && !std::has_single_bit(request.os_page_size)) {
    return EXTMEM_ERROR(EINVAL,
                        "the OS page size of a backing must be a power of two (or 0: the kind's own)");
  }
  if (request.align != 0 && !std::has_single_bit(request.align)) {
    return EXTMEM_ERROR(EINVAL, "the alignment of a backing must be a power of two (or 0: the OS page size)");
  }
  if (request.numa_node < kAnyNode) {
    return EXTMEM_ERROR(EINVAL, "the NUMA node of a backing must be a node's number, or -1 for any");
  }
  if (has_path(request.kind) && (request.path_or_name == nullptr || request.path_or_name[0] == '\0')) {
    return EXTMEM_ERROR(EINVAL, "a backing of kind shm, file or dax needs a path (shm: \"/name\")");
  }
  if (request.thp && (is_hugetlb_kind(request.kind) || request.kind == BackingKind::dax)) {
    return EXTMEM_ERROR(EINVAL,
                        "hugetlb and DAX memory cannot be advised for transparent hugepages: drop thp");
  }
  return {};
}

namespace {

// The hugepage size that a request of a hugetlb kind means.
Result<std::size_t> choose_hugepage_size(const BackingRequest& request) noexcept {
  const std::size_t size = request.os_page_size != 0 ? request.os_page_size : default_hugepage_size();
  EXTMEM_TRY(pools, hugepage_pools());
  if (size == 0 || (pools.count == 0 && request.os_page_size == 0)) {
    return EXTMEM_ERROR(EOPNOTSUPP, "the kernel has no hugepages (or neither /sys nor /proc is mounted)");
  }
  if (size <= page_size() || (pools.count > 0 && pools.find(size) == nullptr)) {
    return EXTMEM_ERROR(
        EOPNOTSUPP, "this machine has no hugepages of that size: /sys/kernel/mm/hugepages lists its sizes");
  }
  return size;
}

// Addresses that were mapped and must be given back unless all goes well.
class Addresses {
 public:
  Addresses() noexcept = default;
  Addresses(std::byte* p, std::size_t bytes) noexcept : p_(p), bytes_(bytes) {}
  Addresses(Addresses&& other) noexcept : p_(std::exchange(other.p_, nullptr)), bytes_(other.bytes_) {}
  Addresses& operator=(Addresses&&) = delete;
  ~Addresses() { unmap(p_, bytes_); }
  [[nodiscard]] std::byte* get() const noexcept { return p_; }
  std::byte* release() noexcept { return std::exchange(p_, nullptr); }

 private:
  std::byte* p_ = nullptr;
  std::size_t bytes_ = 0;
};

// Everything that is known about a mapping in the making.
struct Plan {
  const BackingRequest& request;
  std::optional<Store> store{};
  std::size_t page = 0;
  std::size_t length = 0;
  bool in_hugepages = false;  // hugetlb, by kind or by the file system
  bool bound = false;         // a node is asked for, and there is more than one
  bool populate = false;
};

Result<void> plan_pages(Plan& plan) noexcept {
  const BackingRequest& request = plan.request;
  if (is_hugetlb_kind(request.kind)) {
    EXTMEM_TRY(size, choose_hugepage_size(request));
    plan.page = size;
    plan.in_hugepages = true;
  }
  if (request.kind != BackingKind::anonymous && request.kind != BackingKind::hugetlb) {
    EXTMEM_TRY(store, Store::open(request, plan.page));
    plan.store.emplace(std::move(store));
    plan.page = plan.store->page_size();
    plan.in_hugepages = plan.store->medium() == Medium::hugetlb;
  }
  if (plan.page == 0) plan.page = page_size();
  if (request.os_page_size != 0 && request.os_page_size != plan.page) {
    return EXTMEM_ERROR(
        EINVAL,
        "this backing does not have OS pages of the size asked for: only hugetlb kinds come in "
        "several sizes; files have that of their file system, all else the base page; ask for 0");
  }
  if (request.length > static_cast<std::size_t>(std::numeric_limits<std::ptrdiff_t>::max()) - plan.page) {
    return EXTMEM_ERROR(EINVAL, "the length of the backing exceeds the address space: did a size overflow?");
  }
  plan.length = (request.length + plan.page - 1) & ~(plan.page - 1);
  return {};
}

Result<void> plan_node(Plan& plan) noexcept {
  const int node = plan.request.numa_node;
  if (node != kAnyNode) {
    if (plan.store && (plan.store->medium() == Medium::disk || plan.store->medium() == Medium::device)) {
      return EXTMEM_ERROR(
          EINVAL,
          "a file on disk or DAX cannot be bound to a NUMA node: its bytes lie where its device is; "
          "ask for node -1");
    }
    const NodeSet nodes = numa_memory_nodes();
    if (!nodes.contains(node)) {
      return EXTMEM_ERROR(
          EINVAL,
          "no such NUMA node with memory on this machine: /sys/devices/system/node/has_memory lists "
          "them; or ask for node -1");
    }
    plan.bound = nodes.count() > 1;
  }
  const bool may_have_pages = plan.store && !plan.store->is_new();
  plan.populate =
      plan.request.prefault || plan.request.lock || (plan.bound && (plan.in_hugepages || may_have_pages));
  return {};
}

Result<void> check_thp(const Plan& plan) noexcept {
  if (!plan.request.thp) return {};
  if (plan.store && plan.store->medium() != Medium::tmpfs) {
    return EXTMEM_ERROR(EINVAL, "only anonymous memory and tmpfs can have transparent hugepages: drop thp");
  }
  const ThpPolicy policy = thp_policy();
  if (!plan.store && !policy.anonymous) {
    return EXTMEM_ERROR(
        EOPNOTSUPP,
        "transparent hugepages are switched off: echo madvise > "
        "/sys/kernel/mm/transparent_hugepage/enabled (or PR_SET_THP_DISABLE is set, or the kernel has none)");
  }
  if (plan.store && !policy.shmem) {
    return EXTMEM_ERROR(EOPNOTSUPP,
                        "transparent hugepages are switched off for memfd, shm and tmpfs: echo advise > "
                        "/sys/kernel/mm/transparent_hugepage/shmem_enabled (or PR_SET_THP_DISABLE is set)");
  }
  return {};
}

Error map_error(int failed, const Plan& plan) noexcept {
  if (plan.in_hugepages && (failed == ENOMEM || failed == ENOSPC)) {
    return hugepage_shortage(plan.page, plan.length, plan.request.shortage);
  }
  switch (failed) {
    case ENOMEM:
      return EXTMEM_ERROR(
          ENOMEM,
          "cannot map the backing: the address space (RLIMIT_AS, ulimit -v), RLIMIT_DATA (ulimit -d), "
          "vm.max_map_count or the commit limit (vm.overcommit_memory) does not allow that much");
    case EAGAIN:
      return EXTMEM_ERROR(
          EAGAIN,
          "cannot map the backing: the process locks all its memory (mlockall) and RLIMIT_MEMLOCK is "
          "reached; raise it (ulimit -l)");
    case EOPNOTSUPP:
      if (plan.request.kind == BackingKind::dax) {
        return EXTMEM_ERROR(
            EOPNOTSUPP,
            "the path is not on a DAX file system: mount a pmem or CXL device with -o dax, or ask "
            "for kind file");
      }
      break;
    case ENODEV:
      return EXTMEM_ERROR(ENODEV, "the file system of the backing cannot map files: choose another");
    case EINVAL:
      if (plan.in_hugepages) {
        return EXTMEM_ERROR(
            EOPNOTSUPP, "the kernel has no hugepages of that size: /sys/kernel/mm/hugepages lists its sizes");
      }
      break;
    case EACCES:
    case EPERM:
      return EXTMEM_SYS_ERROR(
          failed, "cannot map the backing: the file is sealed against writing, or a policy forbids it");
    default:
      break;
  }
  return EXTMEM_SYS_ERROR(failed, "cannot map the backing: mmap failed");
}

Error no_room() noexcept {
  return EXTMEM_ERROR(
      ENOMEM,
      "cannot map the backing: no addresses of that length and alignment are left (RLIMIT_AS, "
      "ulimit -v); ask for less, or for a smaller alignment");
}

Result<Addresses> map(const Plan& plan) noexcept {
  int flags = MAP_SHARED;
  if (!plan.store) flags = MAP_PRIVATE | MAP_ANONYMOUS;
  if (plan.request.kind == BackingKind::dax) flags = MAP_SHARED_VALIDATE | MAP_SYNC;
  if (plan.request.kind == BackingKind::hugetlb) {
    flags |=
        MAP_HUGETLB | static_cast<int>(static_cast<unsigned>(std::countr_zero(plan.page)) << MAP_HUGE_SHIFT);
  }
  const int fd = plan.store ? plan.store->fd() : -1;
  std::size_t align = std::max(plan.request.align, plan.page);
  if (plan.request.thp) align = std::max(align, thp_policy().page_size);

  if (plan.request.lowest_address != 0) {
    // DAX takes no MAP_FIXED_NOREPLACE (MAP_SHARED_VALIDATE): a hint, which the kernel takes where it is free.
    const int exactly = plan.request.kind == BackingKind::dax ? 0 : MAP_FIXED_NOREPLACE;
    std::uint64_t at = (plan.request.lowest_address + align - 1) & ~(align - 1);
    for (int tried = 0, elsewhere = 0; tried < kPlaces && elsewhere < kIgnored; ++tried) {
      void* const p =
          ::mmap(reinterpret_cast<void*>(at), plan.length, PROT_READ | PROT_WRITE, flags | exactly, fd, 0);
      if (p != MAP_FAILED && reinterpret_cast<std::uint64_t>(p) == at)
        return Addresses(static_cast<std::byte*>(p), plan.length);
      if (p !=
          MAP_FAILED) {  // a hint only: for DAX, for kernels before 4.17, and for ThreadSanitizer, which ignores it
        unmap(p, plan.length);
        ++elsewhere;
      }
      if (p == MAP_FAILED && errno != EEXIST && errno != ENOMEM && errno != EPERM)
        return map_error(errno, plan);
      if (p == MAP_FAILED && errno == ENOMEM && plan.in_hugepages) return map_error(errno, plan);
      // Something is there: look further, in steps that double after a while, for it may be long.
      const std::uint64_t step = std::uint64_t{1} << std::min(21 + tried / 8, 40);
      at += (step + align - 1) & ~(align - 1);
    }
  }

  // An aligned address is found by reserving with room to move, and asked for as a hint: MAP_FIXED could hit
  // what another thread maps there meanwhile, and DAX takes no MAP_FIXED_NOREPLACE. The kernel takes a free
  // hint as it is.
  for (int race = 0; race < kHints; ++race) {
    void* hint = nullptr;
    if (align > plan.page) {
      const Result<std::byte*> room = reserve_aligned(plan.length, align);
      if (!room) return no_room();
      unmap(*room, plan.length);
      hint = *room;
    }
    void* const p = ::mmap(hint, plan.length, PROT_READ | PROT_WRITE, flags, fd, 0);
    if (p == MAP_FAILED) return map_error(errno, plan);
    if ((reinterpret_cast<std::uintptr_t>(p) & (align - 1)) == 0) {
      return Addresses(static_cast<std::byte*>(p), plan.length);
    }
    unmap(p, plan.length);
  }
  // Other threads keep taking what is hinted at: so map anywhere, and move that onto a reservation, which nobody can take.
  // Not done at first, because for a moment both take up address space.
  void* const p = ::mmap(nullptr, plan.length, PROT_READ | PROT_WRITE, flags, fd, 0);
  if (p == MAP_FAILED) return map_error(errno, plan);
  Addresses anywhere(static_cast<std::byte*>(p), plan.length);
  const Result<std::byte*> room = reserve_aligned(plan.length, align);
  if (!room) return no_room();
  void* const moved = ::mremap(p, plan.length, plan.length, MREMAP_MAYMOVE | MREMAP_FIXED, *room);
  // Where this fails nobody knows whether the reservation is still ours: so it stays.
  if (moved == MAP_FAILED)
    return EXTMEM_SYS_ERROR(errno, "cannot move the backing to an aligned address: mremap failed");
  anywhere.release();
  return Addresses(static_cast<std::byte*>(moved), plan.length);
}

Result<void> advise_and_lock(const Plan& plan, std::byte* p) noexcept {
  if (plan.request.thp && ::madvise(p, plan.length, MADV_HUGEPAGE) != 0) {
    return EXTMEM_SYS_ERROR(errno, "the kernel has no transparent hugepages for this memory: drop thp");
  }
  if (plan.request.numa_node != kAnyNode) {
    EXTMEM_TRY_VOID(numa_bind(p, plan.length, plan.request.numa_node, PresentPages::leave));
  }
  // Hugetlb pages are never swapped. Other pages: the limit is checked now, before the long work, and each
  // page is locked as it comes.
  if (plan.request.lock && !plan.in_hugepages) {
    const Result<void> locked = lock_memory(p, plan.length, LockMode::on_touch);
    if (!locked && plan.request.shortage != nullptr && memlock_limit() != kNoMemlockLimit) {
      *plan.request.shortage = Shortage{1, plan.length, memlock_limit()};
    }
    return locked;
  }
  return {};
}

Result<void> report(const Plan& plan, std::size_t done) noexcept {
  if (plan.request.progress && plan.request.progress(done, plan.length)) {
    return EXTMEM_ERROR(ECANCELED, "mapping the backing was cancelled by the progress callback");
  }
  return {};
}

// Takes the space and makes the pages present, piece by piece.
Result<void> bring_in(Plan& plan, std::byte* p) noexcept {
  const bool holds_space = plan.store && !plan.in_hugepages && plan.store->medium() != Medium::device;
  if (!plan.populate && !holds_space) return {};
  // Touching is safe where fallocate or the hugepage reservation has promised every page.
  const bool promised = !plan.store || plan.store->medium() == Medium::tmpfs || plan.in_hugepages;
  const bool touchable = promised && !(plan.in_hugepages && plan.bound);
  const WithoutPopulate otherwise = touchable ? WithoutPopulate::touch : WithoutPopulate::refuse;
  const std::size_t chunk = std::max(kChunk, plan.page);

  const bool takes_memory = !plan.in_hugepages && (!plan.store || plan.store->medium() == Medium::tmpfs);
  const std::uint64_t there = takes_memory && plan.store ? plan.store->held() : 0;
  if (takes_memory && plan.length > there) EXTMEM_TRY_VOID(check_memory_left(plan.length - there));
  EXTMEM_TRY_VOID(report(plan, 0));
  for (std::size_t done = 0; done < plan.length;) {
    const std::size_t bytes = std::min(chunk, plan.length - done);
    // Others take memory too while this goes on. What the file had before may lie anywhere in it: then only the first look counts.
    if (takes_memory && there == 0 && done != 0) EXTMEM_TRY_VOID(check_memory_left(plan.length - done));
    if (plan.request.thp && plan.store) {
      // fallocate knows nothing of the advice, a fault does. Where this fails, hold() finds out why.
      EXTMEM_TRY_VOID(plan.store->lengthen(done + bytes));
      [[maybe_unused]] const Result<void> tried =
          prefault(p + done, bytes, plan.page, WithoutPopulate::refuse);
    }
    if (holds_space) EXTMEM_TRY_VOID(plan.store->hold(done, bytes));
    if (plan.populate) EXTMEM_TRY_VOID(prefault(p + done, bytes, plan.page, otherwise));
    done += bytes;
    EXTMEM_TRY_VOID(report(plan, done));
  }
  return {};
}

}  // namespace

Result<Mapping> create_backing(const BackingRequest& request) noexcept {
  if (request.shortage != nullptr) *request.shortage = Shortage{};
  EXTMEM_TRY_VOID(check_backing(request));
  Plan plan{request};
  EXTMEM_TRY_VOID(plan_pages(plan));
  EXTMEM_TRY_VOID(plan_node(plan));
  EXTMEM_TRY_VOID(check_thp(plan));
  if (plan.store) EXTMEM_TRY_VOID(plan.store->prepare(plan.length, request.create || plan.store->is_new()));

  EXTMEM_TRY(addresses, map(plan));
  EXTMEM_TRY_VOID(advise_and_lock(plan, addresses.get()));
  EXTMEM_TRY_VOID(bring_in(plan, addresses.get()));
  if (plan.bound && plan.populate) {
    // Pages that were there before may lie elsewhere.
    EXTMEM_TRY_VOID(numa_bind(addresses.get(), plan.length, request.numa_node, PresentPages::move));
  }
  if (plan.store) EXTMEM_TRY_VOID(plan.store->seal());

  Mapping mapping;
  const NodeSet nodes = numa_memory_nodes();
  mapping.length = plan.length;
  mapping.os_page_size = plan.page;
  mapping.kind = request.kind;
  mapping.node = request.numa_node;
  if (mapping.node == kAnyNode && nodes.count() == 1) mapping.node = nodes.id_at(0);
  if (plan.store) {
    plan.store->release(mapping, request.unlink_on_close);
    if (const Result<SharedFile> file = identify(mapping.fd)) {
      mapping.device = file->device;
      mapping.inode = file->inode;
    }
  }
  mapping.addr = addresses.release();
  return mapping;
}

/// Whether the descriptor is still that of a folder of ours: a program may have closed it, and opened another.
static bool is_folder(int fd) noexcept {
  const int flags = fd >= 0 ? ::fcntl(fd, F_GETFL) : -1;
  return flags >= 0 && (flags & O_PATH) != 0;
}

void keep_name(Mapping& mapping) noexcept {
  const ErrnoKeeper keeper;
  if (is_folder(mapping.folder)) ::close(mapping.folder);
  mapping.folder = -1;
}

Result<void> discard_backing(Mapping& mapping) noexcept {
  if (!mapping.created) keep_name(mapping);  // the file was there before
  if (mapping.lengthened && mapping.fd >= 0) {
    const ErrnoKeeper keeper;
    // Nothing can be done about a failing undo, and the caller's error says what went wrong first.
    [[maybe_unused]] const int undone = ::ftruncate(mapping.fd, static_cast<off_t>(mapping.old_length));
  }
  return close_backing(mapping);
}

Result<void> close_backing(Mapping& mapping) noexcept {
  const Mapping closing = std::exchange(mapping, Mapping{});
  Result<void> result;
  if (closing.addr != nullptr && ::munmap(closing.addr, closing.length) != 0) {
    result = EXTMEM_SYS_ERROR(errno, "cannot unmap the backing: its addresses are not what was mapped");
  }
  if (is_folder(closing.folder)) {
    const Result<void> unlinked = unlink_if_same(closing.folder, closing.name.data(), closing.fd);
    if (result && !unlinked) result = unlinked;
    ::close(closing.folder);
  }
  // A program may have closed it, and opened another that has its number now.
  const Result<SharedFile> file = closing.fd >= 0 ? identify(closing.fd) : Result<SharedFile>(SharedFile{});
  const bool ours = closing.fd >= 0 && file && file->device == closing.device && file->inode == closing.inode;
  if (ours && ::close(closing.fd) != 0 && result) {
    result =
        EXTMEM_SYS_ERROR(errno, "closing the backing's file reported an error: what was written may be lost");
  }
  return result;
}

}  // namespace extmem::os
