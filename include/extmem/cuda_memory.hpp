// A GPU, and memory of CUDA's that heaps can be given. Part of extmem/cuda.hpp, which says what all of it is for.
//
// Thread-safety: every function of a Gpu may be called by any thread; one thread at a time makes, moves or frees one Memory.
// Invariants:
//  1. Every call finds the GPU's context current, whichever thread makes it, and leaves the thread's own as it was.
//  2. A Memory frees what it has allocated, mapped and reserved, and nothing else.
#pragma once

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <utility>

#include "extmem/cuda_driver.hpp"
#include "extmem/types.hpp"

namespace extmem::cuda {

inline DevicePtr device_ptr(const void* p) noexcept { return reinterpret_cast<std::uintptr_t>(p); }

namespace detail {

inline constexpr ErrorInfo kNotOpen{EINVAL, "the Gpu is not open: get one from Gpu::open"};
inline constexpr ErrorInfo kNotUnified{
    ENOTSUP, "this GPU has no unified addressing, without which no pointer is a DevicePtr"};
inline constexpr ErrorInfo kNoLength{EINVAL, "the length is zero"};
inline constexpr ErrorInfo kNotShareable{
    ENOTSUP,
    "this GPU or its driver cannot share memory by descriptors: virtual memory management is missing"};
inline constexpr ErrorInfo kBadDescriptor{EBADF, "the descriptor of the GPU's memory is not open"};
inline constexpr ErrorInfo kNoDescriptor{EMFILE, "no descriptor is left for the GPU's memory"};
inline constexpr ErrorInfo kNothingToExport{
    ENOTSUP, "only shareable and imported memory has a descriptor for other processes"};
inline constexpr ErrorInfo kNoPlace{
    EADDRINUSE, "the GPU's driver gave no address that is congruent to the other process' modulo 1 GiB"};

}  // namespace detail

/// A GPU, through its primary context: the one that CUDA's runtime API and the libraries over it use.
class Gpu {
 public:
  /// Errors: those of driver(); ENODEV no GPU, or none of that number; ENOTSUP it has no unified addressing; EBUSY.
  static Result<Gpu> open(int ordinal = 0) noexcept {
    auto loaded = cuda::driver();
    if (!loaded) return loaded.error();
    Gpu gpu;
    const Driver& call = **loaded;
    if (auto r = check(call.init(0)); !r) return r.error();
    if (auto r = check(call.device_get(&gpu.device_, ordinal)); !r) return r.error();
    gpu.driver_ = &call;
    if (!gpu.has(DeviceAttribute::unified_addressing)) return Error(&detail::kNotUnified);
    if (auto r = check(call.context_retain(&gpu.context_, gpu.device_)); !r) return r.error();
    return gpu;
  }

  Gpu() noexcept = default;
  Gpu(Gpu&& other) noexcept { *this = std::move(other); }
  Gpu& operator=(Gpu&& other) noexcept {
    std::swap(driver_, other.driver_);
    std::swap(context_, other.context_);
    std::swap(device_, other.device_);
    return *this;
  }
  Gpu(const Gpu&) = delete;
  ~Gpu() {
    if (context_ != nullptr) (void)driver_->context_release(device_);
  }
  [[nodiscard]] explicit operator bool() const noexcept { return context_ != nullptr; }
  /// For calls that are not here. Requires: open.
  [[nodiscard]] const Driver& driver() const noexcept { return *driver_; }
  [[nodiscard]] int device() const noexcept { return device_; }
  [[nodiscard]] bool has(DeviceAttribute attribute) const noexcept {
    int value = 0;
    return driver_ != nullptr && driver_->device_attribute(&value, attribute, device_) == 0 && value != 0;
  }
  /// Its name, "" where it has none.
  [[nodiscard]] std::array<char, 128> name() const noexcept {
    std::array<char, 128> text{};
    if (driver_ != nullptr)
      (void)driver_->device_name(text.data(), static_cast<int>(text.size()) - 1, device_);
    return text;
  }

