// Regions where another process maps them: at the adder's address only, and through descriptors that were handed over.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <memory>
#include <string>

#include "contract/companion.hpp"
#include "contract/descriptors.hpp"
#include "contract/face.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class Elsewhere : public testing::TestWithParam<FaceKind> {
 protected:
  Elsewhere() : face_(make_face(GetParam())) {
    EXPECT_EQ(::chmod(directory_.c_str(), 0770), 0);
    options_.directory = directory_.c_str();
    options_.group = true;
    // Small: a control segment of many GiB lies where the other process has a region every tenth time or so.
    options_.sizes.max_regions = 64;
    options_.sizes.max_heaps = 16;
    options_.sizes.max_memzones = 64;
    options_.sizes.max_tags = 32;
    options_.sizes.max_threads = 64;
    options_.sizes.small_metadata = 16 << 20;
    options_.sizes.large_metadata = 64 << 20;
    EXPECT_EQ(face_->open("d", options_), 0) << face_->message();
    HeapOptions heap;
    heap.user_data = 0xfeedfacecafebeef;
    EXPECT_EQ(face_->create_heap("h", heap, heap_), 0) << face_->message();
  }
  ~Elsewhere() override {
    expect_sound(*face_);
    face_->close();
  }

  RegionInfo add(BackingKind kind = BackingKind::memfd) {
    BackingSpec spec;
    spec.kind = kind;
    spec.length = 4 * kMiB;
    RegionId region;
    RegionInfo info;
    EXPECT_EQ(face_->add_backing(heap_, spec, region), 0) << face_->message();
    EXPECT_EQ(face_->region_info(region, info), 0) << face_->message();
    return info;
  }
  void join(Companion& other, const char* flags = "") const {
    ASSERT_EQ(other.ask(words("open", "d", directory_.path(), "only", "group", flags)).substr(0, 2), "ok");
    ASSERT_EQ(other.ask("heap h"), "ok");
  }
  std::uint64_t allocate(RegionId region, std::size_t seed) {
    AllocOptions options;
    options.region = region;
    void* p = nullptr;
    EXPECT_EQ(face_->allocate(heap_, 300, options, p), 0) << face_->message();
    fill(p, 300, seed);
    RegionPtr ptr;
    EXPECT_EQ(face_->to_region_ptr(p, ptr), 0) << face_->message();
    return ptr.bits;
  }
  static std::string id(RegionId region) { return words(region.slot, region.generation); }
  static std::uintptr_t number(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

  RuntimeDirectory directory_;
  OpenOptions options_;
  std::unique_ptr<Face> face_;
  Heap heap_;
};

TEST_P(Elsewhere, UserDataOfAHeapIsTheSameForAll) {
  HeapInfo info;
  ASSERT_EQ(face_->heap_info(heap_, info), 0) << face_->message();
  EXPECT_EQ(info.user_data, 0xfeedfacecafebeefu);
  EXPECT_STREQ(info.name, "h");
  std::vector<HeapInfo> all;
  ASSERT_EQ(face_->list_heaps(all), 0);
  EXPECT_EQ(all.back().user_data, info.user_data);
  EXPECT_EQ(all.front().user_data, 0u) << "a node's own heap";
  Companion other;
  join(other);
  EXPECT_EQ(other.number("user_data"), info.user_data);
  Heap plain;
  ASSERT_EQ(face_->destroy_heap(heap_, nullptr), 0) << face_->message();
  EXPECT_EQ(face_->heap_info(heap_, info), -ESTALE);
  ASSERT_EQ(face_->create_heap("h", plain), 0) << face_->message();
  ASSERT_EQ(face_->heap_info(plain, info), 0) << face_->message();
  EXPECT_EQ(info.user_data, 0u) << "nothing of the heap that was there before";
  heap_ = plain;
}

// ---- the same address ----------------------------------------------------------------------------------------

// Without asking: backings of named domains lie in a window that is free everywhere, whatever the kernel does with addresses.
TEST_P(Elsewhere, RegionsLieAtOneAddressByDefault) {
  Companion other, third;
  join(other);
  for (int i = 0; i < 24; ++i) {
    const RegionInfo region = add(i % 2 == 0 ? BackingKind::memfd : BackingKind::anonymous);
    EXPECT_EQ(other.code(words("add", "memfd", 4 * kMiB)), 0);
    if (i == 12) join(third);  // maps what is there at once, and the rest as it comes
    for (Companion* const process : {&other, &third}) {
      if (process == &third && i < 12) continue;
      EXPECT_EQ(process->ask("poll"), "ok");
      EXPECT_EQ(process->number(words("region_base", id(region.id))), number(region.base)) << "region " << i;
    }
  }
  // Those that the other process added.
  ASSERT_EQ(face_->poll(), 0) << face_->message();
  std::vector<RegionInfo> all;
  ASSERT_EQ(face_->list_regions(all), 0) << face_->message();
  EXPECT_EQ(all.size(), 48u);
  for (const RegionInfo& region : all) {
    EXPECT_EQ(region.base, region.adder_base);
    EXPECT_EQ(third.number(words("region_base", id(region.id))), number(region.base));
  }
}

