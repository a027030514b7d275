// What the tests of CUDA share: a GPU and a domain of their own, and a look that nothing is left over in the fake libcuda.so.1.
#pragma once

#include <dlfcn.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "extmem/cuda.hpp"
#include "extmem/extmem.hpp"

namespace extmem::cuda {

inline constexpr std::size_t kMiB = std::size_t{1} << 20;

/// The fake's functions for tests.
template <typename Function>
Function* fake(const char* name) {
  void* const library = ::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD);
  return reinterpret_cast<Function*>(::dlsym(library, name));
}
/// While it lives, the call answers that status.
class Failing {
 public:
  Failing(const char* call, Status status) : call_(call) {
    fake<void(const char*, Status)>("fake_cuda_fail")(call_, status);
  }
  ~Failing() { fake<void(const char*, Status)>("fake_cuda_fail")(call_, 0); }
  Failing(const Failing&) = delete;

 private:
  const char* call_;
};

class Cuda : public testing::Test {
 protected:
  void SetUp() override {
    auto opened = Gpu::open();
    ASSERT_TRUE(opened.ok()) << opened.error().message();
    gpu_ = std::move(*opened);
    ASSERT_NE(::dlsym(::dlopen("libcuda.so.1", RTLD_NOW | RTLD_NOLOAD), "fake_cuda_fail"), nullptr)
        << "this is not the fake: its folder comes first in the program's RUNPATH";
    ASSERT_EQ(ranges(), 0u);
  }
  void TearDown() override {
    EXPECT_EQ(ranges(), 0u) << "something is left allocated, pinned or mapped";
    gpu_ = Gpu();
    EXPECT_EQ(fake<int()>("fake_cuda_contexts")(), 0);
  }
  static std::size_t ranges() { return fake<std::size_t()>("fake_cuda_ranges")(); }

  Heap heap_on(const Memory& memory, Style style = Style::binned) {
    HeapOptions options;
    options.style = style;
    Heap heap = *domain_.create_heap("gpu", options);
    auto added = domain_.add_region(heap, memory.spec());
    EXPECT_TRUE(added.ok()) << added.error().message();
    return heap;
  }
  static Domain domain() {
    auto made = Domain::create();
    EXPECT_TRUE(made.ok());
    return std::move(*made);
  }
  std::vector<unsigned char> content(const void* p, std::size_t n) const {
    std::vector<unsigned char> bytes(n);
    EXPECT_TRUE(gpu_.copy_out(bytes.data(), p, n).ok());
    return bytes;
  }

  Gpu gpu_;
  Domain domain_ = domain();
};

}  // namespace extmem::cuda
