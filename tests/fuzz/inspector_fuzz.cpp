// A control segment with bytes of the fuzzer's choice, looked at by an inspector: it may say anything, and must come back.
//
// Input: records of 6 bytes: a place (two bytes choose a page among those with data, two the byte in it), what is done to it,
// and a value. They change a copy of a domain that has a bit of everything, made once.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "extmem/extmem.hpp"
#include "heap/inspector.hpp"

namespace {

using extmem::heap::InspectorState;

void require(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "inspector_fuzz: %s\n", what);
  std::abort();
}

class Image {
 public:
  Image() {
    const std::string folder = "/dev/shm/extmem-fuzz-" + std::to_string(::getpid());
    require(::mkdir(folder.c_str(), 0700) == 0, "mkdir");
    {
      extmem::OpenOptions options;
      options.directory = folder.c_str();
      options.sizes.max_regions = 16;
      options.sizes.max_heaps = 8;
      options.sizes.max_memzones = 32;
      options.sizes.max_tags = 16;
      options.sizes.max_threads = 8;
      options.sizes.small_metadata = 1 << 20;
      options.sizes.large_metadata = 4 << 20;
      auto domain = extmem::Domain::open("d", options);
      require(domain.ok(), "open");
      fill(*domain);
      copy(folder + "/d/control");
    }
    (void)extmem::Domain::remove("d", folder.c_str());
    ::rmdir(folder.c_str());
  }
  [[nodiscard]] const std::vector<std::uint64_t>& pages() const { return pages_; }
  [[nodiscard]] int fd() const { return fd_; }
  [[nodiscard]] std::byte* base() const { return base_; }
  void restore(std::uint64_t page) const {
    std::size_t i = 0;
    while (pages_[i] != page) ++i;
    std::memcpy(base_ + page, &original_[i * 4096], 4096);
  }

 private:
  static void fill(extmem::Domain& domain) {
    auto heap = domain.create_heap("h");
    extmem::BackingSpec spec;
    spec.kind = extmem::BackingKind::memfd;
    spec.length = 4 << 20;
    require(heap && domain.add_backing(*heap, spec) && domain.add_backing(*heap, spec), "heap");
    extmem::AllocOptions tagged;
    tagged.tag = *domain.intern_tag("tag");
    for (std::size_t size = 16; size < 60'000; size += size / 3) {
      void* p = heap->allocate(size).value_or(nullptr);
      (void)heap->allocate(size, tagged);
      (void)heap->allocate(size);
      (void)heap->deallocate(p);
    }
    require(domain.reserve_memzone(*heap, "zone", 5000).ok(), "memzone");
  }
  void copy(const std::string& control) {
    const int from = ::open(control.c_str(), O_RDONLY | O_CLOEXEC);
    struct stat status {};
    require(from >= 0 && ::fstat(from, &status) == 0, "control");
    fd_ = ::memfd_create("image", MFD_CLOEXEC);
    require(fd_ >= 0 && ::ftruncate(fd_, status.st_size) == 0, "memfd");
    void* const p = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_NORESERVE, fd_, 0);
    require(p != MAP_FAILED, "mmap");
    base_ = static_cast<std::byte*>(p);
    for (off_t at = 0; (at = ::lseek(from, at, SEEK_DATA)) >= 0;) {
      const off_t end = ::lseek(from, at, SEEK_HOLE);
      for (; at < end; at += 4096) {
        std::byte page[4096];
        require(::pread(from, page, sizeof page, at) == sizeof page, "pread");
        bool zero = true;
        for (const std::byte b : page) zero &= b == std::byte{0};
        if (zero) continue;
        pages_.push_back(static_cast<std::uint64_t>(at));
        original_.insert(original_.end(), page, page + sizeof page);
        std::memcpy(base_ + at, page, sizeof page);
      }
    }
    ::close(from);
  }

  std::vector<std::uint64_t> pages_;
  std::vector<std::byte> original_;
  std::byte* base_ = nullptr;
  int fd_ = -1;
};

void look(InspectorState& inspector) {
  std::size_t unstable = 0;
  (void)inspector.verify(
      [](const extmem::Breach& b) { require(b.what != nullptr, "a breach without a text"); }, &unstable);
  (void)inspector.walk_heaps([](const extmem::HeapInfo&) { return true; });
  (void)inspector.walk_regions([](const extmem::RegionInfo&) { return true; });
  (void)inspector.walk_participants([](const extmem::ParticipantInfo&) { return true; });
  (void)inspector.walk_memzones([](const extmem::MemzoneInfo&) { return true; });
  (void)inspector.walk_tags([](extmem::Tag, const char*) { return true; });
  for (std::uint32_t id = 0; id < 8; ++id) {
    bool stable = false;
    (void)inspector.stats(id, &stable);
    extmem::TagStats tags[4];
    (void)inspector.tag_stats(id, tags, &stable);
    extmem::HolderReport holders;
    (void)inspector.holders(id, holders, &stable);
    (void)inspector.walk(
        id, [](const extmem::WalkEntry&) { return true; }, extmem::WalkOptions{true}, &stable);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const Image& image = *new Image;
  std::vector<std::uint64_t> changed;
  for (; size >= 6; data += 6, size -= 6) {
    const std::uint64_t page =
        image.pages()[static_cast<std::size_t>(data[0] | data[1] << 8) % image.pages().size()];
    auto* const byte =
        reinterpret_cast<std::uint8_t*>(image.base() + page + ((data[2] | data[3] << 8) & 4095));
    switch (data[4] % 4) {
      case 0:
        *byte = data[5];
        break;
      case 1:
        *byte = static_cast<std::uint8_t>(*byte ^ 1 << data[5] % 8);
        break;
      case 2:
        *byte = static_cast<std::uint8_t>(*byte + data[5]);
        break;
      default:  // an aligned word
        std::memset(
            reinterpret_cast<std::uint8_t*>(reinterpret_cast<std::uintptr_t>(byte) & ~std::uintptr_t{3}),
            data[5], 4);
    }
    changed.push_back(page);
  }
  if (auto inspector = InspectorState::open_fd(::dup(image.fd()), false)) {
    look(**inspector);
    (*inspector)->close();
  }
  for (const std::uint64_t page : changed) image.restore(page);
  return 0;
}