TEST_P(Elsewhere, SameAddressWhereItIsFree) {
  Companion other;
  join(other, "same");
  for (const BackingKind kind : {BackingKind::memfd, BackingKind::anonymous}) {
    const RegionInfo region = add(kind);
    EXPECT_EQ(region.adder_base, region.base);
    const std::uint64_t bits = allocate(region.id, 3);
    const std::uint64_t there = other.number(words("address", bits));
    EXPECT_EQ(there - (bits & 0xffffffffffff), number(region.base));
    EXPECT_EQ(other.ask(words("check", bits, 300, 3)), "ok");
    EXPECT_EQ(other.ask(words("free", bits)), "ok");
  }
}

TEST_P(Elsewhere, SameAddressOrNotAtAll) {
  const RegionInfo taken = add();
  Companion other;
  ASSERT_EQ(other.ask(words("occupy", number(taken.base), taken.length)), "ok");
  join(other, "same");
  const std::uint64_t bits = allocate(taken.id, 1);
  const std::string why = other.ask(words("address", bits));
  EXPECT_EQ(Companion::code_of(why), EADDRINUSE) << why;
  char address[32];
  std::snprintf(address, sizeof address, "0x%lx", static_cast<unsigned long>(number(taken.base)));
  EXPECT_NE(why.find(address), std::string::npos) << why;
  EXPECT_EQ(other.number(words("region_base", id(taken.id))), 0u);
  EXPECT_EQ(other.code("allocate 100 16 1"), ENOMEM) << "there is no other memory yet";
  EXPECT_EQ(other.code(words("allocate_in", id(taken.id), 100)), EADDRINUSE);

  const RegionInfo free = add();
  const std::uint64_t elsewhere = other.number("allocate 100 16 2");
  EXPECT_EQ(elsewhere >> 48, free.id.slot) << "served from the region that is mapped there";
  void* here = nullptr;
  ASSERT_EQ(face_->from_region_ptr(RegionPtr{elsewhere}, here), 0) << face_->message();
  EXPECT_EQ(other.number(words("address", elsewhere)), number(here)) << "the same address";

  // Its own mapping elsewhere is no way around: not even at a congruent address.
  EXPECT_EQ(other.code(words("attach", id(taken.id), number(taken.base) + (std::uintptr_t{1} << 30))),
            EINVAL);
  RegionFile file;
  ASSERT_EQ(face_->region_file(taken.id, file), 0) << face_->message();
  // When the address is free again, poll() maps the region there.
  EXPECT_EQ(other.ask("poll"), "ok");
  EXPECT_EQ(other.code(words("address", bits)), EADDRINUSE);
  ASSERT_EQ(other.ask(words("vacate", number(taken.base), taken.length)), "ok");
  EXPECT_EQ(other.code(words("address", bits)), EADDRINUSE) << "not tried again by itself";
  EXPECT_EQ(other.ask("poll"), "ok");
  EXPECT_EQ(other.number(words("address", bits)), number(taken.base) + (bits & 0xffffffffffff));
  EXPECT_EQ(other.ask(words("check", bits, 300, 1)), "ok");
  EXPECT_EQ(other.ask("verify"), "ok 0");
}

TEST_P(Elsewhere, SameAddressMustBeAskedForFromTheStart) {
  const auto again = make_face(GetParam());
  OpenOptions same = options_;
  same.same_address = true;
  EXPECT_EQ(again->open("d", same), -EBUSY) << again->message();
  EXPECT_EQ(again->open("d", options_), 0) << again->message();
  again->close();
}

// ---- descriptors that are handed over ------------------------------------------------------------------------

class HandedOver : public Elsewhere {
 protected:
  HandedOver() {
    EXPECT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets_), 0);  // inherited by the companion
    EXPECT_EQ(::fcntl(sockets_[0], F_SETFD, FD_CLOEXEC), 0);
    other_ = std::make_unique<Companion>();
    ::close(sockets_[1]);
  }
  ~HandedOver() override {
    other_.reset();
    ::close(sockets_[0]);
  }
  /// As another user, who may not look into this process.
  void become_a_stranger() {
    ASSERT_EQ(other_->ask(words("become", 65534, ::getegid())), "ok");
    join(*other_);
  }
  void hand(int fd) {
    ASSERT_TRUE(send_descriptor(sockets_[0], fd));
    ASSERT_EQ(other_->ask(words("receive", sockets_[1])), "ok");
  }
  int attach(RegionId region, std::uint64_t offset = 0) {
    return other_->code(words("attach_file", id(region), offset));
  }

  int sockets_[2] = {-1, -1};
  std::unique_ptr<Companion> other_;
};