  /// Makes the GPU's context this thread's current one, until the end of the scope: CUDA's calls need that.
  class Current {
   public:
    explicit Current(const Gpu& gpu) noexcept : gpu_(gpu) {
      status_ = gpu ? check(gpu.driver_->context_push(gpu.context_)) : Error(&detail::kNotOpen);
    }
    Current(const Current&) = delete;
    ~Current() {
      void* popped = nullptr;
      if (status_) (void)gpu_.driver_->context_pop(&popped);
    }
    [[nodiscard]] explicit operator bool() const noexcept { return status_.ok(); }
    [[nodiscard]] Error error() const noexcept { return status_.error(); }

   private:
    const Gpu& gpu_;
    Result<void> status_;
  };

  /// Runs `call`, which makes calls of CUDA's and answers the last Status, in the GPU's context.
  template <typename Call>
  Result<void> run(const Call& call) const noexcept {
    const Current current(*this);
    if (!current) return current.error();
    return check(call(*driver_));
  }

  // Waiting: when they return, all is done. Either side may be this process' view of a GPU's memory or pinned memory.
  Result<void> copy_in(void* to, const void* from, std::size_t bytes) const noexcept {
    return run([&](const Driver& d) { return d.copy_in(device_ptr(to), from, bytes); });
  }
  Result<void> copy_out(void* to, const void* from, std::size_t bytes) const noexcept {
    return run([&](const Driver& d) { return d.copy_out(to, device_ptr(from), bytes); });
  }
  /// Inside the GPU's memory. The two must not overlap.
  Result<void> copy(void* to, const void* from, std::size_t bytes) const noexcept {
    return run([&](const Driver& d) {
      const Status copied = d.copy_inside(device_ptr(to), device_ptr(from), bytes, nullptr);
      return copied != 0 ? copied : d.stream_synchronize(nullptr);
    });
  }
  Result<void> fill(void* to, unsigned char byte, std::size_t bytes) const noexcept {
    return run([&](const Driver& d) {
      const Status set = d.set_bytes(device_ptr(to), byte, bytes, nullptr);
      return set != 0 ? set : d.stream_synchronize(nullptr);
    });
  }

 private:
  const Driver* driver_ = nullptr;
  void* context_ = nullptr;
  int device_ = 0;
};

/// How GPU memory is given to a heap, whoever has allocated it: cudaMalloc, a framework, another allocator's pool.
inline RegionSpec device_region(void* base, std::size_t length) noexcept {
  RegionSpec spec;
  spec.base = base;
  spec.length = length;
  // The GPU's pages are of 2 MiB where base and length allow it.
  const int shift = std::countr_zero(reinterpret_cast<std::uintptr_t>(base) | length);
  spec.os_page_size = std::size_t{1} << std::clamp(shift, 6, 21);
  spec.iova_source = IovaSource::identity;
  spec.cpu_accessible = false;
  return spec;
}

/// Memory of CUDA's that this object owns. Add it to a heap with spec(); it goes when the object does, after its region.
class Memory {
 public:
  /// A GPU's memory, of this process alone (cuMemAlloc). The length is rounded up to 2 MiB.
  static Result<Memory> device(const Gpu& gpu, std::size_t length) noexcept {
    if (length == 0) return Error(&detail::kNoLength);
    Memory memory(gpu, Kind::device, round_up(length, kGpuPage));
    DevicePtr p = 0;
    if (auto r = gpu.run([&](const Driver& d) { return d.mem_alloc(&p, memory.length_); }); !r)
      return r.error();
    memory.base_ = p;
    return memory;
  }
  /// Pinned memory of the host that CUDA allocates (cuMemHostAlloc): CPU and GPUs reach it at one address.
  static Result<Memory> host(const Gpu& gpu, std::size_t length) noexcept {
    if (length == 0) return Error(&detail::kNoLength);
    Memory memory(gpu, Kind::host, round_up(length, 4096));
    void* p = nullptr;
    if (auto r = gpu.run(
            [&](const Driver& d) { return d.host_alloc(&p, memory.length_, kHostPortable | kHostMapped); });
        !r)
      return r.error();
    memory.base_ = device_ptr(p);
    return memory;
  }
  /// A GPU's memory that other processes can import. It lives as long as one of them has it mapped or holds a descriptor, also
  /// when this process is killed. The length is rounded up to the GPU's granularity, 2 MiB.
  static Result<Memory> shareable(const Gpu& gpu, std::size_t length) noexcept {
    if (length == 0) return Error(&detail::kNoLength);
    const AllocationProp prop = shareable_prop(gpu);
    std::size_t granularity = 0;
    if (!shares(gpu)) return Error(&detail::kNotShareable);
    if (auto r = gpu.run([&](const Driver& d) { return d.granularity(&granularity, &prop, 0); }); !r)
      return r.error();
    Memory memory(gpu, Kind::shareable, round_up(length, std::max(granularity, kGpuPage)));
    if (auto r =
            gpu.run([&](const Driver& d) { return d.mem_create(&memory.handle_, memory.length_, &prop, 0); });
        !r)
      return r.error();
    memory.has_handle_ = true;
    if (auto r = memory.map(0); !r) return r.error();
    return memory;
  }
  /// The same memory in another process: `fd` is what somebody's export_fd() gave, `length` and `adder_base` are the region's
  /// (RegionInfo). Give base() to Domain::attach_region. `fd` stays the caller's.
  static Result<Memory> imported(const Gpu& gpu, int fd, std::size_t length,
                                 const void* adder_base) noexcept {
    if (length == 0) return Error(&detail::kNoLength);
    if (!shares(gpu)) return Error(&detail::kNotShareable);
    Memory memory(gpu, Kind::imported, length);
    memory.descriptor_ = ::fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (memory.descriptor_ < 0)
      return Error(errno == EBADF ? &detail::kBadDescriptor : &detail::kNoDescriptor);
    void* const descriptor = reinterpret_cast<void*>(static_cast<std::intptr_t>(fd));
    if (auto r = gpu.run(
            [&](const Driver& d) { return d.import_handle(&memory.handle_, descriptor, kPosixDescriptor); });
        !r)
      return r.error();
    memory.has_handle_ = true;
    if (auto r = memory.map(device_ptr(adder_base)); !r) return r.error();
    return memory;
  }

