// What the preload library tells: which memory was taken, and at exit what became of it.
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "faces/preload/backing_word.hpp"
#include "faces/preload/exported.hpp"
#include "faces/preload/large.hpp"
#include "faces/preload/process_heap.hpp"
#include "os/errno_keeper.hpp"
#include "os/thread.hpp"
#include "os/writer.hpp"

namespace extmem::preload {

namespace {

const char* kind_name(const RegionInfo& info) noexcept {
  switch (info.kind) {
    case BackingKind::anonymous:
      return process.settings.backing.thp || (process.settings.backing.kind == BackingKind::hugetlb &&
                                              process.settings.backing.fallback == Fallback::thp)
                 ? "anonymous memory, transparent hugepages advised"
                 : "anonymous memory";
    case BackingKind::hugetlb:
      return "hugepages";
    case BackingKind::memfd:
      return "a memfd";
    case BackingKind::memfd_hugetlb:
      return "a memfd of hugepages";
    case BackingKind::shm:
      return "POSIX shared memory";
    case BackingKind::file:
      return "a file";
    case BackingKind::dax:
      return "a DAX file";
    case BackingKind::external:
      return "memory of the caller";
  }
  return "memory";
}

/// Bytes that the C library's own malloc has taken from the system: 0 unless somebody went past us.
std::uint64_t bytes_of_libc() noexcept {
  void* next = ::dlsym(RTLD_NEXT, "mallinfo2");
  if (next == nullptr) return 0;
  const struct mallinfo2 info = reinterpret_cast<struct mallinfo2 (*)()>(next)();
  return info.arena + info.hblkhd;
}

void write_json(os::Writer& out, const HeapStats& s) noexcept {
  out.text("{").member("command", "run").member("schema", 1);
  out.member("heap", process.settings.heap).member("domain", process.settings.domain);
  out.member("kind", backing_word(process.first.kind)).member("backing", kind_name(process.first));
  out.member("os_page_size", process.first.os_page_size).member("total_bytes", s.total_bytes);
  out.member("used_bytes", s.used_bytes)
      .member("used_count", s.used_count)
      .member("peak_bytes", s.peak_bytes);
  out.member("peak_error", s.peak_error)
      .member("free_bytes", s.free_bytes)
      .member("cached_bytes", s.cached_bytes);
  out.member("slab_free_bytes", s.slab_free_bytes)
      .member("largest_free", s.largest_free)
      .member("regions", s.regions);
  out.member("metadata_bytes", s.metadata_bytes);
  out.member("metadata_resident_bytes", process.domain().metadata_resident_bytes());
  out.member("bootstrap_bytes", process.bootstrap.used()).member("libc_bytes", bytes_of_libc());
  out.member("other_malloc", process.other_malloc);
  out.member("refused", process.mishaps.refused.load(std::memory_order_relaxed));
  out.member("bad_frees", process.mishaps.bad_frees.load(std::memory_order_relaxed));
  out.member("nanoseconds", os::monotonic_ns() - process.begun_ns);
  if (process.settings.tags) {
    static TagStats tags[1024];
    const auto count = process.heap.tag_stats(tags);
    out.text(",\"tags\":[");
    for (std::size_t i = 0; count && i < *count && i < std::size(tags); ++i) {
      out.text(i == 0 ? "{" : ",{").member("tag", tags[i].name);
      out.member("bytes", tags[i].live_bytes).member("count", tags[i].live_count);
      out.member("peak_bytes", tags[i].peak_bytes).member("peak_error", tags[i].peak_error).text("}");
    }
    out.text("]");
  }
  out.text("}\n");
}

void write_text(os::Writer& out, const HeapStats& s) noexcept {
  out.text("extmem: heap ").text(process.settings.heap).text(" at exit\n");
  out.text("  memory      ").bytes(s.total_bytes).text(" in ").number(s.regions).text(" regions; first: ");
  out.text(kind_name(process.first)).text(", pages of ").bytes(process.first.os_page_size).text("\n");
  out.text("  in use      ").bytes(s.used_bytes).text(" in ").number(s.used_count).text(" objects; at most ");
  out.bytes(s.peak_bytes).text(" (too high by at most ").bytes(s.peak_error).text(")\n");
  out.text("  free        ")
      .bytes(s.free_bytes)
      .text(", in slabs ")
      .bytes(s.slab_free_bytes)
      .text(", cached ");
  out.bytes(s.cached_bytes).text("\n");
  out.text("  metadata    ").bytes(process.domain().metadata_resident_bytes()).text(" resident\n");
  if (process.other_malloc[0] != '\0')
    out.text("  elsewhere   what the program asks the malloc in ").text(process.other_malloc).text(" for\n");
  out.text("  elsewhere   ").number(bytes_of_libc()).text(" bytes by the C library's malloc, ");
  out.number(process.bootstrap.used()).text(" before the heap was there\n");
  out.text("  refused     ").number(process.mishaps.refused.load(std::memory_order_relaxed));
  out.text(" allocations, ")
      .number(process.mishaps.bad_frees.load(std::memory_order_relaxed))
      .text(" frees\n");
  if (!process.settings.tags) return;
  static TagStats tags[1024];
  const auto count = process.heap.tag_stats(tags);
  for (std::size_t i = 0; count && i < *count && i < std::size(tags); ++i) {
    out.text("  tag         ").text(tags[i].name[0] != '\0' ? tags[i].name : "(none)").text(": ");
    out.bytes(tags[i].live_bytes).text(" in ").number(tags[i].live_count).text(" objects, at most ");
    out.bytes(tags[i].peak_bytes).text("\n");
  }
}

}  // namespace

void write_error(os::Writer& out, const char* message) noexcept {
  out.text("{").member("command", "run").member("schema", 1).text(",\"error\":{");
  out.member("message", message).member("errno", "").member("exit_code", 3).text("}}\n");
}

void report_start() noexcept {
  const os::ErrnoKeeper keep;
  os::Writer out(STDERR_FILENO);
  out.text("extmem: heap ").text(process.settings.heap).text(": ").bytes(process.first.length).text(" of ");
  out.text(kind_name(process.first)).text(", pages of ").bytes(process.first.os_page_size);
  if (process.first.numa_node != kAnyNode)
    out.text(", node ").number(static_cast<std::uint64_t>(process.first.numa_node));
  if (process.settings.backing.path != nullptr) out.text(", ").text(process.settings.backing.path);
  if (process.settings.domain[0] != '\0') {
    out.text(", in the domain ")
        .text(process.settings.domain);  // whose memory is in files, whatever is asked for
  } else if (process.first.kind != process.settings.backing.kind) {
    out.text(" (what was asked for cannot be had here)");
  }
  if (process.furnished) {
    out.text("; it was there already, --size adds to it");
  } else if (process.settings.backing.path != nullptr || process.settings.limit <= process.first.length) {
    out.text("; does not grow");
  } else {
    out.text("; grows by ").bytes(process.settings.step);
    if (process.settings.limit < (std::uint64_t{1} << 46)) out.text(" up to ").bytes(process.settings.limit);
  }
  out.text("\n");
}

void report_other_malloc() noexcept {
  if (process.other_malloc[0] == '\0') return;
  os::Writer(STDERR_FILENO)
      .text("extmem: the program calls the malloc in ")
      .text(process.other_malloc)
      .text(", before this one: what that gives is not on the heap\n");
}

void report_exit() noexcept {
  const os::ErrnoKeeper keep;
  // Not by os::process_id(), which the child of a vfork has from its parent.
  if (process.phase != Phase::ready || process.settings.stats == StatsFormat::none ||
      process.settings.report_pid != static_cast<std::uint32_t>(::getpid()))
    return;
  static std::atomic_flag told = ATOMIC_FLAG_INIT;  // relaxed: nothing goes with it
  if (told.test_and_set(std::memory_order_relaxed)) return;
  // Who closed what is kept of it, with all other descriptors, may have left the first one open.
  int fd = process.standard_error.get();
  if (fd < 0 && process.standard_error.is_file_of(STDERR_FILENO)) fd = STDERR_FILENO;
  const char* file = process.settings.stats_file;
  int failed = 0;
  if (*file != '\0') {
    fd = ::open(file, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (fd < 0) failed = errno;
  }
  if (failed == 0) {
    const auto stats = process.heap.stats();
    os::Writer out(fd);
    if (!stats) {
      if (process.settings.stats == StatsFormat::json) {
        write_error(out, stats.error().message());
      } else {
        out.text("extmem: no statistics: ").text(stats.error().message()).text("\n");
      }
    } else if (process.settings.stats == StatsFormat::json) {
      write_json(out, *stats);
    } else {
      write_text(out, *stats);
    }
    out.flush();
    failed = out.failed();
  }
  if (*file == '\0') return;
  if (fd >= 0) ::close(fd);
  if (failed != 0) {
    os::Writer(STDERR_FILENO)
        .text("extmem: cannot write the statistics to ")
        .text(file)
        .text(": ")
        .text(::strerrordesc_np(failed))
        .text("\n");
  }
}

}  // namespace extmem::preload

// ---- what the C library offers for looking ---------------------------------------------------------------------

EXTMEM_EXPORTED_C struct mallinfo2 mallinfo2() {
  struct mallinfo2 info {};
  const auto stats = extmem::preload::process.heap.stats();
  if (!stats) return info;
  info.arena = stats->total_bytes;
  info.ordblks = stats->free_runs;
  info.fsmblks = stats->cached_bytes;
  info.uordblks = stats->used_bytes;
  info.fordblks = stats->total_bytes - stats->used_bytes;
  info.keepcost = stats->largest_free;
  info.usmblks = stats->peak_bytes;
  return info;
}
EXTMEM_EXPORTED_C struct mallinfo mallinfo() {
  const struct mallinfo2 wide = mallinfo2();
  const auto narrow = [](std::size_t n) { return n > 0x7fffffff ? 0x7fffffff : static_cast<int>(n); };
  struct mallinfo info {};
  info.arena = narrow(wide.arena);
  info.ordblks = narrow(wide.ordblks);
  info.fsmblks = narrow(wide.fsmblks);
  info.uordblks = narrow(wide.uordblks);
  info.fordblks = narrow(wide.fordblks);
  info.keepcost = narrow(wide.keepcost);
  info.usmblks = narrow(wide.usmblks);
  return info;
}
/// As the C library tells it of a single arena.
EXTMEM_EXPORTED_C int malloc_info(int options, FILE* stream) {
  if (options != 0) return EINVAL;
  const auto stats = extmem::preload::process.heap.stats();
  if (!stats) return stats.error().code();
  const auto totals = [&] {
    std::fprintf(stream, "<total type=\"fast\" count=\"%zu\" size=\"%zu\"/>\n",
                 std::size_t{stats->cached_count}, std::size_t{stats->cached_bytes});
    std::fprintf(stream, "<total type=\"rest\" count=\"%zu\" size=\"%zu\"/>\n", std::size_t{stats->free_runs},
                 std::size_t{stats->free_bytes + stats->slab_free_bytes});
  };
  const auto system = [&] {
    for (const char* what : {"system type=\"current\"", "system type=\"max\"", "aspace type=\"total\"",
                             "aspace type=\"mprotect\""})
      std::fprintf(stream, "<%s size=\"%zu\"/>\n", what, std::size_t{stats->total_bytes});
  };
  std::fputs("<malloc version=\"1\">\n<heap nr=\"0\">\n<sizes>\n</sizes>\n", stream);
  totals();
  system();
  std::fputs("</heap>\n", stream);
  totals();
  std::fputs("<total type=\"mmap\" count=\"0\" size=\"0\"/>\n", stream);
  system();
  std::fputs("</malloc>\n", stream);
  return 0;
}
EXTMEM_EXPORTED_C void malloc_stats() {
  const auto stats = extmem::preload::process.heap.stats();
  extmem::os::Writer out(STDERR_FILENO);
  if (stats) extmem::preload::write_text(out, *stats);
}
/// Gives back the regions that are empty, and the pages of what is free. 1 if memory went back to the system, else 0, as in
/// the GNU C library.
EXTMEM_EXPORTED_C int malloc_trim(std::size_t) {
  const auto before = extmem::preload::process.heap.stats();
  if (!extmem::preload::process.heap.flush()) return 0;
  const auto after = extmem::preload::process.heap.stats();
  const bool pages = extmem::preload::give_back_free_pages();
  return pages || (before && after && after->total_bytes < before->total_bytes) ? 1 : 0;
}
/// Nothing of this allocator can be set that way: accepted, as nothing that a program asks for here is a promise.
EXTMEM_EXPORTED_C int mallopt(int, int) { return 1; }