TEST_P(HandedOver, TellsTheFileBehindARegion) {
  const RegionInfo region = add();
  RegionFile file;
  ASSERT_EQ(face_->region_file(region.id, file), 0) << face_->message();
  EXPECT_EQ(file.offset, 0u);
  EXPECT_EQ(file.length, region.length);
  EXPECT_EQ(file.kind, BackingKind::memfd);
  struct stat status {};
  ASSERT_EQ(::fstat(file.fd, &status), 0);
  EXPECT_EQ(static_cast<std::uint64_t>(status.st_size), region.length);
  Memory memory(4 * kMiB);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = memory.length();
  RegionId lent;
  ASSERT_EQ(face_->add_region(heap_, spec, lent), 0) << face_->message();
  EXPECT_EQ(face_->region_file(lent, file), -ENOTSUP);
  EXPECT_EQ(face_->region_file(RegionId{77, 1}, file), -ENOENT);
  EXPECT_EQ(face_->attach_region_file(region.id, file.fd, 0), -EEXIST) << "it is mapped here";
  ASSERT_EQ(face_->remove_region(lent, nullptr), 0) << face_->message();
}

TEST_P(HandedOver, ServesAnotherUserWhoMayNotLookIntoTheHolder) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: to become another user";
  const RegionInfo region = add();
  const std::uint64_t bits = allocate(region.id, 5);
  become_a_stranger();
  ASSERT_EQ(other_->code(words("address", bits)), ENXIO) << "else the test shows nothing";
  EXPECT_EQ(attach(region.id), EBADF) << "nothing was received yet";
  RegionFile file;
  ASSERT_EQ(face_->region_file(region.id, file), 0) << face_->message();

  // What is not the region's memory is refused, and changes nothing.
  const int wrong = ::memfd_create("wrong", MFD_CLOEXEC);
  ASSERT_EQ(::ftruncate(wrong, static_cast<off_t>(region.length)), 0);
  hand(wrong);
  ::close(wrong);
  EXPECT_EQ(attach(region.id), ESTALE);
  const std::string path = "/proc/self/fd/" + std::to_string(file.fd);
  const int read_only = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  hand(read_only);
  ::close(read_only);
  EXPECT_EQ(attach(region.id), EACCES);
  hand(file.fd);
  EXPECT_EQ(attach(region.id, 4096), EINVAL);
  EXPECT_EQ(other_->code(words("attach_file", 77, 1, 0)), ENOENT);
  EXPECT_EQ(other_->code(words("address", bits)), ENXIO);

  EXPECT_EQ(attach(region.id), 0);
  EXPECT_EQ(attach(region.id), EEXIST);
  EXPECT_EQ(other_->ask(words("check", bits, 300, 5)), "ok");
  EXPECT_EQ(other_->ask(words("free", bits)), "ok");
  const std::uint64_t theirs = other_->number("allocate 200 64 9");
  void* p = nullptr;
  ASSERT_EQ(face_->from_region_ptr(RegionPtr{theirs}, p), 0) << face_->message();
  EXPECT_TRUE(is_filled(p, 200, 9));
  EXPECT_EQ(face_->deallocate(p), 0) << face_->message();
  EXPECT_EQ(other_->code("close"), 0) << "its mapping goes, the descriptor that it was handed is its own";
}

TEST_P(HandedOver, AFileThatWasCutShortIsRefused) {
  if (::geteuid() != 0) GTEST_SKIP() << "needs root: to become another user";
  const std::string path = directory_.path() + "/memory";  // its path is closed to the other user
  BackingSpec spec;
  spec.kind = BackingKind::file;
  spec.length = 4 * kMiB;
  spec.path = path.c_str();
  RegionId region;
  ASSERT_EQ(face_->add_backing(heap_, spec, region), 0) << face_->message();
  ASSERT_EQ(::chmod(path.c_str(), 0600), 0);
  RegionFile file;
  ASSERT_EQ(face_->region_file(region, file), 0) << face_->message();
  EXPECT_EQ(file.kind, BackingKind::file);
  become_a_stranger();
  hand(file.fd);
  ASSERT_EQ(::ftruncate(file.fd, 4096), 0);
  EXPECT_EQ(attach(region), ESTALE);
  ASSERT_EQ(::ftruncate(file.fd, static_cast<off_t>(file.length)), 0);
  EXPECT_EQ(attach(region), 0);
}

INSTANTIATE_TEST_SUITE_P(Faces, Elsewhere, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& face) { return name_of(face.param); });
INSTANTIATE_TEST_SUITE_P(Faces, HandedOver, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& face) { return name_of(face.param); });

}  // namespace
}  // namespace extmem::test
