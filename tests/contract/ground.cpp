#include "contract/ground.hpp"

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

HeapOptions growing() {
  HeapOptions options;
  options.growth.backing.kind = BackingKind::anonymous;
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
  };
  return all;
}

Site::Site(FaceKind kind, const Ground& on) : ground(on), face(make_face(kind)) {
  EXPECT_EQ(face->create(DomainOptions{}), 0) << face->message();
  EXPECT_EQ(face->create_heap("contract", ground.heap_options, heap), 0) << face->message();
  if (heap) ground.add_memory(*face, heap, memory);
}

Site::~Site() {
  expect_sound(*face);
  face->close();
}

}  // namespace extmem::test
