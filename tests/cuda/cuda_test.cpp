// extmem/cuda.hpp on a libcuda.so.1 without a GPU (fake_libcuda.cpp), whose memory is PROT_NONE for everybody but its copies.
#include "extmem/cuda.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <string>
#include <thread>
#include <vector>

#include "contract/runtime_directory.hpp"
#include "cuda/fixture.hpp"
#include "extmem/extmem.hpp"

namespace extmem::cuda {
namespace {

TEST_F(Cuda, OpenSaysWhatIsMissing) {
  EXPECT_EQ(Gpu::open(7).error().code(), ENODEV);
  {
    const Failing none("cuInit", 100);
    const auto gpu = Gpu::open();
    EXPECT_EQ(gpu.error().code(), ENODEV);
    EXPECT_EQ(last_status(), 100);
    EXPECT_NE(std::strstr(gpu.error().message(), "CUDA_VISIBLE_DEVICES"), nullptr);
  }
  const Failing odd("cuDevicePrimaryCtxRetain", 12345);
  EXPECT_EQ(Gpu::open().error().code(), EIO) << "a status that nobody knows is no success";
  EXPECT_EQ(last_status(), 12345);
  const Gpu closed;
  EXPECT_EQ(closed.fill(this, 0, 1).error().code(), EINVAL);
  EXPECT_EQ(Memory::device(closed, kMiB).error().code(), EINVAL);
}

TEST_F(Cuda, EveryCallFindsItsContextInAnyThread) {
  auto memory = Memory::device(gpu_, kMiB);
  ASSERT_TRUE(memory.ok());
  std::thread([&] { EXPECT_TRUE(gpu_.fill(memory->base(), 1, 10).ok()); }).join();
  unsigned word = 0;
  EXPECT_EQ(gpu_.driver().copy_out(&word, device_ptr(memory->base()), 4), 201) << "and leaves none behind";
}

TEST_F(Cuda, AHeapNeverTouchesTheGpusMemory) {
  for (const Style style : {Style::binned, Style::exact}) {
    domain_ = domain();
    auto memory = Memory::device(gpu_, 16 * kMiB);
    ASSERT_TRUE(memory.ok());
    ASSERT_TRUE(gpu_.fill(memory->base(), 0x5a, memory->length()).ok());
    Heap heap = heap_on(*memory, style);
    // In three threads: each access by the CPU would end the program.
    const auto churn = [&](unsigned seed) {
      std::vector<void*> live;
      for (unsigned i = 0; i < 4000; ++i) {
        seed = seed * 1664525 + 1013904223;
        if (live.size() < 50 || seed % 2 == 0) {
          if (auto p = heap.allocate(1 + (seed >> 8) % (i % 20 == 0 ? 200'000 : 3000))) live.push_back(*p);
        } else {
          std::swap(live[(seed >> 8) % live.size()], live.back());
          EXPECT_TRUE(heap.deallocate(live.back()).ok());
          live.pop_back();
        }
      }
      EXPECT_TRUE(heap.deallocate_batch(live).ok());
    };
    std::vector<std::thread> threads;
    for (unsigned t = 1; t <= 3; ++t) threads.emplace_back(churn, t);
    for (std::thread& thread : threads) thread.join();
    EXPECT_TRUE(heap.flush().ok());
    EXPECT_EQ(*domain_.verify(), 0u);
    for (const unsigned char byte : content(memory->base(), memory->length())) ASSERT_EQ(byte, 0x5a);
    domain_ = Domain();
  }
}

TEST_F(Cuda, WhatTheCpuCannotDoTheGpuDoes) {
  auto memory = Memory::device(gpu_, 4 * kMiB);
  ASSERT_TRUE(memory.ok());
  ASSERT_TRUE(gpu_.fill(memory->base(), 0xff, memory->length()).ok());
  Heap heap = heap_on(*memory);
  const Tag tag = *domain_.intern_tag("weights");
  EXPECT_EQ(heap.zalloc(100).error().code(), ENOTSUP);
  AllocOptions zero;
  zero.zero = true;
  EXPECT_EQ(domain_.reserve_memzone(heap, "z", 100, zero).error().code(), ENOTSUP);
  AllocOptions tagged;
  tagged.tag = tag;
  auto p = zalloc(gpu_, heap, 1001, tagged);
  ASSERT_TRUE(p.ok());
  EXPECT_EQ(content(*p, 1001), std::vector<unsigned char>(1001, 0));
  ASSERT_TRUE(gpu_.fill(*p, 9, 1001).ok());
  EXPECT_EQ(heap.reallocate(*p, 50'000).error().code(), ENOTSUP);
  auto moved = reallocate(gpu_, heap, *p, 50'000);
  ASSERT_TRUE(moved.ok());
  EXPECT_NE(*moved, *p);
  EXPECT_EQ(content(*moved, 1001), std::vector<unsigned char>(1001, 9));
  EXPECT_EQ(heap.owner_of(*moved)->tag, tag) << "as Heap::reallocate keeps it";
  EXPECT_FALSE(heap.owner_of(*p)->held);
  EXPECT_EQ(*reallocate(gpu_, heap, *moved, 50'001), *moved) << "where it is, where it can";
  EXPECT_EQ(reallocate(gpu_, heap, *moved, 10, zero).error().code(), ENOTSUP);
  EXPECT_EQ(reallocate(gpu_, heap, *p, 60'000).error().code(), EALREADY);
  EXPECT_EQ(reallocate(gpu_, heap, *moved, 64 * kMiB).error().code(), ENOMEM);
  {
    const Failing failing("cuMemcpyDtoDAsync_v2", 700);
    EXPECT_EQ(reallocate(gpu_, heap, *moved, 200'000).error().code(), EFAULT);
  }
  {
    const Failing failing("cuMemsetD8Async", 1);
    EXPECT_EQ(zalloc(gpu_, heap, 64).error().code(), EINVAL);
  }
  EXPECT_TRUE(heap.owner_of(*moved)->held) << "as it was";
  EXPECT_EQ(heap.stats()->used_count, 1u) << "and nothing else is held";
  EXPECT_TRUE(heap.deallocate(*moved).ok());
  domain_ = Domain();
}

TEST_F(Cuda, FreesWhenTheStreamHasPassed) {
  auto memory = Memory::device(gpu_, 4 * kMiB);
  ASSERT_TRUE(memory.ok());
  Heap heap = heap_on(*memory);
  std::vector<void*> objects;
  for (int i = 0; i < 40; ++i) objects.push_back(*heap.allocate(1000));
  EXPECT_TRUE(deallocate_after(gpu_, nullptr, heap, objects[0]).ok());
  EXPECT_EQ(deallocate_after(gpu_, nullptr, heap, objects[0]).error().code(), EALREADY);
  EXPECT_EQ(deallocate_after(gpu_, nullptr, heap, this).error().code(), EFAULT);
  EXPECT_TRUE(deallocate_after(gpu_, nullptr, heap, std::span<void* const>()).ok());
  void* array[] = {objects[1], objects[2]};
  EXPECT_TRUE(deallocate_after(gpu_, nullptr, heap, array).ok()) << "an array is no object";
  const std::span<void* const> rest(objects.data() + 3, 37);
  {
    const Failing failing("cuLaunchHostFunc", 801);
    EXPECT_EQ(deallocate_after(gpu_, nullptr, heap, rest).error().code(), ENOTSUP);
  }
  EXPECT_EQ(heap.stats()->used_count, 37u);
  EXPECT_TRUE(deallocate_after(gpu_, nullptr, heap, rest).ok());
  EXPECT_EQ(heap.stats()->used_count, 0u);
  domain_ = Domain();
}

TEST_F(Cuda, DescribesMemoryOfOthers) {
  const auto at = [](std::uintptr_t base, std::size_t length) {
    return device_region(reinterpret_cast<void*>(base), length);
  };
  EXPECT_EQ(at(0x700000000000, 64 * kMiB).os_page_size, 2 * kMiB);
  EXPECT_EQ(at(0x700000010000, 64 * kMiB).os_page_size, 65536u);
  EXPECT_EQ(at(0x700000000200, 0x300).os_page_size, 256u);
  const RegionSpec spec = at(0x700000000000, 2 * kMiB);
  EXPECT_FALSE(spec.cpu_accessible);
  EXPECT_EQ(spec.iova_source, IovaSource::identity);
  Heap heap = *domain_.create_heap("h");
  EXPECT_EQ(domain_.add_region(heap, at(0x700000000001, 100)).error().code(), EINVAL);
  EXPECT_TRUE(domain_.add_region(heap, at(0x700000000000, 2 * kMiB)).ok());
}

TEST_F(Cuda, MemoryGivesBackWhatItGotSoFar) {
  EXPECT_EQ(Memory::device(gpu_, 0).error().code(), EINVAL);
  EXPECT_EQ(Memory::host(gpu_, 0).error().code(), EINVAL);
  EXPECT_EQ(Memory::shareable(gpu_, 0).error().code(), EINVAL);
  EXPECT_EQ(Memory::device(gpu_, std::size_t{1} << 50).error().code(), ENOMEM);
  EXPECT_EQ(Memory::device(gpu_, ~std::size_t{0}).error().code(), ENOMEM);
  for (const char* call : {"cuMemGetAllocationGranularity", "cuMemCreate", "cuMemAddressReserve", "cuMemMap",
                           "cuMemSetAccess"}) {
    const Failing failing(call, 801);
    EXPECT_EQ(Memory::shareable(gpu_, kMiB).error().code(), ENOTSUP) << call;
    EXPECT_EQ(ranges(), 0u) << call;
  }
  {
    const Failing failing("cuDeviceGetAttribute", 1);
    EXPECT_EQ(Memory::shareable(gpu_, kMiB).error().code(), ENOTSUP);
    EXPECT_EQ(Memory::imported(gpu_, 0, kMiB, nullptr).error().code(), ENOTSUP);
  }
  auto memory = Memory::device(gpu_, 3 * kMiB);
  ASSERT_TRUE(memory.ok());
  EXPECT_EQ(memory->length(), 4 * kMiB) << "whole pages of the GPU's";
  EXPECT_EQ(memory->export_fd().error().code(), ENOTSUP);
  Memory other = std::move(*memory);
  EXPECT_EQ(memory->base(), nullptr);
  EXPECT_TRUE(other.free().ok());
  EXPECT_TRUE(other.free().ok()) << "a second time there is nothing";
}

TEST_F(Cuda, SharedMemoryOutlivesItsMakerAtACongruentAddress) {
  auto memory = Memory::shareable(gpu_, 6 * kMiB);
  ASSERT_TRUE(memory.ok()) << memory.error().message();
  const auto fd = memory->export_fd();
  ASSERT_TRUE(fd.ok());
  ASSERT_TRUE(gpu_.fill(memory->base(), 0x33, memory->length()).ok());
  void* const maker_had_it_at = memory->base();
  EXPECT_EQ(memory->spec().iova_source, IovaSource::table)
      << "each process' GPU context has its own addresses";
  ASSERT_TRUE(memory->free().ok());
  for (const bool elsewhere : {false, true}) {
    fake<void(bool)>("fake_cuda_map_elsewhere")(elsewhere);
    auto imported = Memory::imported(gpu_, *fd, 6 * kMiB, maker_had_it_at);
    ASSERT_TRUE(imported.ok()) << imported.error().message();
    const auto distance = device_ptr(imported->base()) - device_ptr(maker_had_it_at);
    EXPECT_EQ(distance % (1024 * kMiB), 0u);
    EXPECT_EQ(content(imported->base(), 6 * kMiB), std::vector<unsigned char>(6 * kMiB, 0x33));
    // Handed on by one that has imported it.
    const auto again = imported->export_fd();
    ASSERT_TRUE(again.ok()) << again.error().message();
    EXPECT_TRUE(imported->free().ok());
    auto second = Memory::imported(gpu_, *again, 6 * kMiB, maker_had_it_at);
    ::close(*again);
    ASSERT_TRUE(second.ok()) << second.error().message();
    EXPECT_EQ(content(second->base(), 100), std::vector<unsigned char>(100, 0x33));
  }
  fake<void(bool)>("fake_cuda_map_elsewhere")(false);
  {
    const Failing failing("cuMemImportFromShareableHandle", 1);
    EXPECT_EQ(Memory::imported(gpu_, *fd, 6 * kMiB, maker_had_it_at).error().code(), EINVAL);
  }
  EXPECT_EQ(Memory::imported(gpu_, -1, 6 * kMiB, nullptr).error().code(), EBADF);
  EXPECT_EQ(Memory::imported(gpu_, *fd, 64 * kMiB, nullptr).error().code(), EINVAL) << "longer than it is";
  ::close(*fd);
}

// ---- Attachment ------------------------------------------------------------------------------------------------------

TEST_F(Cuda, AttachmentPinsRegionsAsTheyComeAndGo) {
  HeapOptions growing;
  growing.growth.step = kMiB;
  growing.growth.limit = 8 * kMiB;
  Heap heap = *domain_.create_heap("grows", growing);
  Heap other = *domain_.create_heap("other");
  BackingSpec backing;
  backing.length = kMiB;
  ASSERT_TRUE(domain_.add_backing(heap, backing).ok());
  ASSERT_TRUE(domain_.add_backing(other, backing).ok());
  {
    Attachment only;
    ASSERT_TRUE(only.attach(domain_, gpu_, other).ok());
    EXPECT_EQ(only.pinned_bytes(), kMiB);
    EXPECT_EQ(only.attach(domain_, gpu_).error().code(), EEXIST);
  }
  EXPECT_EQ(ranges(), 0u);
  Attachment attachment;
  ASSERT_TRUE(attachment.attach(domain_, gpu_).ok());
  EXPECT_EQ(attachment.pinned_regions(), 2u);
  std::vector<void*> objects;
  for (int i = 0; i < 6; ++i) objects.push_back(*heap.allocate(900'000));
  EXPECT_EQ(attachment.pinned_bytes(), heap.stats()->total_bytes + other.stats()->total_bytes);
  EXPECT_EQ(ranges(), attachment.pinned_regions());
  EXPECT_TRUE(heap.deallocate_batch(objects).ok());
  EXPECT_TRUE(heap.flush().ok());
  EXPECT_EQ(attachment.pinned_bytes(), heap.stats()->total_bytes + other.stats()->total_bytes);

  // What CUDA does not pin is no memory of the heap's, and the allocation that wanted it fails.
  {
    const Failing failing("cuMemHostRegister_v2", 2);
    EXPECT_EQ(domain_.add_backing(other, backing).error().code(), ENOMEM);
    while (heap.allocate(300'000).ok()) {
    }
    EXPECT_LE(heap.stats()->total_bytes, 2 * kMiB);
  }
  // What CUDA does not let go stays a region; when CUDA is shut down, it does not hold it either.
  const auto region = domain_.add_backing(other, backing);
  ASSERT_TRUE(region.ok());
  const auto before = attachment.pinned_bytes();
  {
    const Failing failing("cuMemHostUnregister", 700);
    EXPECT_EQ(domain_.remove_region(*region).error().code(), EFAULT);
    EXPECT_EQ(attachment.pinned_bytes(), before);
  }
  EXPECT_TRUE(domain_.remove_region(*region).ok());
  EXPECT_EQ(attachment.pinned_bytes(), before - kMiB);
  attachment.detach();
  EXPECT_EQ(attachment.pinned_bytes(), 0u);
  EXPECT_EQ(ranges(), 0u);
  EXPECT_TRUE(domain_.add_backing(other, backing).ok());
  EXPECT_EQ(ranges(), 0u) << "detached";
}

TEST_F(Cuda, AttachmentLeavesWhatOthersPinnedAndWhatIsTheGpus) {
  auto host = Memory::host(gpu_, 2 * kMiB);
  auto device = Memory::device(gpu_, 2 * kMiB);
  ASSERT_TRUE(host.ok() && device.ok());
  Heap heap = *domain_.create_heap("h");
  ASSERT_TRUE(domain_.add_region(heap, host->spec()).ok());
  Attachment attachment;
  ASSERT_TRUE(attachment.attach(domain_, gpu_).ok());
  ASSERT_TRUE(domain_.add_region(heap, device->spec()).ok());
  EXPECT_EQ(attachment.pinned_bytes(), 0u);
  // Pinned in part: neither ours nor all theirs.
  alignas(4096) static std::byte memory[4 * 4096];
  ASSERT_TRUE(gpu_.run([](const Driver& d) { return d.host_register(memory, 4096, 0); }).ok());
  RegionSpec spec;
  spec.base = memory;
  spec.length = sizeof memory;
  EXPECT_EQ(domain_.add_region(heap, spec).error().code(), EEXIST);
  ASSERT_TRUE(gpu_.run([](const Driver& d) { return d.host_unregister(memory); }).ok());
  attachment.detach();
  domain_ = Domain();
}

TEST_F(Cuda, AttachmentThatCannotPinWhatIsThereIsNone) {
  Heap heap = *domain_.create_heap("h");
  BackingSpec backing;
  backing.length = kMiB;
  ASSERT_TRUE(domain_.add_backing(heap, backing).ok());
  Attachment attachment;
  EXPECT_EQ(attachment.attach(domain_, Gpu()).error().code(), EINVAL);
  {
    const Failing failing("cuMemHostRegister_v2", 801);
    EXPECT_EQ(attachment.attach(domain_, gpu_).error().code(), ENOTSUP);
  }
  EXPECT_EQ(ranges(), 0u);
  ASSERT_TRUE(attachment.attach(domain_, gpu_).ok()) << "nothing of the first try is left";
  domain_ = Domain();
  EXPECT_EQ(ranges(), 0u) << "closing the domain unpins";
}

TEST_F(Cuda, AChildOfForkLeavesItsParentsPinnedMemoryAlone) {
  Heap heap = *domain_.create_heap("h");
  BackingSpec backing;
  backing.length = kMiB;
  ASSERT_TRUE(domain_.add_backing(heap, backing).ok());
  Attachment attachment;
  ASSERT_TRUE(attachment.attach(domain_, gpu_).ok());
  const ::pid_t child = ::fork();
  if (child == 0) {
    attachment.detach();
    ::_exit(attachment.pinned_bytes() == kMiB ? 0 : 1);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  EXPECT_EQ(ranges(), 1u);
}

/// Whether a process may still use a GPU, for which here any file of its stands.
TEST_F(Cuda, AProcessMayUseAGpuUntilItsFilesAreClosed) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const ::pid_t child = ::fork();
  if (child == 0) {
    (void)!::write(ready[1], "x", 1);
    const int file = ::open("/dev/zero", O_RDONLY);
    for (;;) ::pause();
    ::_exit(file);
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  for (int i = 0; i < 30'000 && !detail::may_use_gpu(child, "/dev/zero"); ++i) ::usleep(1000);
  EXPECT_TRUE(detail::may_use_gpu(child, "/dev/zero"));
  EXPECT_TRUE(detail::may_use_gpu(child, "/dev/ze"));
  EXPECT_FALSE(detail::may_use_gpu(child, "/dev/nvidia"))
      << "another process that has got a dead one's number";
  ::kill(child, SIGKILL);
  ::siginfo_t info;
  ASSERT_EQ(::waitid(P_PID, static_cast<::id_t>(child), &info, WEXITED | WNOWAIT), 0);
  EXPECT_FALSE(detail::may_use_gpu(child, "/dev/zero")) << "ended, and not waited for";
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_FALSE(detail::may_use_gpu(child, "/dev/zero")) << "gone";
  ::close(ready[0]);
  ::close(ready[1]);
}

/// A process that is dead to the domain and has its files of the GPU open still: here one that has called exec.
TEST_F(Cuda, WhatADeadProcessHeldIsNotFreedWhileItsGpuFilesAreOpen) {
  const extmem::test::RuntimeDirectory directory;
  OpenOptions options;
  options.directory = directory.c_str();
  auto opened = Domain::open("d", options);
  ASSERT_TRUE(opened.ok()) << opened.error().message();
  domain_ = std::move(*opened);
  Heap heap = *domain_.create_heap("h");
  BackingSpec backing;
  backing.length = kMiB;
  ASSERT_TRUE(domain_.add_backing(heap, backing).ok());
  Attachment attachment("/dev/zero");
  ASSERT_TRUE(attachment.attach(domain_, gpu_).ok());
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const ::pid_t child = ::fork();
  if (child == 0) {
    const bool good =
        heap.allocate(100).ok() && heap.allocate(5000).ok() && ::open("/dev/zero", O_RDONLY) >= 0;
    if (good && ::write(ready[1], "x", 1) == 1) ::execlp("sleep", "sleep", "60", nullptr);
    ::_exit(1);
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  const auto freed_or_withheld = [&](bool freed) {
    std::uint64_t objects = 0;
    for (int i = 0; i < 30'000 && objects == 0; ++i) {
      const auto report = domain_.recover();
      EXPECT_TRUE(report.ok());
      objects = freed ? report->freed_objects : report->withheld_objects;
      if (objects == 0) ::usleep(1000);
    }
    return objects;
  };
  EXPECT_EQ(freed_or_withheld(false), 2u);
  EXPECT_EQ(domain_.recover()->freed_objects, 0u);
  EXPECT_EQ(heap.stats()->used_count, 2u);
  ::kill(child, SIGKILL);
  EXPECT_EQ(freed_or_withheld(true), 2u) << "also before anybody has waited for it";
  ASSERT_EQ(::waitpid(child, nullptr, 0), child);
  EXPECT_EQ(heap.stats()->used_count, 0u);
  ::close(ready[0]);
  ::close(ready[1]);
}

}  // namespace
}  // namespace extmem::cuda
