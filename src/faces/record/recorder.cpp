#include "faces/record/recorder.hpp"

#include <fcntl.h>
#include <link.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>
#include <x86intrin.h>

#include <atomic>
#include <bit>
#include <cerrno>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <new>

#include "base/always_inline.hpp"
#include "faces/record/trace_format.hpp"
#include "os/errno_keeper.hpp"
#include "os/interposed.hpp"
#include "os/kept_descriptor.hpp"
#include "os/mapping.hpp"
#include "os/membarrier.hpp"
#include "os/process.hpp"
#include "os/thread.hpp"
#include "os/writer.hpp"

namespace extmem::record {

namespace {

constexpr int kTraceDescriptor = 501;
constexpr std::size_t kBufferBytes = 64 * 1024;

/// One thread's events on their way. It outlives its thread, and then serves another.
struct Buffer {
  // Around each event, by its thread: with `recording` and a membarrier an asymmetric lock against end_recording().
  std::atomic<bool> busy{false};
  // The thread has ended: whoever swaps it to false owns the buffer. Acquire/release: with all that is in it.
  std::atomic<bool> unused{false};
  Buffer* next = nullptr;  // written before the buffer is in the list
  std::uint32_t thread = 0;
  bool late = false;  // for one event of a thread that is past the end of its thread-specific data
  std::uint32_t last_site = 0;
  std::uint64_t last_tsc = 0;
  std::uint64_t events = 0;  // in all that were put in
  std::int64_t last_address = 0;
  std::uint8_t* at = nullptr;
  std::uint8_t bytes[kBufferBytes];