  Memory() noexcept = default;
  Memory(Memory&& other) noexcept { *this = std::move(other); }
  Memory& operator=(Memory&& other) noexcept {
    std::swap(gpu_, other.gpu_);
    std::swap(kind_, other.kind_);
    std::swap(length_, other.length_);
    std::swap(base_, other.base_);
    std::swap(handle_, other.handle_);
    std::swap(descriptor_, other.descriptor_);
    std::swap(has_handle_, other.has_handle_);
    std::swap(mapped_, other.mapped_);
    std::swap(reserved_, other.reserved_);
    std::swap(reserved_bytes_, other.reserved_bytes_);
    return *this;
  }
  Memory(const Memory&) = delete;
  ~Memory() { (void)free(); }

  [[nodiscard]] void* base() const noexcept {
    return reinterpret_cast<void*>(static_cast<std::uintptr_t>(base_));
  }
  [[nodiscard]] std::size_t length() const noexcept { return length_; }
  /// For Domain::add_region. The IOVAs of memory that processes share are not told: each GPU context has its own.
  [[nodiscard]] RegionSpec spec() const noexcept {
    RegionSpec spec = device_region(base(), length_);
    if (kind_ == Kind::host) {
      spec.os_page_size = 4096;
      spec.cpu_accessible = true;
    }
    if (kind_ == Kind::shareable || kind_ == Kind::imported) spec.iova_source = IovaSource::table;
    return spec;
  }
  /// A descriptor of the memory, to be sent to another process (SCM_RIGHTS); the caller closes it. Whoever has imported the
  /// memory can hand it on, too, whether or not the process that allocated it still lives.
  /// Errors: ENOTSUP memory that is neither shareable nor imported; EMFILE; what CUDA answers.
  Result<int> export_fd() const noexcept {
    if (kind_ != Kind::shareable && kind_ != Kind::imported) return Error(&detail::kNothingToExport);
    int fd = -1;
    if (kind_ == Kind::imported) {
      fd = ::fcntl(descriptor_, F_DUPFD_CLOEXEC, 0);
      if (fd < 0) return Error(&detail::kNoDescriptor);
    } else if (auto r = gpu_->run(
                   [&](const Driver& d) { return d.export_handle(&fd, handle_, kPosixDescriptor, 0); });
               !r) {
      return r.error();
    }
    return fd;
  }
  /// Gives it back now. Requires: it is in no region of this process any more, and no work on the GPU uses it.
  Result<void> free() noexcept {
    Result<void> first;
    const auto step = [&](auto call) {
      auto r = gpu_->run(call);
      if (first && !r) first = r;
    };
    if (kind_ == Kind::device && base_ != 0) step([&](const Driver& d) { return d.mem_free(base_); });
    if (kind_ == Kind::host && base_ != 0) step([&](const Driver& d) { return d.host_free(base()); });
    if (mapped_) step([&](const Driver& d) { return d.mem_unmap(base_, length_); });
    if (reserved_ != 0) step([&](const Driver& d) { return d.address_free(reserved_, reserved_bytes_); });
    if (has_handle_) step([&](const Driver& d) { return d.mem_release(handle_); });
    if (descriptor_ >= 0) (void)::close(descriptor_);
    kind_ = Kind::none;
    descriptor_ = -1;
    base_ = reserved_ = 0;
    mapped_ = has_handle_ = false;
    return first;
  }

