#include "contract/ground.hpp"

#include <unistd.h>

#include <atomic>

#include "contract/state.hpp"

namespace extmem::test {
namespace {

void lend(Face& face, Heap heap, std::vector<Memory>& memory, Memory lent, bool cpu_accessible = true,
          std::size_t os_page_size = 0) {
  RegionSpec spec;
  spec.base = lent.base();
  spec.length = lent.length();
  spec.os_page_size = os_page_size;
  spec.cpu_accessible = cpu_accessible;
  RegionId region;
  ASSERT_EQ(face.add_region(heap, spec, region), 0) << face.message();
  memory.push_back(std::move(lent));
}

HeapOptions exact() {
  HeapOptions options;
  options.style = Style::exact;
  return options;
}

HeapOptions growing(BackingKind kind = BackingKind::anonymous) {
  HeapOptions options;
  options.growth.backing.kind = kind;
  options.growth.step = kMiB;
  options.growth.limit = 4 * kMiB;
  return options;
}

Ground one(const char* name, const HeapOptions& options, std::size_t length, std::size_t max_object) {
  return {
      name, options, true, length, max_object, [length](Face& face, Heap heap, std::vector<Memory>& memory) {
        lend(face, heap, memory, Memory(length));
      }};
}

Ground untouchable(const char* name, const HeapOptions& options) {
  return {name, options, false, 4 * kMiB, 2 * kMiB, [](Face& face, Heap heap, std::vector<Memory>& memory) {
            lend(face, heap, memory, Memory(4 * kMiB, PROT_NONE), false);
          }};
}

Ground several(const char* name, const HeapOptions& options) {
  return {name,
          options,
          true,
          64 * kKiB + 2 * kMiB + 4 * kMiB,
          2 * kMiB,
          [](Face& face, Heap heap, std::vector<Memory>& memory) {
            lend(face, heap, memory, Memory(64 * kKiB));
            lend(face, heap, memory, Memory(2 * kMiB, PROT_READ | PROT_WRITE, 64 * kKiB), true, 64 * kKiB);
            lend(face, heap, memory, Memory(4 * kMiB, PROT_READ | PROT_WRITE, 2 * kMiB), true, 2 * kMiB);
          }};
}

Ground named(const char* name, const HeapOptions& options, BackingKind kind) {
  Ground ground{name, options, true, 4 * kMiB, 2 * kMiB, [kind](Face& face, Heap heap, std::vector<Memory>&) {
                  static std::atomic<int> next{0};
                  const std::string path = "/dev/shm/extmem-test-region-" + std::to_string(::getpid()) + "-" +
                                           std::to_string(next++);
                  BackingSpec spec;
                  spec.kind = kind;
                  spec.length = 4 * kMiB;
                  if (kind == BackingKind::file) spec.path = path.c_str();
                  RegionId region;
                  ASSERT_EQ(face.add_backing(heap, spec, region), 0) << face.message();
                  if (kind == BackingKind::file) ::unlink(path.c_str());  // nobody else maps it
                }};
  ground.named = true;
  return ground;
}

Ground in_named_domain(Ground ground, const char* name) {
  ground.name = name;
  ground.named = true;
  return ground;
}

}  // namespace

void PrintTo(const Ground& ground, std::ostream* out) { *out << ground.name; }

const std::vector<Ground>& grounds() {
  static const std::vector<Ground> all = {
      one("Binned", {}, 4 * kMiB, 2 * kMiB),
      one("Exact", exact(), 4 * kMiB, 2 * kMiB),
      one("Tiny", {}, 8 * kKiB, 2 * kKiB),
      one("TinyExact", exact(), 8 * kKiB, 4 * kKiB),
      untouchable("Untouchable", {}),
      untouchable("UntouchableExact", exact()),
      several("SeveralRegions", {}),
      several("SeveralRegionsExact", exact()),
      {"Grown", growing(), true, 4 * kMiB, 512 * kKiB, [](Face&, Heap, std::vector<Memory>&) {}},
      named("NamedMemfd", {}, BackingKind::memfd),
      named("NamedMemfdExact", exact(), BackingKind::memfd),
      named("NamedFile", {}, BackingKind::file),
      in_named_domain(several("", {}), "NamedSeveralRegions"),
      {"NamedGrown", growing(BackingKind::memfd), true, 4 * kMiB, 512 * kKiB,
       [](Face&, Heap, std::vector<Memory>&) {}, true},
  };
  return all;
}

Site::Site(FaceKind kind, const Ground& on) : ground(on), face(make_face(kind)) {
  if (ground.named) {
    directory = std::make_unique<RuntimeDirectory>();
    OpenOptions options;
    options.directory = directory->c_str();
    options.mode = OpenMode::create_only;
    EXPECT_EQ(face->open("contract", options), 0) << face->message();
  } else {
    EXPECT_EQ(face->create(DomainOptions{}), 0) << face->message();
  }
  EXPECT_EQ(face->create_heap("contract", ground.heap_options, heap), 0) << face->message();
  if (heap) ground.add_memory(*face, heap, memory);
}

Site::~Site() {
  expect_sound(*face);
  face->close();
  if (ground.named) {
    EXPECT_EQ(face->remove("contract", directory->c_str()), 0) << face->message();
  }
}

}  // namespace extmem::test
