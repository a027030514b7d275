// The scene of the tests of bad input, through both faces and for both styles.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {

/// A domain with a heap "h" on 1 MiB, an object in it and a memzone "z", so that there is something to lose.
class BadInput : public testing::TestWithParam<std::tuple<FaceKind, Style>> {
 protected:
  BadInput() : face_(make_face(std::get<0>(GetParam()))) {
    HeapOptions options;
    options.style = std::get<1>(GetParam());
    EXPECT_EQ(face_->create(DomainOptions{}), 0) << face_->message();
    EXPECT_EQ(face_->create_heap("h", options, heap_), 0) << face_->message();
    EXPECT_EQ(face_->create_heap("empty", options, empty_), 0) << face_->message();
    EXPECT_EQ(face_->add_region(heap_, spec(), region_), 0) << face_->message();
    EXPECT_EQ(face_->allocate(heap_, 1000, object_), 0) << face_->message();
    EXPECT_EQ(face_->reserve_memzone(heap_, "z", 5000, {}, zone_), 0) << face_->message();
  }
  ~BadInput() override { expect_sound(*face_); }

  [[nodiscard]] RegionSpec spec() const {
    RegionSpec spec;
    spec.base = memory_.base();
    spec.length = memory_.length();
    return spec;
  }
  /// A spec of memory that no region has, for a test to spoil.
  [[nodiscard]] RegionSpec good_spec() const {
    RegionSpec spec;
    spec.base = other_.base();
    spec.length = other_.length();
    return spec;
  }
  void refused(int code, const RegionSpec& spec, const char* what) {
    RegionId id;
    expect_refused(
        *face_, code, [&] { return face_->add_region(empty_, spec, id); }, what);
  }
  void refused(int code, std::size_t size, const AllocOptions& options, const char* what) {
    void* p = nullptr;
    expect_refused(
        *face_, code, [&] { return face_->allocate(heap_, size, options, p); }, what);
    EXPECT_EQ(p, nullptr) << what;
    MemzoneInfo zone;
    if (size != 0) {  // for a memzone that is "the biggest"
      expect_refused(
          *face_, code, [&] { return face_->reserve_memzone(heap_, "bad", size, options, zone); }, what);
    }
  }
  template <typename Call>
  void refused_call(int code, Call call, const char* what) {
    expect_refused(*face_, code, call, what);
  }

  Memory memory_{kMiB};
  Memory other_{kMiB};
  std::unique_ptr<Face> face_;
  Heap heap_;
  Heap empty_;
  RegionId region_;
  void* object_ = nullptr;
  MemzoneInfo zone_;
};

inline std::string name_of_bad_input(const testing::TestParamInfo<BadInput::ParamType>& test) {
  return std::string(name_of(std::get<0>(test.param))) +
         (std::get<1>(test.param) == Style::binned ? "_Binned" : "_Exact");
}

}  // namespace extmem::test
