// A libcuda.so.1 without a GPU, for the tests of extmem/cuda.hpp and of the examples.
//
// A GPU's memory is PROT_NONE where the program sees it, so that whoever touches it dies; what is in it lies in a memfd that
// only the copies here know. What the real driver refuses is refused here, too: calls without a context, on memory that is not
// CUDA's, inside a function that a stream runs. Shared memory outlives its maker as long as somebody has it.
// fake_cuda_* is for the tests: which call is to fail, what is left over.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <string>
#include <system_error>
#include <thread>
#include <vector>

#include "extmem/cuda_driver.hpp"

using extmem::cuda::AccessDesc;
using extmem::cuda::AllocationProp;
using extmem::cuda::DeviceAttribute;
using extmem::cuda::DevicePtr;
using extmem::cuda::Status;
using extmem::cuda::Stream;

namespace {

constexpr std::size_t kGranularity = std::size_t{2} << 20;
constexpr std::size_t kTotal = std::size_t{16} << 30;

enum class Kind { device, pinned, registered, mapped };
struct Range {
  std::size_t length = 0;
  Kind kind = Kind::device;
  char* content = nullptr;
  bool accessible = true;
};
struct Handle {
  int fd = -1;
  std::size_t length = 0;
};

std::mutex lock;
std::map<std::uintptr_t, Range> ranges;
std::map<std::uintptr_t, std::size_t> reserved;
std::map<unsigned long long, Handle> handles;
std::map<std::string, Status> failures;
unsigned long long next_handle = 1;
std::atomic<bool> elsewhere{false};
std::atomic<int> contexts{0};
int the_context;
thread_local std::vector<void*> current;
thread_local bool inside_stream = false;

/// What stands in the way of a call; 0 if nothing does.
Status refused(const char* name, bool needs_context = true) {
  const std::lock_guard<std::mutex> guard(lock);
  if (const auto wanted = failures.find(name); wanted != failures.end()) return wanted->second;
  if (inside_stream) return 800;
  return needs_context && current.empty() ? 201 : 0;
}

char* map_at(void* hint, std::size_t length, int protection) {
  const std::size_t bytes = (length + 4095) / 4096 * 4096;
  char* const p = static_cast<char*>(
      ::mmap(hint, bytes + kGranularity, protection, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  if (p == MAP_FAILED) return nullptr;
  const auto at = reinterpret_cast<std::uintptr_t>(p);
  const std::size_t before = (kGranularity - at % kGranularity) % kGranularity;
  if (before != 0) ::munmap(p, before);
  ::munmap(p + before + bytes, kGranularity - before);
  return p + before;
}
char* map_file(int fd, std::size_t bytes) {
  void* const p = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  return p == MAP_FAILED ? nullptr : static_cast<char*>(p);
}
int make_file(std::size_t bytes) {
  const int fd = ::memfd_create("fake GPU memory", MFD_CLOEXEC);
  if (fd >= 0 && ::ftruncate(fd, static_cast<::off_t>(bytes)) == 0) return fd;
  return -1;
}

/// The range that [p, p + bytes) lies in. Requires: the lock.
Range* range_of(std::uintptr_t p, std::size_t bytes, std::size_t& offset) {
  auto after = ranges.upper_bound(p);
  if (after == ranges.begin()) return nullptr;
  auto& [base, range] = *--after;
  offset = p - base;
  return offset <= range.length && bytes <= range.length - offset ? &range : nullptr;
}
/// The content behind a pointer of CUDA's, or null.
char* content(std::uintptr_t p, std::size_t bytes) {
  const std::lock_guard<std::mutex> guard(lock);
  std::size_t offset = 0;
  const Range* const range = range_of(p, bytes, offset);
  return range == nullptr || !range->accessible ? nullptr : range->content + offset;
}
std::uintptr_t number(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

/// Either side is CUDA's, or plain memory of the host where `plain` says so.
Status copy(std::uintptr_t to, std::uintptr_t from, std::size_t bytes, bool plain_to, bool plain_from) {
  char* target = content(to, bytes);
  const char* source = content(from, bytes);
  if (target == nullptr && plain_to) target = reinterpret_cast<char*>(to);
  if (source == nullptr && plain_from) source = reinterpret_cast<const char*>(from);
  if (target == nullptr || source == nullptr) return 1;
  std::memmove(target, source, bytes);
  return 0;
}

Status unmap(std::uintptr_t p, Kind kind) {
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = ranges.find(p);
  if (found == ranges.end() || found->second.kind != kind) return kind == Kind::registered ? 713 : 1;
  const Range& range = found->second;
  if (kind == Kind::device || kind == Kind::mapped) ::munmap(range.content, range.length);
  if (kind == Kind::device || kind == Kind::pinned) ::munmap(reinterpret_cast<void*>(p), range.length);
  ranges.erase(found);
  return 0;
}

Status add_device(DevicePtr* p, std::size_t bytes) {
  if (p == nullptr || bytes == 0) return 1;
  if (bytes > kTotal) return 2;
  const int fd = make_file(bytes);
  char* const inside = fd < 0 ? nullptr : map_file(fd, bytes);
  if (fd >= 0) ::close(fd);
  char* const outside = inside == nullptr ? nullptr : map_at(nullptr, bytes, PROT_NONE);
  if (outside == nullptr) return 2;
  const std::lock_guard<std::mutex> guard(lock);
  ranges[number(outside)] = Range{bytes, Kind::device, inside, true};
  *p = number(outside);
  return 0;
}

}  // namespace

#define FAKE extern "C" [[gnu::visibility("default")]]

// ---- for the tests ---------------------------------------------------------------------------------------------------

FAKE void fake_cuda_fail(const char* name, Status status);
FAKE void fake_cuda_map_elsewhere(bool on);
FAKE std::size_t fake_cuda_ranges();
FAKE int fake_cuda_contexts();

void fake_cuda_fail(const char* name, Status status) {
  const std::lock_guard<std::mutex> guard(lock);
  if (status == 0) {
    failures.erase(name);
  } else {
    failures[name] = status;
  }
}
void fake_cuda_map_elsewhere(bool on) { elsewhere = on; }
/// What is allocated, registered, mapped or reserved, and handles.
std::size_t fake_cuda_ranges() {
  const std::lock_guard<std::mutex> guard(lock);
  return ranges.size() + reserved.size() + handles.size();
}
int fake_cuda_contexts() { return contexts; }

// ---- the driver's functions ------------------------------------------------------------------------------------------

#define CALL(name, arguments) \
  FAKE Status name arguments; \
  Status name arguments
#define START() \
  if (const Status why = refused(__func__); why != 0) return why
#define START_WITHOUT_CONTEXT() \
  if (const Status why = refused(__func__, false); why != 0) return why

CALL(cuInit, (unsigned)) {
  START_WITHOUT_CONTEXT();
  if (std::getenv("EXTMEM_FAKE_CUDA_ELSEWHERE") != nullptr) elsewhere = true;
  return 0;
}
CALL(cuDriverGetVersion, (int* version)) {
  *version = 12000;
  return 0;
}
CALL(cuDeviceGetCount, (int* count)) {
  *count = 1;
  return 0;
}
CALL(cuDeviceGet, (int* device, int ordinal)) {
  START_WITHOUT_CONTEXT();
  *device = 0;
  return ordinal == 0 ? 0 : 101;
}
CALL(cuDeviceGetName, (char* name, int length, int)) {
  std::snprintf(name, static_cast<std::size_t>(length), "no GPU, but a fake one");
  return 0;
}
CALL(cuDeviceGetAttribute, (int* value, DeviceAttribute attribute, int)) {
  START_WITHOUT_CONTEXT();
  *value = attribute == DeviceAttribute::rdma_with_virtual_memory ? 0 : 1;
  return 0;
}
CALL(cuDeviceTotalMem_v2, (std::size_t * bytes, int)) {
  *bytes = kTotal;
  return 0;
}
CALL(cuDevicePrimaryCtxRetain, (void** context, int)) {
  START_WITHOUT_CONTEXT();
  ++contexts;
  *context = &the_context;
  return 0;
}
CALL(cuDevicePrimaryCtxRelease_v2, (int)) {
  --contexts;
  return 0;
}
CALL(cuCtxPushCurrent_v2, (void* context)) {
  START_WITHOUT_CONTEXT();
  if (context != &the_context) return 201;
  current.push_back(context);
  return 0;
}
CALL(cuCtxPopCurrent_v2, (void** context)) {
  if (current.empty()) return 201;
  *context = current.back();
  current.pop_back();
  return 0;
}

CALL(cuMemAlloc_v2, (DevicePtr * p, std::size_t bytes)) {
  START();
  return add_device(p, bytes);
}
CALL(cuMemFree_v2, (DevicePtr p)) {
  START();
  return unmap(p, Kind::device);
}
CALL(cuMemAllocAsync, (DevicePtr * p, std::size_t bytes, Stream)) {
  START();
  return add_device(p, bytes);
}
CALL(cuMemFreeAsync, (DevicePtr p, Stream)) {
  START();
  return unmap(p, Kind::device);
}
CALL(cuMemHostAlloc, (void** p, std::size_t bytes, unsigned)) {
  START();
  if (bytes == 0 || bytes > kTotal) return bytes == 0 ? 1 : 2;
  char* const memory = map_at(nullptr, bytes, PROT_READ | PROT_WRITE);
  if (memory == nullptr) return 2;
  const std::lock_guard<std::mutex> guard(lock);
  ranges[number(memory)] = Range{bytes, Kind::pinned, memory, true};
  *p = memory;
  return 0;
}
CALL(cuMemFreeHost, (void* p)) {
  START();
  return unmap(number(p), Kind::pinned);
}
CALL(cuMemHostRegister_v2, (void* p, std::size_t bytes, unsigned)) {
  START();
  if (p == nullptr || bytes == 0) return 1;
  const std::lock_guard<std::mutex> guard(lock);
  const auto after = ranges.lower_bound(number(p) + bytes);
  if (after != ranges.begin() && std::prev(after)->first + std::prev(after)->second.length > number(p))
    return 712;
  ranges[number(p)] = Range{bytes, Kind::registered, static_cast<char*>(p), true};
  return 0;
}
CALL(cuMemHostUnregister, (void* p)) {
  START();
  return unmap(number(p), Kind::registered);
}
CALL(cuPointerGetAttribute, (void* value, int attribute, DevicePtr p)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  std::size_t offset = 0;
  const Range* const range = range_of(p, 1, offset);
  if (range == nullptr || attribute != extmem::cuda::kPointerMemoryType) return 1;
  *static_cast<int*>(value) = range->kind == Kind::device || range->kind == Kind::mapped ? 2 : 1;
  return 0;
}

CALL(cuMemcpyHtoD_v2, (DevicePtr to, const void* from, std::size_t bytes)) {
  START();
  return copy(to, number(from), bytes, false, true);
}
CALL(cuMemcpyDtoH_v2, (void* to, DevicePtr from, std::size_t bytes)) {
  START();
  return copy(number(to), from, bytes, true, false);
}
CALL(cuMemcpyDtoDAsync_v2, (DevicePtr to, DevicePtr from, std::size_t bytes, Stream)) {
  START();
  return copy(to, from, bytes, false, false);
}
CALL(cuMemcpyHtoDAsync_v2, (DevicePtr to, const void* from, std::size_t bytes, Stream)) {
  START();
  return copy(to, number(from), bytes, false, true);
}
CALL(cuMemcpyDtoHAsync_v2, (void* to, DevicePtr from, std::size_t bytes, Stream)) {
  START();
  return copy(number(to), from, bytes, true, false);
}
CALL(cuMemsetD8Async, (DevicePtr to, unsigned char byte, std::size_t count, Stream)) {
  START();
  char* const target = content(to, count);
  if (target == nullptr) return 1;
  std::memset(target, byte, count);
  return 0;
}
CALL(cuMemsetD32Async, (DevicePtr to, unsigned word, std::size_t count, Stream)) {
  START();
  char* const target = content(to, count * 4);
  if (target == nullptr || to % 4 != 0) return 1;
  for (std::size_t i = 0; i < count; ++i) std::memcpy(target + i * 4, &word, 4);
  return 0;
}
CALL(cuStreamCreate, (Stream * stream, unsigned)) {
  START();
  static int some_stream;
  *stream = &some_stream;
  return 0;
}
CALL(cuStreamDestroy_v2, (Stream)) { return 0; }
CALL(cuStreamSynchronize, (Stream)) {
  START();
  return 0;
}
CALL(cuLaunchHostFunc, (Stream, void (*function)(void*), void* argument)) {
  START();
  const auto run = [function, argument] {
    inside_stream = true;
    function(argument);
    inside_stream = false;
  };
  try {
    std::thread(run).join();
  } catch (const std::system_error&) {  // too many threads on this machine
    run();
  }
  return 0;
}

// ---- virtual memory management ---------------------------------------------------------------------------------------

CALL(cuMemGetAllocationGranularity, (std::size_t * bytes, const AllocationProp*, int)) {
  START();
  *bytes = kGranularity;
  return 0;
}
CALL(cuMemAddressReserve,
     (DevicePtr * p, std::size_t bytes, std::size_t, DevicePtr wanted, unsigned long long)) {
  START();
  if (bytes == 0 || bytes % kGranularity != 0) return 1;
  void* const hint = elsewhere ? nullptr : reinterpret_cast<void*>(wanted);
  char* const place = map_at(hint, bytes, PROT_NONE);
  if (place == nullptr) return 2;
  const std::lock_guard<std::mutex> guard(lock);
  reserved[number(place)] = bytes;
  *p = number(place);
  return 0;
}
CALL(cuMemAddressFree, (DevicePtr p, std::size_t bytes)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = reserved.find(p);
  if (found == reserved.end() || found->second != bytes) return 1;
  ::munmap(reinterpret_cast<void*>(p), bytes);
  reserved.erase(found);
  return 0;
}
CALL(cuMemCreate,
     (unsigned long long* handle, std::size_t bytes, const AllocationProp* prop, unsigned long long)) {
  START();
  if (bytes == 0 || bytes % kGranularity != 0 || prop->type != 1 || prop->location.type != 1) return 1;
  if (bytes > kTotal) return 2;
  const int fd = make_file(bytes);
  if (fd < 0) return 2;
  const std::lock_guard<std::mutex> guard(lock);
  handles[*handle = next_handle++] = Handle{fd, bytes};
  return 0;
}
CALL(cuMemRelease, (unsigned long long handle)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = handles.find(handle);
  if (found == handles.end()) return 1;
  ::close(found->second.fd);
  handles.erase(found);
  return 0;
}
CALL(cuMemMap,
     (DevicePtr p, std::size_t bytes, std::size_t offset, unsigned long long handle, unsigned long long)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = handles.find(handle);
  if (found == handles.end() || offset != 0 || bytes != found->second.length) return 1;
  auto room = reserved.upper_bound(p);
  if (room == reserved.begin() || (--room)->first + room->second < p + bytes) return 1;
  char* const inside = map_file(found->second.fd, bytes);
  if (inside == nullptr) return 2;
  ranges[p] = Range{bytes, Kind::mapped, inside, false};
  return 0;
}
CALL(cuMemUnmap, (DevicePtr p, std::size_t)) {
  START();
  return unmap(p, Kind::mapped);
}
CALL(cuMemSetAccess, (DevicePtr p, std::size_t bytes, const AccessDesc* who, std::size_t count)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = ranges.find(p);
  if (found == ranges.end() || found->second.length != bytes || count != 1 || who->flags != 3) return 1;
  found->second.accessible = true;
  return 0;
}
CALL(cuMemExportToShareableHandle, (void* to, unsigned long long handle, int type, unsigned long long)) {
  START();
  const std::lock_guard<std::mutex> guard(lock);
  const auto found = handles.find(handle);
  if (found == handles.end() || type != 1) return 1;
  const int fd = ::fcntl(found->second.fd, F_DUPFD_CLOEXEC, 0);
  std::memcpy(to, &fd, sizeof fd);
  return fd < 0 ? 999 : 0;
}
CALL(cuMemImportFromShareableHandle, (unsigned long long* handle, void* descriptor, int type)) {
  START();
  struct ::stat file {};
  const int fd = ::fcntl(static_cast<int>(reinterpret_cast<std::intptr_t>(descriptor)), F_DUPFD_CLOEXEC, 0);
  if (fd < 0 || type != 1 || ::fstat(fd, &file) != 0) return 1;
  const std::lock_guard<std::mutex> guard(lock);
  handles[*handle = next_handle++] = Handle{fd, static_cast<std::size_t>(file.st_size)};
  return 0;
}
