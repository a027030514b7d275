// Control segments that are not what they should be: an error that says so, never a crash, never a hang.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/face.hpp"
#include "contract/runtime_directory.hpp"
#include "shared/control_segment.hpp"

namespace extmem::test {
namespace {

using shared::SegmentHeader;

class DamagedDomain : public testing::TestWithParam<FaceKind> {
 protected:
  DamagedDomain() {
    const auto one = make_face(GetParam());
    EXPECT_EQ(one->open("d", options()), 0) << one->message();
  }

  [[nodiscard]] OpenOptions options() const {
    OpenOptions options;
    options.directory = directory_.c_str();
    return options;
  }
  [[nodiscard]] int open_it(std::string* message = nullptr) const {
    const auto one = make_face(GetParam());
    const int rc = one->open("d", options());
    if (message != nullptr) *message = one->message();
    return -rc;
  }
  /// Changes the header in the file, for as long as `then` runs.
  void with_header(const std::function<void(SegmentHeader&)>& change,
                   const std::function<void()>& then) const {
    const int fd = ::open(control().c_str(), O_RDWR | O_CLOEXEC);
    ASSERT_GE(fd, 0);
    SegmentHeader header{};
    ASSERT_EQ(::pread(fd, &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
    SegmentHeader changed = header;
    change(changed);
    ASSERT_EQ(::pwrite(fd, &changed, sizeof changed, 0), static_cast<ssize_t>(sizeof changed));
    then();
    ASSERT_EQ(::pwrite(fd, &header, sizeof header, 0), static_cast<ssize_t>(sizeof header));
    ::close(fd);
  }
  void expect(int code, const std::function<void(SegmentHeader&)>& change) const {
    with_header(change, [&] {
      std::string message;
      EXPECT_EQ(open_it(&message), code) << message;
      EXPECT_NE(message, "");
    });
  }
  [[nodiscard]] std::string control() const { return directory_.file("d", "control"); }

  RuntimeDirectory directory_;
};

TEST_P(DamagedDomain, IsTold) {
  expect(EUCLEAN, [](SegmentHeader& h) { h.magic ^= 1; });
  expect(EUCLEAN, [](SegmentHeader& h) { h.magic = 0; });
  expect(EPROTO, [](SegmentHeader& h) { ++h.abi; });
  expect(EPROTO, [](SegmentHeader& h) { h.layout_hash ^= std::uint64_t{1} << 40; });
  expect(ESTALE, [](SegmentHeader& h) { h.boot_id ^= 1; });
  expect(EUCLEAN, [](SegmentHeader& h) { h.total_bytes += 4096; });
  expect(EUCLEAN, [](SegmentHeader& h) { h.total_bytes = 0; });
  EXPECT_EQ(open_it(), 0) << "as it was";
}

TEST_P(DamagedDomain, GeometryIsBounded) {
  using Change = std::function<void(shared::Geometry&)>;
  const std::vector<Change> senseless = {
      [](shared::Geometry& g) { g.max_regions = 0; },
      [](shared::Geometry& g) { g.max_regions = 1u << 31; },
      [](shared::Geometry& g) { g.max_heaps = 0; },
      [](shared::Geometry& g) { g.max_heaps = ~0u; },
      [](shared::Geometry& g) { g.max_memzones = ~0u; },
      [](shared::Geometry& g) { g.max_tags = 0; },
      [](shared::Geometry& g) { g.max_tags = 49000; },
      [](shared::Geometry& g) { g.max_threads = 0; },
      [](shared::Geometry& g) { g.max_threads = 1u << 14; },
      [](shared::Geometry& g) { g.max_caches = 0; },
      [](shared::Geometry& g) { g.max_slabs = ~0u; },
      [](shared::Geometry& g) { g.small_bytes = 0; },
      [](shared::Geometry& g) { g.small_bytes += 1; },
      [](shared::Geometry& g) { g.large_bytes = ~std::uint64_t{0}; },
  };
  for (std::size_t i = 0; i < senseless.size(); ++i) {
    SCOPED_TRACE(i);
    expect(EUCLEAN, [&](SegmentHeader& h) { senseless[i](h.geometry); });
  }
  // Within bounds, but not what the file was made with.
  expect(EPROTO, [](SegmentHeader& h) { ++h.geometry.max_heaps; });
  expect(EPROTO, [](SegmentHeader& h) { --h.geometry.max_threads; });
  expect(EPROTO, [](SegmentHeader& h) { --h.geometry.max_slabs; });
  expect(EPROTO, [](SegmentHeader& h) { h.geometry.large_bytes += 65536; });
}

TEST_P(DamagedDomain, EveryLengthIsRefused) {
  struct stat status {};
  ASSERT_EQ(::stat(control().c_str(), &status), 0);
  std::vector<off_t> lengths = {
      status.st_size - 1, status.st_size - 65536, status.st_size + 1, 65536, 65535, 1 << 20};
  for (off_t length = 0; length <= 160; ++length) lengths.push_back(length);
  for (const off_t length : lengths) {
    SCOPED_TRACE(length);
    ASSERT_EQ(::truncate(control().c_str(), length), 0);
    std::string message;
    EXPECT_EQ(open_it(&message), EUCLEAN) << message;
    std::vector<DomainInfo> domains;
    EXPECT_EQ(make_face(GetParam())->list(directory_.c_str(), domains), 0);
    EXPECT_EQ(domains.size(), 1u) << "it is listed, so that somebody removes it";
  }
  EXPECT_EQ(make_face(GetParam())->remove("d", directory_.c_str()), 0) << "what is damaged can be removed";
}

TEST_P(DamagedDomain, GarbageIsRefused) {
  std::mt19937_64 random(20261125);
  for (const std::size_t length : {1u, 8u, 103u, 104u, 105u, 4096u, 65536u, 100000u}) {
    SCOPED_TRACE(length);
    for (int round = 0; round < 8; ++round) {
      std::string bytes(length, '\0');
      for (char& c : bytes) c = static_cast<char>(random());
      if (round % 2 == 1 && length >= 16) {  // further than the magic and the version
        const std::uint64_t magic = shared::kSegmentMagic;
        const std::uint32_t abi = shared::kSegmentAbi;
        std::memcpy(bytes.data(), &magic, 8);
        std::memcpy(bytes.data() + 8, &abi, 4);
      }
      const int fd = ::open(control().c_str(), O_WRONLY | O_TRUNC | O_CLOEXEC);
      ASSERT_EQ(::write(fd, bytes.data(), bytes.size()), static_cast<ssize_t>(bytes.size()));
      ::close(fd);
      const int code = open_it();
      EXPECT_TRUE(code == EUCLEAN || code == ESTALE) << code;
    }
  }
}

TEST_P(DamagedDomain, EveryFlippedBitOfTheHeaderIsSurvived) {
  for (std::size_t byte = 0; byte < sizeof(SegmentHeader); ++byte) {
    for (int bit = 0; bit < 8; bit += 3) {
      SCOPED_TRACE(byte * 8 + static_cast<std::size_t>(bit));
      with_header(
          [&](SegmentHeader& h) {
            reinterpret_cast<unsigned char*>(&h)[byte] ^= static_cast<unsigned char>(1 << bit);
          },
          [&] {
            const int code = open_it();
            EXPECT_TRUE(code == 0 || code == EUCLEAN || code == EPROTO || code == ESTALE) << code;
          });
    }
  }
}

TEST_P(DamagedDomain, ATruncatedTokenFileIsNoHarm) {
  // The locks are on bytes, whether or not the file has them.
  ASSERT_EQ(::truncate(directory_.file("d", "alive").c_str(), 0), 0);
  EXPECT_EQ(open_it(), 0);
}

TEST_P(DamagedDomain, OfAnotherProcessIsOnlyRefused) {
  Companion user;
  ASSERT_EQ(user.code(words("open", "d", directory_.path(), "any")), 0);
  ASSERT_EQ(user.code("heap_new h"), 0);
  ASSERT_EQ(user.code("add memfd 1048576"), 0);
  expect(EPROTO, [](SegmentHeader& h) { ++h.abi; });
  EXPECT_EQ(user.code("allocate 100 16 1"), 0);
  EXPECT_EQ(user.ask("verify"), "ok 0");
}

INSTANTIATE_TEST_SUITE_P(Faces, DamagedDomain, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& with) { return name_of(with.param); });

}  // namespace
}  // namespace extmem::test
