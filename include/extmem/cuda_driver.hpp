// CUDA's driver API, as much of it as extmem/cuda.hpp needs, loaded at run time.
//
// What it is: a table of functions out of libcuda.so.1, which comes with NVIDIA's driver, and errors from its status codes.
// Compiling needs neither the CUDA toolkit nor its headers, and a program that includes this runs on machines without a GPU.
// Thread-safety: the table is loaded once and then constant.
// Invariants:
//  1. No status is lost: a failed call becomes an Error, and last_status() says which status it was.
#pragma once

#include <dlfcn.h>

#include <cerrno>
#include <cstddef>
#include <cstdint>

#include "extmem/result.hpp"

namespace extmem::cuda {

using Status = int;                    ///< CUresult
using DevicePtr = unsigned long long;  ///< CUdeviceptr: also the address that the process calls it by
using Stream = void*;                  ///< CUstream; null: the default stream

// Layouts and numbers of CUDA's ABI, under CUDA's names where it has some.
struct MemLocation {
  int type = 1;  // CU_MEM_LOCATION_TYPE_DEVICE
  int id = 0;
};
struct AllocationProp {
  int type = 1;          // CU_MEM_ALLOCATION_TYPE_PINNED
  int handle_types = 0;  // 1: CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
  MemLocation location{};
  void* win32_metadata = nullptr;
  unsigned char compression = 0, rdma_capable = 0;
  unsigned short usage = 0;
  unsigned char reserved[4] = {};
};
struct AccessDesc {
  MemLocation location{};
  int flags = 3;  // CU_MEM_ACCESS_FLAGS_PROT_READWRITE
};
enum class DeviceAttribute : int {
  unified_addressing = 41,
  virtual_memory_management = 102,
  posix_descriptors = 103,
  rdma_with_virtual_memory = 110,
};
inline constexpr int kPosixDescriptor = 1;    // CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
inline constexpr unsigned kHostPortable = 1;  // CU_MEMHOSTALLOC_PORTABLE, CU_MEMHOSTREGISTER_PORTABLE
inline constexpr unsigned kHostMapped = 2;    // ..._DEVICEMAP
inline constexpr int kPointerMemoryType = 2;  // CU_POINTER_ATTRIBUTE_MEMORY_TYPE: 1 host, 2 device
inline constexpr Status kDeinitialized = 4, kAlreadyRegistered = 712, kNotRegistered = 713;
inline constexpr Status kContextDestroyed = 709;

// name here, name in the library, arguments
#define EXTMEM_CUDA_CALLS(X)                                                                               \
  X(init, "cuInit", (unsigned flags))                                                                      \
  X(driver_version, "cuDriverGetVersion", (int* version))                                                  \
  X(device_count, "cuDeviceGetCount", (int* count))                                                        \
  X(device_get, "cuDeviceGet", (int* device, int ordinal))                                                 \
  X(device_name, "cuDeviceGetName", (char* name, int length, int device))                                  \
  X(device_attribute, "cuDeviceGetAttribute", (int* value, DeviceAttribute attribute, int device))         \
  X(device_memory, "cuDeviceTotalMem_v2", (std::size_t * bytes, int device))                               \
  X(context_retain, "cuDevicePrimaryCtxRetain", (void** context, int device))                              \
  X(context_release, "cuDevicePrimaryCtxRelease_v2", (int device))                                         \
  X(context_push, "cuCtxPushCurrent_v2", (void* context))                                                  \
  X(context_pop, "cuCtxPopCurrent_v2", (void** context))                                                   \
  X(mem_alloc, "cuMemAlloc_v2", (DevicePtr * p, std::size_t bytes))                                        \
  X(mem_free, "cuMemFree_v2", (DevicePtr p))                                                               \
  X(mem_alloc_async, "cuMemAllocAsync", (DevicePtr * p, std::size_t bytes, Stream stream))                 \
  X(mem_free_async, "cuMemFreeAsync", (DevicePtr p, Stream stream))                                        \
  X(host_alloc, "cuMemHostAlloc", (void** p, std::size_t bytes, unsigned flags))                           \
  X(host_free, "cuMemFreeHost", (void* p))                                                                 \
  X(host_register, "cuMemHostRegister_v2", (void* p, std::size_t bytes, unsigned flags))                   \
  X(host_unregister, "cuMemHostUnregister", (void* p))                                                     \
  X(pointer_attribute, "cuPointerGetAttribute", (void* value, int attribute, DevicePtr p))                 \
  X(copy_in, "cuMemcpyHtoD_v2", (DevicePtr to, const void* from, std::size_t bytes))                       \
  X(copy_out, "cuMemcpyDtoH_v2", (void* to, DevicePtr from, std::size_t bytes))                            \
  X(copy_inside, "cuMemcpyDtoDAsync_v2", (DevicePtr to, DevicePtr from, std::size_t bytes, Stream stream)) \
  X(copy_in_async, "cuMemcpyHtoDAsync_v2",                                                                 \
    (DevicePtr to, const void* from, std::size_t bytes, Stream stream))                                    \
  X(copy_out_async, "cuMemcpyDtoHAsync_v2", (void* to, DevicePtr from, std::size_t bytes, Stream stream))  \
  X(set_bytes, "cuMemsetD8Async", (DevicePtr to, unsigned char byte, std::size_t count, Stream stream))    \
  X(set_words, "cuMemsetD32Async", (DevicePtr to, unsigned word, std::size_t count, Stream stream))        \
  X(stream_create, "cuStreamCreate", (Stream * stream, unsigned flags))                                    \
  X(stream_destroy, "cuStreamDestroy_v2", (Stream stream))                                                 \
  X(stream_synchronize, "cuStreamSynchronize", (Stream stream))                                            \
  X(launch_host, "cuLaunchHostFunc", (Stream stream, void (*function)(void*), void* argument))             \
  X(granularity, "cuMemGetAllocationGranularity",                                                          \
    (std::size_t * bytes, const AllocationProp* prop, int option))                                         \
  X(address_reserve, "cuMemAddressReserve",                                                                \
    (DevicePtr * p, std::size_t bytes, std::size_t align, DevicePtr wanted, unsigned long long flags))     \
  X(address_free, "cuMemAddressFree", (DevicePtr p, std::size_t bytes))                                    \
  X(mem_create, "cuMemCreate",                                                                             \
    (unsigned long long* handle, std::size_t bytes, const AllocationProp* prop, unsigned long long flags)) \
  X(mem_release, "cuMemRelease", (unsigned long long handle))                                              \
  X(mem_map, "cuMemMap",                                                                                   \
    (DevicePtr p, std::size_t bytes, std::size_t offset, unsigned long long handle,                        \
     unsigned long long flags))                                                                            \
  X(mem_unmap, "cuMemUnmap", (DevicePtr p, std::size_t bytes))                                             \
  X(set_access, "cuMemSetAccess",                                                                          \
    (DevicePtr p, std::size_t bytes, const AccessDesc* who, std::size_t count))                            \
  X(export_handle, "cuMemExportToShareableHandle",                                                         \
    (void* to, unsigned long long handle, int type, unsigned long long flags))                             \
  X(import_handle, "cuMemImportFromShareableHandle", (unsigned long long* handle, void* descriptor, int type))

/// The functions. Each answers a Status, 0 for success.
struct Driver {
#define EXTMEM_CUDA_MEMBER(name, symbol, arguments) Status(*name) arguments = nullptr;
  EXTMEM_CUDA_CALLS(EXTMEM_CUDA_MEMBER)
#undef EXTMEM_CUDA_MEMBER
};

namespace detail {

inline constexpr ErrorInfo kNoLibrary{
    ENOENT,
    "libcuda.so.1 cannot be loaded: it comes with NVIDIA's driver, and in a "
    "container with NVIDIA's container toolkit"};
inline constexpr ErrorInfo kOldLibrary{
    ENOSYS, "libcuda.so.1 lacks a function: install a driver for CUDA 11.2 or newer"};

struct StatusError {
  Status status;
  ErrorInfo info;
};
inline constexpr StatusError kStatusErrors[] = {
    {1, {EINVAL, "CUDA refused an argument (CUDA_ERROR_INVALID_VALUE)"}},
    {2,
     {ENOMEM,
      "CUDA has not that much memory free (CUDA_ERROR_OUT_OF_MEMORY): ask for less, or see nvidia-smi"}},
    {3, {ENODEV, "CUDA is not initialized in this process, or in this child of a fork: exec first"}},
    {kDeinitialized, {ESHUTDOWN, "CUDA is shut down in this process, which is ending"}},
    {46, {EBUSY, "the GPU is taken, or in a mode that refuses this process (CUDA_ERROR_DEVICE_UNAVAILABLE)"}},
    {100, {ENODEV, "CUDA finds no GPU (CUDA_ERROR_NO_DEVICE): see nvidia-smi and CUDA_VISIBLE_DEVICES"}},
    {101, {ENODEV, "there is no GPU of that number (CUDA_ERROR_INVALID_DEVICE)"}},
    {201, {EINVAL, "no CUDA context, or one that was destroyed (CUDA_ERROR_INVALID_CONTEXT)"}},
    {700,
     {EFAULT, "work on the GPU used a bad address before (CUDA_ERROR_ILLEGAL_ADDRESS): the context is lost"}},
    {kContextDestroyed, {ESHUTDOWN, "the CUDA context was destroyed"}},
    {kAlreadyRegistered, {EEXIST, "CUDA has pinned that memory already, or part of it"}},
    {kNotRegistered, {ENOENT, "CUDA has not pinned that memory"}},
    {800,
     {EPERM, "CUDA permits this not here (CUDA_ERROR_NOT_PERMITTED): in a function that a stream runs, say"}},
    {801, {ENOTSUP, "this GPU, driver or kind of memory cannot do that (CUDA_ERROR_NOT_SUPPORTED)"}},
    {803, {ENOSYS, "the driver's kernel module and libcuda.so.1 are of different versions"}},
};
inline constexpr ErrorInfo kOtherStatus{EIO,
                                        "a call of CUDA's driver failed: cuda::last_status() has its code"};

inline Status& last_status() noexcept {
  static thread_local Status status = 0;
  return status;
}

struct Loaded {
  Driver driver{};
  Error error{};
  Loaded() noexcept {
    void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) {
      error = Error(&kNoLibrary);
      return;
    }
#define EXTMEM_CUDA_LOAD(name, symbol, arguments)                                  \
  driver.name = reinterpret_cast<decltype(driver.name)>(::dlsym(library, symbol)); \
  if (driver.name == nullptr) error = Error(&kOldLibrary);
    EXTMEM_CUDA_CALLS(EXTMEM_CUDA_LOAD)
#undef EXTMEM_CUDA_LOAD
  }
};

}  // namespace detail
#undef EXTMEM_CUDA_CALLS

/// The CUresult of this thread's last call that failed.
inline Status last_status() noexcept { return detail::last_status(); }

/// Success, or the error that a status means.
inline Result<void> check(Status status) noexcept {
  if (status == 0) return {};
  detail::last_status() = status;
  for (const detail::StatusError& known : detail::kStatusErrors)
    if (known.status == status) return Error(&known.info);
  return Error(&detail::kOtherStatus);
}

/// The driver, loaded at the first call and never unloaded.
/// Errors: ENOENT there is none on this machine; ENOSYS it is older than CUDA 11.2.
inline Result<const Driver*> driver() noexcept {
  static const detail::Loaded loaded;
  if (loaded.error) return loaded.error;
  return &loaded.driver;
}

}  // namespace extmem::cuda