 private:
  enum class Kind : std::uint8_t { none, device, host, shareable, imported };
  static constexpr std::size_t kGpuPage = std::size_t{2} << 20;
  static constexpr std::size_t kCongruence = std::size_t{1} << 30;  // Domain::attach_region asks for it

  Memory(const Gpu& gpu, Kind kind, std::size_t length) noexcept : gpu_(&gpu), kind_(kind), length_(length) {}
  static constexpr std::size_t round_up(std::size_t n, std::size_t unit) noexcept {
    return n > ~std::size_t{0} - unit ? n : (n + unit - 1) / unit * unit;  // CUDA refuses the absurd
  }
  static bool shares(const Gpu& gpu) noexcept {
    return gpu.has(DeviceAttribute::virtual_memory_management) && gpu.has(DeviceAttribute::posix_descriptors);
  }
  static AllocationProp shareable_prop(const Gpu& gpu) noexcept {
    AllocationProp prop;
    prop.handle_types = kPosixDescriptor;
    prop.location.id = gpu.device();
    prop.rdma_capable = gpu.has(DeviceAttribute::rdma_with_virtual_memory) ? 1 : 0;
    return prop;
  }
  /// Maps the handle's memory: at `like`, or congruent to it modulo 1 GiB; where CUDA likes if that is 0.
  Result<void> map(DevicePtr like) noexcept {
    const auto reserve = [&](std::size_t bytes, DevicePtr wanted) {
      reserved_bytes_ = bytes;
      auto r = gpu_->run([&](const Driver& d) { return d.address_reserve(&reserved_, bytes, 0, wanted, 0); });
      if (!r) reserved_ = 0;
      return r;
    };
    auto place = reserve(length_, like);
    if (place) base_ = reserved_;
    if (place && like != 0 && (base_ - like) % kCongruence != 0) {
      (void)gpu_->run([&](const Driver& d) { return d.address_free(reserved_, reserved_bytes_); });
      place = reserve(length_ + kCongruence, 0);
      base_ = reserved_ + (like - reserved_) % kCongruence;
    }
    if (!place) return place;
    if (like != 0 && (base_ - like) % kCongruence != 0) return Error(&detail::kNoPlace);
    auto done = gpu_->run([&](const Driver& d) { return d.mem_map(base_, length_, 0, handle_, 0); });
    if (!done) return done;
    mapped_ = true;
    AccessDesc access;
    access.location.id = gpu_->device();
    return gpu_->run([&](const Driver& d) { return d.set_access(base_, length_, &access, 1); });
  }

  const Gpu* gpu_ = nullptr;
  Kind kind_ = Kind::none;
  std::size_t length_ = 0;
  DevicePtr base_ = 0;
  unsigned long long handle_ = 0;
  int descriptor_ = -1;  // imported: what it was imported from
  bool has_handle_ = false, mapped_ = false;
  DevicePtr reserved_ = 0;
  std::size_t reserved_bytes_ = 0;
};

}  // namespace extmem::cuda
