// Bad sizes, constraints, pointers, names and handles: a precise error, nothing changed, nothing lost.
#include "contract/bad_input.hpp"

namespace extmem::test {
namespace {

const std::string kLongest(63, 'n');
const std::string kTooLong(64, 'n');

// ---- sizes and constraints ---------------------------------------------------------------------------------

TEST_P(BadInput, RefusesSizes) {
  void* p = nullptr;
  refused(EINVAL, 0, {}, "size 0");
  refused(EOVERFLOW, SIZE_MAX, {}, "SIZE_MAX");
  refused(EOVERFLOW, SIZE_MAX - 10, {}, "nearly SIZE_MAX");
  refused(ENOMEM, 2 * kMiB, {}, "more than there is");
  refused_call(
      EOVERFLOW, [&] { return face_->calloc(heap_, SIZE_MAX / 2, 3, {}, p); }, "count x size");
  refused_call(
      EOVERFLOW, [&] { return face_->calloc(heap_, SIZE_MAX, SIZE_MAX, {}, p); }, "count x size");
  refused_call(
      EOVERFLOW, [&] { return face_->calloc(heap_, std::size_t{1} << 32, std::size_t{1} << 32, {}, p); },
      "count x size that wraps to 0");
  refused_call(
      EINVAL, [&] { return face_->calloc(heap_, 0, 8, {}, p); }, "count 0");
  refused_call(
      EINVAL, [&] { return face_->calloc(heap_, 8, 0, {}, p); }, "size 0");
  refused_call(
      EINVAL, [&] { return face_->zalloc(heap_, 0, {}, p); }, "zalloc");
  refused_call(
      EOVERFLOW, [&] { return face_->zalloc(heap_, SIZE_MAX, {}, p); }, "zalloc");
  EXPECT_EQ(p, nullptr);
  std::vector<void*> batch(4, nullptr);
  refused_call(
      EINVAL, [&] { return face_->allocate_batch(heap_, 0, batch, {}); }, "batch of size 0");
  refused_call(
      EOVERFLOW, [&] { return face_->allocate_batch(heap_, SIZE_MAX, batch, {}); }, "batch");
  p = object_;
  refused_call(
      EOVERFLOW, [&] { return face_->reallocate(heap_, SIZE_MAX, {}, p); }, "reallocate");
  refused_call(
      EINVAL, [&] { return face_->reallocate(heap_, 0, {}, p); }, "reallocate to 0");
  refused_call(
      ENOMEM, [&] { return face_->reallocate(heap_, 2 * kMiB, {}, p); }, "reallocate");
  EXPECT_EQ(p, object_);
}

TEST_P(BadInput, RefusesAlignments) {
  for (const std::size_t align : {std::size_t{3}, std::size_t{24}, kOsPage + 1, kMaxAlign * 2, SIZE_MAX}) {
    AllocOptions options;
    options.align = align;
    refused(EINVAL, 64, options, "alignment not a power of two, or too large");
  }
  AllocOptions largest;
  largest.align = kMaxAlign;
  if (reinterpret_cast<std::uintptr_t>(memory_.base()) % kMaxAlign > kMiB) {
    refused(ENOMEM, 64, largest, "the largest alignment is legal, but no such address is here");
  }
}

TEST_P(BadInput, RefusesAlignmentZeroAsArgument) {
  if (std::get<0>(GetParam()) == FaceKind::c)
    return;  // no such function in C: 0 in the options is the default
  for (const std::size_t align : {std::size_t{0}, std::size_t{48}, kMaxAlign * 2}) {
    const std::string before = state_of(*face_);
    const auto p = heap_.allocate(64, align);
    EXPECT_EQ(p.error().code(), EINVAL) << align;
    EXPECT_STRNE(p.error().message(), "");
    EXPECT_EQ(state_of(*face_), before);
  }
}

TEST_P(BadInput, RefusesConstraints) {
  AllocOptions options;
  options.nocross = 100;
  refused(EINVAL, 64, options, "nocross not a power of two");
  options.nocross = 64;
  refused(EINVAL, 65, options, "nocross smaller than the size");
  options = AllocOptions{};
  options.dma_bits = 64;
  refused(EINVAL, 64, options, "dma_bits beyond 63");
  options.dma_bits = 32;
  refused(ENOMEM, 64, options, "no IOVA is known");
  options = AllocOptions{};
  options.min_offset = 8192;
  options.max_offset = 4096;
  refused(EINVAL, 64, options, "window that ends before it starts");
  options.max_offset = 8200;
  refused(EINVAL, 64, options, "window smaller than the size");
  options = AllocOptions{};
  options.os_page_size = 3000;
  refused(EINVAL, 64, options, "page size not a power of two");
  options.os_page_size = 2 * kMiB;
  refused(ENOMEM, 64, options, "no region of that page size");
  options = AllocOptions{};
  options.numa_node = 4711;
  refused(ENOMEM, 64, options, "no region of that node");
  options.numa_node = -2;
  refused(EINVAL, 64, options, "a number that no node can have");
  options = AllocOptions{};
  options.region = RegionId{region_.slot, region_.generation + 1};
  refused(ENOENT, 64, options, "no such region");
  options = AllocOptions{};
  options.tag = Tag{4711};
  refused(EINVAL, 64, options, "no such tag");
}

// ---- pointers ----------------------------------------------------------------------------------------------

TEST_P(BadInput, RefusesForeignPointers) {
  int local = 0;
  std::size_t size = 0;
  ObjectInfo info;
  RegionId id;
  Iova iova;
  RegionPtr ptr;
  bool contiguous = false;
  for (void* p : {static_cast<void*>(&local), static_cast<void*>(other_.base()),
                  static_cast<void*>(memory_.base() + kMiB), reinterpret_cast<void*>(std::uintptr_t{64}),
                  reinterpret_cast<void*>(UINTPTR_MAX), reinterpret_cast<void*>(std::uintptr_t{1} << 63)}) {
    refused_call(
        EFAULT, [&] { return face_->deallocate(heap_, p); }, "free");
    refused_call(
        EFAULT, [&] { return face_->deallocate(p); }, "free by the domain");
    refused_call(
        EFAULT, [&] { return face_->usable_size(heap_, p, size); }, "usable size");
    refused_call(
        EFAULT, [&] { return face_->usable_size(p, size); }, "usable size");
    refused_call(
        EFAULT, [&] { return face_->owner_of(heap_, p, info); }, "owner");
    refused_call(
        EFAULT, [&] { return face_->owner_of(p, info); }, "owner");
    refused_call(
        EFAULT, [&] { return face_->region_of(p, id); }, "region");
    refused_call(
        EFAULT, [&] { return face_->iova_of(p, iova); }, "iova");
    refused_call(
        EFAULT, [&] { return face_->iova_contiguous(p, 1, contiguous); }, "contiguous");
    refused_call(
        EFAULT, [&] { return face_->to_region_ptr(p, ptr); }, "region pointer");
    void* q = p;
    refused_call(
        EFAULT, [&] { return face_->reallocate(heap_, 64, {}, q); }, "reallocate");
    EXPECT_EQ(q, p);
  }
  // The right domain, but another heap.
  ASSERT_EQ(face_->add_region(empty_, good_spec(), id), 0);
  void* elsewhere = nullptr;
  ASSERT_EQ(face_->allocate(empty_, 64, elsewhere), 0);
  refused_call(
      EFAULT, [&] { return face_->deallocate(heap_, elsewhere); }, "another heap's object");
  refused_call(
      EFAULT, [&] { return face_->usable_size(heap_, elsewhere, size); }, "another heap's object");
  ASSERT_EQ(face_->deallocate(elsewhere), 0);
}

TEST_P(BadInput, RefusesInteriorPointers) {
  std::size_t size = 0;
  for (const std::size_t offset : {1u, 15u, 16u, 64u, 512u, 999u}) {
    void* p = static_cast<std::byte*>(object_) + offset;
    refused_call(
        EINVAL, [&] { return face_->deallocate(heap_, p); }, "free");
    refused_call(
        EINVAL, [&] { return face_->deallocate(p); }, "free by the domain");
    refused_call(
        EINVAL, [&] { return face_->usable_size(heap_, p, size); }, "usable size");
    refused_call(
        EINVAL, [&] { return face_->reallocate(heap_, 64, {}, p); }, "reallocate");
  }
  void* large = nullptr;
  ASSERT_EQ(face_->allocate(heap_, 300 * kKiB, large), 0) << face_->message();
  for (const std::size_t offset : {std::size_t{1}, kOsPage, 64 * kKiB, 300 * kKiB - 1}) {
    void* p = static_cast<std::byte*>(large) + offset;
    refused_call(
        EINVAL, [&] { return face_->deallocate(heap_, p); }, "free inside a large object");
  }
}

TEST_P(BadInput, RefusesDoubleFrees) {
  for (const std::size_t size : {std::size_t{16}, std::size_t{1000}, 40 * kKiB, 300 * kKiB}) {
    void* p = nullptr;
    std::size_t usable = 0;
    ASSERT_EQ(face_->allocate(heap_, size, p), 0) << face_->message();
    ASSERT_EQ(face_->deallocate(heap_, p), 0) << face_->message();
    refused_call(
        EALREADY, [&] { return face_->deallocate(heap_, p); }, "free");
    refused_call(
        EALREADY, [&] { return face_->deallocate(p); }, "free by the domain");
    refused_call(
        EALREADY, [&] { return face_->usable_size(heap_, p, usable); }, "usable size");
    refused_call(
        EALREADY, [&] { return face_->reallocate(heap_, size, {}, p); }, "reallocate");
  }
  std::vector<void*> twice(2, object_);
  std::size_t bad = 99;
  EXPECT_EQ(face_->deallocate_batch(heap_, twice, &bad), -EALREADY);
  EXPECT_EQ(bad, 1u);
}

TEST_P(BadInput, FreesNullAsNothing) {
  const std::string before = state_of(*face_);
  EXPECT_EQ(face_->deallocate(heap_, nullptr), 0);
  EXPECT_EQ(face_->deallocate(nullptr), 0);
  EXPECT_EQ(state_of(*face_), before);
}

TEST_P(BadInput, RefusesAMemzonesMemory) {
  refused_call(
      EPERM, [&] { return face_->deallocate(heap_, zone_.addr); }, "free");
  void* p = zone_.addr;
  refused_call(
      EPERM, [&] { return face_->reallocate(heap_, 64, {}, p); }, "reallocate");
}

TEST_P(BadInput, RefusesRanges) {
  bool contiguous = false;
  std::size_t count = 0;
  refused_call(
      EINVAL, [&] { return face_->iova_contiguous(object_, 0, contiguous); }, "length 0");
  refused_call(
      EFAULT, [&] { return face_->iova_contiguous(object_, 2 * kMiB, contiguous); }, "over the end");
  refused_call(
      EFAULT, [&] { return face_->iova_contiguous(object_, SIZE_MAX, contiguous); }, "overflow");
  refused_call(
      EINVAL, [&] { return face_->iova_runs(object_, 0, {}, count); }, "length 0");
  refused_call(
      EFAULT, [&] { return face_->iova_runs(object_, SIZE_MAX, {}, count); }, "overflow");
  void* p = nullptr;
  refused_call(
      ENOENT, [&] { return face_->address_of(Iova{0x1234}, p); }, "unknown IOVA");
  refused_call(
      EINVAL, [&] { return face_->address_of(kBadIova, p); }, "the bad IOVA");
  refused_call(
      EFAULT, [&] { return face_->from_region_ptr(RegionPtr{}, p); }, "null");
  refused_call(
      EFAULT, [&] { return face_->from_region_ptr(RegionPtr{~std::uint64_t{0}}, p); }, "no such slot");
  RegionPtr end;
  ASSERT_EQ(face_->to_region_ptr(memory_.base(), end), 0);
  end.bits += kMiB;
  refused_call(
      EFAULT, [&] { return face_->from_region_ptr(end, p); }, "beyond the region");
}

// ---- names and handles -------------------------------------------------------------------------------------

TEST_P(BadInput, RefusesNames) {
  Heap heap;
  Tag tag;
  MemzoneInfo zone;
  refused_call(
      EINVAL, [&] { return face_->create_heap("", heap); }, "empty");
  refused_call(
      ENAMETOOLONG, [&] { return face_->create_heap(kTooLong.c_str(), heap); }, "64 bytes");
  refused_call(
      EEXIST, [&] { return face_->create_heap("h", heap); }, "taken");
  refused_call(
      EEXIST, [&] { return face_->create_heap("node0", heap); }, "a node's heap");
  refused_call(
      ENOENT, [&] { return face_->find_heap("nobody", heap); }, "unknown");
  refused_call(
      EINVAL, [&] { return face_->reserve_memzone(heap_, "", 64, {}, zone); }, "empty");
  refused_call(
      ENAMETOOLONG, [&] { return face_->reserve_memzone(heap_, kTooLong.c_str(), 64, {}, zone); },
      "64 bytes");
  refused_call(
      EEXIST, [&] { return face_->reserve_memzone(heap_, "z", 64, {}, zone); }, "taken");
  refused_call(
      EEXIST, [&] { return face_->reserve_memzone(empty_, "z", 64, {}, zone); }, "taken in another heap");
  refused_call(
      ENOENT, [&] { return face_->find_memzone("nobody", zone); }, "unknown");
  refused_call(
      ENOENT, [&] { return face_->free_memzone("nobody"); }, "unknown");
  refused_call(
      EINVAL, [&] { return face_->intern_tag("", tag); }, "empty");
  refused_call(
      ENAMETOOLONG, [&] { return face_->intern_tag(kTooLong.c_str(), tag); }, "64 bytes");
  std::string name;
  refused_call(
      ENOENT, [&] { return face_->tag_name(Tag{4711}, name); }, "unknown");

  ASSERT_EQ(face_->create_heap(kLongest.c_str(), heap), 0) << face_->message();
  EXPECT_EQ(heap.name(), kLongest);
  ASSERT_EQ(face_->reserve_memzone(heap_, kLongest.c_str(), 64, {}, zone), 0) << face_->message();
  EXPECT_EQ(zone.name, kLongest);
  ASSERT_EQ(face_->intern_tag(kLongest.c_str(), tag), 0) << face_->message();
  ASSERT_EQ(face_->tag_name(tag, name), 0);
  EXPECT_EQ(name, kLongest);
}

TEST_P(BadInput, RefusesHandlesOfDestroyedHeaps) {
  Heap gone;
  ASSERT_EQ(face_->create_heap("gone", gone), 0);
  ASSERT_EQ(face_->destroy_heap(gone, nullptr), 0) << face_->message();
  Heap newer;
  ASSERT_EQ(face_->create_heap("gone", newer), 0) << "the name is free again: " << face_->message();
  EXPECT_NE(gone, newer);
  void* p = nullptr;
  std::size_t size = 0;
  HeapStats stats;
  std::vector<TagStats> tags;
  std::vector<WalkEntry> entries;
  std::vector<void*> batch(2, nullptr);
  MemzoneInfo zone;
  RegionId id;
  ObjectInfo info;
  refused_call(
      ESTALE, [&] { return face_->allocate(gone, 64, p); }, "allocate");
  refused_call(
      ESTALE, [&] { return face_->zalloc(gone, 64, {}, p); }, "zalloc");
  refused_call(
      ESTALE, [&] { return face_->calloc(gone, 2, 64, {}, p); }, "calloc");
  refused_call(
      ESTALE, [&] { return face_->reallocate(gone, 64, {}, p); }, "reallocate");
  refused_call(
      ESTALE, [&] { return face_->allocate_batch(gone, 64, batch, {}); }, "batch");
  refused_call(
      ESTALE, [&] { return face_->deallocate(gone, object_); }, "free");
  refused_call(
      ESTALE, [&] { return face_->usable_size(gone, object_, size); }, "usable size");
  refused_call(
      ESTALE, [&] { return face_->owner_of(gone, object_, info); }, "owner");
  refused_call(
      ESTALE, [&] { return face_->stats(gone, stats); }, "stats");
  refused_call(
      ESTALE, [&] { return face_->tag_stats(gone, tags); }, "tag stats");
  refused_call(
      ESTALE, [&] { return face_->walk(gone, true, entries); }, "walk");
  refused_call(
      ESTALE, [&] { return face_->flush(gone); }, "flush");
  refused_call(
      ESTALE, [&] { return face_->destroy_heap(gone, nullptr); }, "destroy");
  refused_call(
      ESTALE, [&] { return face_->add_region(gone, good_spec(), id); }, "add region");
  refused_call(
      ESTALE, [&] { return face_->reserve_memzone(gone, "new", 64, {}, zone); }, "memzone");
}

TEST_P(BadInput, RefusesToDestroyANodesHeap) {
  Heap node;
  ASSERT_EQ(face_->heap_of_node(0, node), 0) << face_->message();
  refused_call(
      EPERM, [&] { return face_->destroy_heap(node, nullptr); }, "a node's heap");
  refused_call(
      ENOENT, [&] { return face_->heap_of_node(4711, node); }, "no such node");
  refused_call(
      ENOENT, [&] { return face_->heap_by_id(4711, node); }, "no such id");
}

INSTANTIATE_TEST_SUITE_P(, BadInput,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::Values(Style::binned, Style::exact)),
                         name_of_bad_input);

}  // namespace
}  // namespace extmem::test