  [[nodiscard]] std::uint8_t* data() noexcept { return bytes + sizeof(ChunkHeader); }
};

/// The addresses of calls, by number: an open hash table. The number of a call is its place.
constexpr std::uint32_t kSites = 1u << 16;
std::atomic<std::uintptr_t> sites[kSites];  // relaxed: a number means nothing but itself

std::atomic<bool> recording{false};     // relaxed: see Buffer::busy
std::atomic<Buffer*> buffers{nullptr};  // release by who puts one in, acquire by who walks
std::atomic<std::uint32_t> threads{0};  // relaxed: numbers only
os::KeptDescriptor trace;
std::atomic_flag reopening = ATOMIC_FLAG_INIT;  // acquire/release: `trace`, where it is opened anew
char trace_path[4200];
std::uint32_t recording_pid = 0;
std::uint64_t start_ns = 0;
pthread_key_t exit_key;
bool has_membarrier = false;
thread_local constinit Buffer* mine = nullptr;
thread_local constinit bool inside = false;       // the recorder's own calls are nobody's events
thread_local constinit std::uint32_t number = 0;  // the thread's, from its first event on
// How often the destructor of exit_key was called. Those of other keys free memory, too: the thread ends with the last call, and
// what comes behind that, when nobody tells of the end, is written event by event.
thread_local constinit int destructions = 0;

std::atomic<bool> incomplete{false};  // relaxed: nothing goes with it
os::KeptDescriptor report_to;         // standard error

void tell(const char* text) noexcept { (void)!::write(STDERR_FILENO, text, std::strlen(text)); }

/// The trace's descriptor; -1: the program closed it, and the file is gone or out of reach.
int trace_descriptor() noexcept {
  while (reopening.test_and_set(std::memory_order_acquire)) os::sleep_ns(100'000);
  int fd = trace.get();
  if (fd < 0) {
    const int low = ::open(trace_path, O_WRONLY | O_APPEND | O_CLOEXEC);
    if (low >= 0 && trace.is_file_of(low)) {
      trace.keep(low, kTraceDescriptor);
      fd = trace.get();
    }
    if (low >= 0) ::close(low);
  }
  reopening.clear(std::memory_order_release);
  return fd;
}

void write_all(const void* data, std::size_t bytes) noexcept {
  const os::ErrnoKeeper keep;
  const int fd = trace_descriptor();
  // One call, so that chunks of two threads never mix (O_APPEND). A short write leaves a chunk that the reader skips.
  ssize_t written;
  do {
    written = fd < 0 ? -1 : ::write(fd, data, bytes);
  } while (written < 0 && fd >= 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(bytes) || incomplete.exchange(true, std::memory_order_relaxed)) return;
  tell(
      "extmem: a part of the trace could not be written and is missing in it: is the disk full, or the file "
      "gone?\n");
}

void write_chunk(Buffer& buffer) noexcept {
  const auto used = static_cast<std::size_t>(buffer.at - buffer.data());
  if (used == 0) return;
  auto* header = reinterpret_cast<ChunkHeader*>(buffer.bytes);
  header->bytes = static_cast<std::uint32_t>(used);
  write_all(buffer.bytes, sizeof(ChunkHeader) + used);
}

void begin_chunk(Buffer& buffer, std::uint64_t tsc) noexcept {
  ChunkHeader header;
  header.thread = buffer.thread;
  header.tsc = tsc;
  std::memcpy(buffer.bytes, &header, sizeof header);
  buffer.at = buffer.data();
  buffer.last_tsc = tsc;
  buffer.last_address = 0;
  buffer.last_site = 0;
}

[[gnu::noinline]] Buffer* new_buffer() noexcept {
  if (inside) return nullptr;
  inside = true;
  Buffer* buffer = buffers.load(std::memory_order_acquire);
  for (; buffer != nullptr; buffer = buffer->next) {
    bool unused = true;
    if (buffer->unused.compare_exchange_strong(unused, false, std::memory_order_acquire)) break;
  }
  if (buffer == nullptr) {
    if (auto memory = os::reserve(sizeof(Buffer)); memory && os::commit(*memory, sizeof(Buffer))) {
      buffer = new (*memory) Buffer;
      buffer->next = buffers.load(std::memory_order_relaxed);
      while (!buffers.compare_exchange_weak(buffer->next, buffer, std::memory_order_release,
                                            std::memory_order_relaxed)) {
      }
    }
  }
  if (buffer != nullptr) {
    if (number == 0) number = threads.fetch_add(1, std::memory_order_relaxed) + 1;
    buffer->thread = number;
    buffer->late = destructions >= PTHREAD_DESTRUCTOR_ITERATIONS;
    begin_chunk(*buffer, __rdtsc());
    mine = buffer;
    if (!buffer->late)
      (void)::pthread_setspecific(exit_key, buffer);  // where this fails the buffer is written at exit
  }
  inside = false;
  return buffer;
}

std::uint32_t site_of(const void* caller) noexcept {
  const auto address = reinterpret_cast<std::uintptr_t>(caller);
  auto hash = static_cast<std::uint32_t>((address * 0x9e3779b97f4a7c15u) >> 48);
  for (std::uint32_t tries = 0; tries < 64; ++tries, hash = (hash + 1) % kSites) {
    const std::uint32_t place = hash == 0 ? 1 : hash;  // 0 is "not known"
    std::uintptr_t there = sites[place].load(std::memory_order_relaxed);
    if (there == address) return place;
    if (there == 0 && sites[place].compare_exchange_strong(there, address, std::memory_order_relaxed))
      return place;
    if (there == address) return place;
  }
  return 0;
}

/// The buffer, with room for an event, and busy; null: nothing is recorded.
EXTMEM_ALWAYS_INLINE Buffer* enter() noexcept {
  Buffer* buffer = mine;
  if (buffer == nullptr) [[unlikely]] {
    if (!recording.load(std::memory_order_relaxed)) return nullptr;
    buffer = new_buffer();
    if (buffer == nullptr) return nullptr;
  }
  buffer->busy.store(true, std::memory_order_relaxed);
  if (has_membarrier) [[likely]] {
    std::atomic_signal_fence(std::memory_order_seq_cst);  // pairs with the membarrier of end_recording
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  if (!recording.load(std::memory_order_relaxed)) [[unlikely]] {
    buffer->busy.store(false, std::memory_order_release);
    return nullptr;
  }
  if (buffer->at + kMaxEventBytes > buffer->bytes + kBufferBytes) [[unlikely]] {
    write_chunk(*buffer);
    begin_chunk(*buffer, buffer->last_tsc);
  }
  return buffer;
}
/// Gives the calling thread's buffer, which is busy, to whoever needs one next.
[[gnu::noinline]] void hand_over(Buffer& buffer) noexcept {
  write_chunk(buffer);
  buffer.at = buffer.data();
  mine = nullptr;
  buffer.busy.store(false, std::memory_order_release);  // pairs with the acquire of end_recording
  buffer.unused.store(true, std::memory_order_release);
}
EXTMEM_ALWAYS_INLINE void leave_event(Buffer& buffer) noexcept {
  ++buffer.events;
  if (buffer.late) [[unlikely]] {
    hand_over(buffer);
    return;
  }
  buffer.busy.store(false, std::memory_order_release);  // pairs with the acquire of end_recording
}

/// The destructor of exit_key.
void leave(void* value) noexcept {
  if (++destructions < PTHREAD_DESTRUCTOR_ITERATIONS && ::pthread_setspecific(exit_key, value) == 0) return;
  destructions = PTHREAD_DESTRUCTOR_ITERATIONS;
  if (Buffer* buffer = enter()) hand_over(*buffer);
}

EXTMEM_ALWAYS_INLINE void put_time(Buffer& buffer, std::uint64_t tsc) noexcept {
  // Counters of two processors may differ by a little: time stands still rather than to go back.
  const std::uint64_t now = tsc > buffer.last_tsc ? tsc : buffer.last_tsc;
  buffer.at = put_varint(buffer.at, now - buffer.last_tsc);
  buffer.last_tsc = now;
}
EXTMEM_ALWAYS_INLINE void put_address(Buffer& buffer, const void* p) noexcept {
  const auto address = static_cast<std::int64_t>(reinterpret_cast<std::uintptr_t>(p) >> kAddressShift);
  buffer.at = put_varint(buffer.at, zigzag(address - buffer.last_address));
  buffer.last_address = address;
}
EXTMEM_ALWAYS_INLINE std::uint8_t flags_of(const Buffer& buffer, std::uint32_t site, const void* p) noexcept {
  return static_cast<std::uint8_t>((site == buffer.last_site ? kSameSite : 0) | (p == nullptr ? kFailed : 0));
}
EXTMEM_ALWAYS_INLINE void put_site(Buffer& buffer, std::uint32_t site) noexcept {
  if (site == buffer.last_site) return;
  buffer.at = put_varint(buffer.at, site);
  buffer.last_site = site;
}

/// Numbers into a chunk of their own, written when it is full and at the end.
class Chunk {
 public:
  explicit Chunk(ChunkKind kind) noexcept : kind_(kind) {}
  void number(std::uint64_t value) noexcept { at_ = put_varint(at_, value); }
  void text(const char* text) noexcept {
    const std::size_t n = std::strlen(text) < 1024 ? std::strlen(text) : 1024;
    number(n);
    std::memcpy(at_, text, n);
    at_ += n;
  }
  void raw(std::uint64_t value) noexcept {
    std::memcpy(at_, &value, sizeof value);
    at_ += sizeof value;
  }
  void make_room() noexcept {
    if (at_ + 1200 > bytes_ + sizeof bytes_) flush();
  }
  void flush() noexcept {
    ChunkHeader header;
    header.kind = kind_;
    header.bytes = static_cast<std::uint32_t>(static_cast<std::size_t>(at_ - bytes_) - sizeof header);
    std::memcpy(bytes_, &header, sizeof header);
    write_all(bytes_, static_cast<std::size_t>(at_ - bytes_));
    at_ = bytes_ + sizeof header;
  }

 private:
  ChunkKind kind_;
  std::uint8_t bytes_[8192];
  std::uint8_t* at_ = bytes_ + sizeof(ChunkHeader);
};

int add_module(dl_phdr_info* info, std::size_t, void* arg) noexcept {
  Chunk& chunk = *static_cast<Chunk*>(arg);
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const auto& header = info->dlpi_phdr[i];
    if (header.p_type != PT_LOAD || (header.p_flags & PF_X) == 0) continue;
    chunk.make_room();
    chunk.number(info->dlpi_addr + header.p_vaddr);
    chunk.number(info->dlpi_addr + header.p_vaddr + header.p_memsz);
    chunk.number(header.p_vaddr);
    chunk.text(info->dlpi_name != nullptr ? info->dlpi_name : "");
  }
  return 0;
}

std::uint64_t realtime_ns() noexcept {
  timespec now{};
  ::clock_gettime(CLOCK_REALTIME, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
}

/// What `extmem record --json` prints, by the process that it became and no other.
void report(std::uint64_t end_ns) noexcept {
  const char* wanted = std::getenv("EXTMEM_TRACE_REPORT");
  const char* first = std::getenv("EXTMEM_TRACE_PID");
  if (wanted == nullptr || *wanted == '\0' || first == nullptr ||
      std::strtoul(first, nullptr, 10) != static_cast<unsigned long>(::getpid()))
    return;
  std::uint64_t events = 0;
  for (Buffer* buffer = buffers.load(std::memory_order_acquire); buffer != nullptr; buffer = buffer->next)
    events += buffer->events;
  char comm[16];
  os::process_name(comm);
  struct stat status {};
  (void)::fstat(trace_descriptor(), &status);
  int to = report_to.get();
  if (to < 0 && report_to.is_file_of(STDERR_FILENO)) to = STDERR_FILENO;
  os::Writer out(to);
  out.text("{").member("command", "record").member("schema", 1).member("trace", trace_path);
  out.member("program", comm).member("pid", static_cast<std::uint64_t>(::getpid()));
  out.member("operations", events).member("threads", threads.load(std::memory_order_relaxed));
  out.member("trace_bytes", static_cast<std::uint64_t>(status.st_size));
  out.member("nanoseconds", end_ns - (end_ns < start_ns ? end_ns : start_ns));
  out.text(",\"complete\":").text(incomplete.load(std::memory_order_relaxed) ? "false" : "true").text("}\n");
}

/// A fork's child records into a file of its own: what its parent had not written yet is its parent's.
void in_child() {
  recording.store(false, std::memory_order_relaxed);
  for (Buffer* buffer = buffers.load(std::memory_order_acquire); buffer != nullptr; buffer = buffer->next) {
    buffer->at = buffer->data();
    buffer->events = 0;
    buffer->busy.store(false, std::memory_order_relaxed);
    if (buffer != mine) buffer->unused.store(true, std::memory_order_relaxed);
  }
  reopening.clear(std::memory_order_relaxed);  // a thread may have held it that is not here
  trace.drop();
  begin_recording();
  if (mine != nullptr) begin_chunk(*mine, __rdtsc());
}

}  // namespace

void begin_recording() noexcept {
  static bool made = false;
  const os::ErrnoKeeper keep;
  const char* name = std::getenv("EXTMEM_TRACE");
  if (name == nullptr || *name == '\0') return;
  auto& path = trace_path;
  const std::size_t n = std::strlen(name);
  if (n > 4096) {
    tell("extmem: the trace's path is too long: nothing is recorded\n");
    return;
  }
  const bool was_inside = inside;
  inside = true;
  std::memcpy(path, name, n + 1);
  // EXTMEM_TRACE_PID: who writes the file itself; its children put their number behind the name.
  const char* first = std::getenv("EXTMEM_TRACE_PID");
  const auto pid = static_cast<std::uint32_t>(::getpid());
  if (first != nullptr && std::strtoul(first, nullptr, 10) != pid) {
    char digits[12];
    int d = 0;
    for (std::uint32_t rest = pid; d == 0 || rest != 0; rest /= 10)
      digits[d++] = static_cast<char>('0' + rest % 10);
    char* end = path + n;
    *end++ = '.';
    while (d > 0) *end++ = digits[--d];
    *end = '\0';
  }
  const int low = ::open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0644);
  if (low < 0) {
    tell("extmem: the trace cannot be written: nothing is recorded\n");
    inside = was_inside;
    return;
  }
  trace.keep(low, kTraceDescriptor);
  ::close(low);
  if (!made) {
    has_membarrier = os::membarrier_register(false);
    (void)::pthread_key_create(&exit_key, [](void* value) { leave(value); });
    (void)os::on_fork(&in_child);
    // Many programs close their standard error before the end.
    if (const char* wanted = std::getenv("EXTMEM_TRACE_REPORT"); wanted != nullptr && *wanted != '\0')
      report_to.keep(STDERR_FILENO, kTraceDescriptor + 1);
    made = true;
    if (const char* file = os::file_called_instead("malloc"))
      os::Writer(STDERR_FILENO)
          .text("extmem: the program calls the malloc in ")
          .text(file)
          .text(": what that gives is not in the trace\n");
  }
  TraceHeader header;
  header.pid = recording_pid = pid;
  header.start_tsc = __rdtsc();
  header.start_ns = start_ns = realtime_ns();
  char comm[16];
  os::process_name(comm);
  std::memcpy(header.program, comm, sizeof comm);
  write_all(&header, sizeof header);
  inside = was_inside;
  recording.store(true, std::memory_order_relaxed);
}

void end_recording() noexcept {
  // Not by os::process_id(), which the child of a vfork has from its parent; the recording is its parent's, too.
  if (static_cast<std::uint32_t>(::getpid()) != recording_pid) return;
  if (!recording.exchange(false, std::memory_order_relaxed)) return;
  if (has_membarrier) {
    os::membarrier(false);
  } else {
    std::atomic_thread_fence(std::memory_order_seq_cst);
  }
  for (Buffer* buffer = buffers.load(std::memory_order_acquire); buffer != nullptr; buffer = buffer->next) {
    // Acquire: with what its thread put in. A thread that a debugger stopped in an event is not waited for.
    for (int i = 0; i < 100 && buffer->busy.load(std::memory_order_acquire); ++i) os::sleep_ns(1'000'000);
    if (!buffer->busy.load(std::memory_order_acquire)) write_chunk(*buffer);
  }
  Chunk names(ChunkKind::sites);
  for (std::uint32_t i = 1; i < kSites; ++i) {
    const std::uintptr_t address = sites[i].load(std::memory_order_relaxed);
    if (address == 0) continue;
    names.make_room();
    names.number(i);
    names.number(address);
  }
  names.flush();
  Chunk modules(ChunkKind::modules);
  ::dl_iterate_phdr(&add_module, &modules);
  modules.flush();
  Chunk end(ChunkKind::end);
  end.raw(__rdtsc());
  const std::uint64_t end_ns = realtime_ns();
  end.raw(end_ns);
  end.flush();
  report(end_ns);
}

void note_free(const void* p) noexcept {
  if (p == nullptr) return;
  Buffer* buffer = enter();
  if (buffer == nullptr) return;
  *buffer->at++ = static_cast<std::uint8_t>(Op::free);
  put_time(*buffer, __rdtsc());
  put_address(*buffer, p);
  leave_event(*buffer);
}

void note_malloc(bool zeroed, std::size_t size, const void* p, const void* caller) noexcept {
  Buffer* buffer = enter();
  if (buffer == nullptr) return;
  const std::uint32_t site = site_of(caller);
  *buffer->at++ = static_cast<std::uint8_t>(static_cast<std::uint8_t>(zeroed ? Op::calloc : Op::malloc) |
                                            flags_of(*buffer, site, p));
  put_time(*buffer, __rdtsc());
  buffer->at = put_varint(buffer->at, size);
  if (p != nullptr) put_address(*buffer, p);
  put_site(*buffer, site);
  leave_event(*buffer);
}

void note_memalign(std::size_t align, std::size_t size, const void* p, const void* caller) noexcept {
  Buffer* buffer = enter();
  if (buffer == nullptr) return;
  const std::uint32_t site = site_of(caller);
  *buffer->at++ =
      static_cast<std::uint8_t>(static_cast<std::uint8_t>(Op::memalign) | flags_of(*buffer, site, p));
  put_time(*buffer, __rdtsc());
  *buffer->at++ = static_cast<std::uint8_t>(std::bit_width(align) - (align != 0 ? 1 : 0));
  buffer->at = put_varint(buffer->at, size);
  if (p != nullptr) put_address(*buffer, p);
  put_site(*buffer, site);
  leave_event(*buffer);
}

std::uint64_t begin_realloc() noexcept { return __rdtsc(); }

void note_realloc(std::uint64_t time, const void* old, std::size_t size, const void* p,
                  const void* caller) noexcept {
  Buffer* buffer = enter();
  if (buffer == nullptr) return;
  const std::uint32_t site = site_of(caller);
  *buffer->at++ =
      static_cast<std::uint8_t>(static_cast<std::uint8_t>(Op::realloc) | flags_of(*buffer, site, p));
  put_time(*buffer, time);
  put_time(*buffer, __rdtsc());
  put_address(*buffer, old);
  buffer->at = put_varint(buffer->at, size);
  if (p != nullptr) put_address(*buffer, p);
  put_site(*buffer, site);
  leave_event(*buffer);
}

}  // namespace extmem::record
