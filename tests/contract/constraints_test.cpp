// Every constraint that an allocation can have, through both faces and for both styles: what is granted obeys it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "contract/memory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

constexpr std::size_t kRunPages = 8;  // IOVAs come in runs of 32 KiB, with gaps between them

/// A heap with a scattered region of 4 KiB pages on node 0 and a region of 64 KiB pages, above 4 GiB, on node 1.
class Constraints : public testing::TestWithParam<std::tuple<FaceKind, Style>> {
 protected:
  Constraints() : face_(make_face(std::get<0>(GetParam()))) {
    HeapOptions options;
    options.style = std::get<1>(GetParam());
    EXPECT_EQ(face_->create(DomainOptions{}), 0) << face_->message();
    EXPECT_EQ(face_->create_heap("constrained", options, heap_), 0) << face_->message();
    std::vector<Iova> iovas;
    for (std::size_t i = 0; i < small_.length() / kOsPage; ++i) iovas.push_back(iova_of_page(i));
    RegionSpec spec;
    spec.base = small_.base();
    spec.length = small_.length();
    spec.os_page_size = kOsPage;
    spec.iovas = iovas;
    spec.numa_node = 0;
    EXPECT_EQ(face_->add_region(heap_, spec, small_id_), 0) << face_->message();
    iovas.assign(large_.length() / (64 * kKiB), Iova{});
    for (std::size_t i = 0; i < iovas.size(); ++i) iovas[i] = Iova{(std::uint64_t{1} << 40) + i * 64 * kKiB};
    spec.base = large_.base();
    spec.length = large_.length();
    spec.os_page_size = 64 * kKiB;
    spec.iovas = iovas;
    spec.numa_node = 1;
    EXPECT_EQ(face_->add_region(heap_, spec, large_id_), 0) << face_->message();
  }
  ~Constraints() override { expect_sound(*face_); }

  static Iova iova_of_page(std::size_t page) {
    return Iova{0x10000000 + (page + page / kRunPages) * kOsPage};
  }
  /// Allocates sixty objects of many sizes, runs `check` on each, and frees them.
  template <typename Check>
  void for_many(const AllocOptions& options, std::size_t most, Check check) {
    std::vector<void*> given;
    for (std::size_t i = 0; i < 60; ++i) {
      const std::size_t size = std::min(most, std::size_t{40} << (i % 10)) - i % 7;
      void* p = nullptr;
      ASSERT_EQ(face_->allocate(heap_, size, options, p), 0) << size << ": " << face_->message();
      given.push_back(p);
      check(static_cast<const std::byte*>(p), size);
    }
    for (void* p : given) ASSERT_EQ(face_->deallocate(heap_, p), 0) << face_->message();
  }
  [[nodiscard]] std::uint64_t iova(const void* p) {
    Iova found{};
    EXPECT_EQ(face_->iova_of(p, found), 0) << face_->message();
    return static_cast<std::uint64_t>(found);
  }

  Memory small_{4 * kMiB};
  Memory large_{4 * kMiB, PROT_READ | PROT_WRITE, 64 * kKiB};
  std::unique_ptr<Face> face_;
  Heap heap_;
  RegionId small_id_;
  RegionId large_id_;
};

TEST_P(Constraints, Alignment) {
  for (const std::size_t align : {std::size_t{128}, kOsPage, 64 * kKiB}) {
    AllocOptions options;
    options.align = align;
    for_many(options, 8 * kKiB, [&](const std::byte* p, std::size_t) {
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % align, 0u);
    });
  }
}

TEST_P(Constraints, NocrossInOffsets) {
  AllocOptions options;
  options.nocross = 8 * kKiB;
  for_many(options, 8 * kKiB, [&](const std::byte* p, std::size_t size) {
    const std::byte* base = small_.contains(p) ? small_.base() : large_.base();
    const auto offset = static_cast<std::size_t>(p - base);
    EXPECT_EQ(offset / options.nocross, (offset + size - 1) / options.nocross) << offset << " + " << size;
  });
}

TEST_P(Constraints, NocrossInAddresses) {
  // Memory whose offsets, IOVAs and addresses have their boundaries at different places.
  const Memory memory(4 * kMiB, PROT_READ | PROT_WRITE, kMiB);
  HeapOptions shifted;
  shifted.style = std::get<1>(GetParam());
  ASSERT_EQ(face_->create_heap("shifted", shifted, heap_), 0) << face_->message();
  RegionSpec spec;
  spec.base = memory.base() + 3 * kOsPage;
  spec.length = 3 * kMiB;
  std::vector<Iova> iovas;
  for (std::size_t i = 0; i < spec.length / kOsPage; ++i)
    iovas.push_back(Iova{0x40000000 + (i + 5) * kOsPage});
  spec.iovas = iovas;
  RegionId region;
  ASSERT_EQ(face_->add_region(heap_, spec, region), 0) << face_->message();
  AllocOptions options;
  options.nocross_in_addresses = true;
  for (const std::size_t nocross : {16 * kKiB, 256 * kKiB}) {
    options.nocross = nocross;
    for (const bool contiguous : {false, true}) {
      options.iova_contiguous = contiguous;  // then too: addresses, not the IOVA space
      for_many(options, nocross, [&](const std::byte* p, std::size_t size) {
        const auto at = reinterpret_cast<std::uintptr_t>(p);
        EXPECT_EQ(at / nocross, (at + size - 1) / nocross) << at << " + " << size;
      });
      // The most that fits between two boundaries.
      MemzoneInfo zone;
      ASSERT_EQ(face_->reserve_memzone(heap_, "biggest", 0, options, zone), 0) << face_->message();
      EXPECT_EQ(zone.length, nocross);
      EXPECT_EQ(reinterpret_cast<std::uintptr_t>(zone.addr) % nocross, 0u);
      ASSERT_EQ(face_->free_memzone("biggest"), 0) << face_->message();
      options.nocross_in_addresses = false;  // the same request in offsets, or IOVAs, is served elsewhere
      ASSERT_EQ(face_->reserve_memzone(heap_, "biggest", 0, options, zone), 0) << face_->message();
      EXPECT_NE(reinterpret_cast<std::uintptr_t>(zone.addr) % nocross, 0u);
      ASSERT_EQ(face_->free_memzone("biggest"), 0) << face_->message();
      options.nocross_in_addresses = true;
    }
  }
  ASSERT_EQ(face_->drain_region(region, std::chrono::seconds(30), nullptr), 0) << face_->message();
  ASSERT_EQ(face_->remove_region(region, nullptr), 0) << face_->message();
}

TEST_P(Constraints, IovaContiguous) {
  AllocOptions options;
  options.iova_contiguous = true;
  options.region = small_id_;
  for_many(options, kRunPages * kOsPage, [&](const std::byte* p, std::size_t size) {
    bool contiguous = false;
    EXPECT_EQ(face_->iova_contiguous(p, size, contiguous), 0);
    EXPECT_TRUE(contiguous);
    EXPECT_EQ(iova(p + size - 1) - iova(p), size - 1) << "asked byte by byte";
  });
  void* p = nullptr;
  EXPECT_EQ(face_->allocate(heap_, kRunPages * kOsPage + 1, options, p), -ENOMEM) << "no run is that long";
  options.iova_contiguous = false;
  EXPECT_EQ(face_->allocate(heap_, kRunPages * kOsPage + 1, options, p), 0) << face_->message();
}

TEST_P(Constraints, NocrossInIovaSpace) {
  AllocOptions options;
  options.iova_contiguous = true;
  options.nocross = 16 * kKiB;
  options.region = small_id_;
  for_many(options, 16 * kKiB, [&](const std::byte* p, std::size_t size) {
    EXPECT_EQ(iova(p) / options.nocross, (iova(p) + size - 1) / options.nocross);
  });
}

TEST_P(Constraints, DmaMask) {
  AllocOptions options;
  options.dma_bits = 32;
  for_many(options, 32 * kKiB, [&](const std::byte* p, std::size_t size) {
    EXPECT_TRUE(small_.contains(p));
    EXPECT_LT(iova(p + size - 1), std::uint64_t{1} << 32);
  });
  options.dma_bits = 41;
  for_many(options, 32 * kKiB, [&](const std::byte*, std::size_t) {});
  options.dma_bits = 28;  // the first IOVA is just beyond
  void* p = nullptr;
  EXPECT_EQ(face_->allocate(heap_, 64, options, p), -ENOMEM);
}

TEST_P(Constraints, RegionNodeAndPageSize) {
  const auto in_large = [&](const std::byte* p, std::size_t) { EXPECT_TRUE(large_.contains(p)); };
  const auto in_small = [&](const std::byte* p, std::size_t) { EXPECT_TRUE(small_.contains(p)); };
  AllocOptions options;
  options.region = large_id_;
  for_many(options, 16 * kKiB, in_large);
  options = AllocOptions{};
  options.numa_node = 0;
  for_many(options, 16 * kKiB, in_small);
  options.numa_node = 1;
  for_many(options, 16 * kKiB, in_large);
  options = AllocOptions{};
  options.os_page_size = 64 * kKiB;
  for_many(options, 16 * kKiB, in_large);
  options.os_page_size = kOsPage;
  for_many(options, 16 * kKiB, in_small);
}

TEST_P(Constraints, Window) {
  AllocOptions options;
  options.region = large_id_;
  options.min_offset = kMiB + 192;
  options.max_offset = 2 * kMiB;
  for_many(options, 8 * kKiB, [&](const std::byte* p, std::size_t size) {
    EXPECT_GE(p, large_.base() + kMiB + 192);
    EXPECT_LE(p + size, large_.base() + 2 * kMiB);
  });
}

TEST_P(Constraints, Placement) {
  AllocOptions low;
  low.placement = Placement::low;
  low.region = large_id_;
  AllocOptions high = low;
  high.placement = Placement::high;
  void* a = nullptr;
  void* b = nullptr;
  void* c = nullptr;
  ASSERT_EQ(face_->allocate(heap_, kOsPage, low, a), 0) << face_->message();
  ASSERT_EQ(face_->allocate(heap_, kOsPage, high, b), 0) << face_->message();
  ASSERT_EQ(face_->allocate(heap_, kOsPage, low, c), 0) << face_->message();
  EXPECT_EQ(a, large_.base()) << "the lowest offset that fits";
  EXPECT_EQ(b, large_.base() + large_.length() - kOsPage) << "the highest offset that fits";
  EXPECT_EQ(c, large_.base() + kOsPage);
}

TEST_P(Constraints, AllAtOnceAndForMemzones) {
  AllocOptions options;
  options.align = 2048;
  options.nocross = 16 * kKiB;
  options.iova_contiguous = true;
  options.dma_bits = 32;
  options.numa_node = 0;
  options.min_offset = kMiB;
  options.max_offset = 3 * kMiB;
  for (int i = 0; i < 20; ++i) {
    MemzoneInfo zone;
    ASSERT_EQ(face_->reserve_memzone(heap_, ("zone " + std::to_string(i)).c_str(), 9000, options, zone), 0)
        << face_->message();
    const auto* p = static_cast<const std::byte*>(zone.addr);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(p) % 2048, 0u);
    EXPECT_GE(p, small_.base() + kMiB);
    EXPECT_LE(p + 9000, small_.base() + 3 * kMiB);
    EXPECT_EQ(iova(p + 8999) - iova(p), 8999u);
    EXPECT_EQ(iova(p) / options.nocross, (iova(p) + 8999) / options.nocross);
    EXPECT_EQ(static_cast<std::uint64_t>(zone.iova), iova(p));
    EXPECT_EQ(zone.os_page_size, kOsPage);
    EXPECT_EQ(zone.numa_node, 0);
    RegionPtr ptr;
    ASSERT_EQ(face_->to_region_ptr(p, ptr), 0);
    EXPECT_EQ(zone.ptr, ptr);
  }
}

TEST_P(Constraints, RegionsTellWhatTheyAre) {
  RegionInfo info;
  ASSERT_EQ(face_->region_info(small_id_, info), 0);
  EXPECT_EQ(info.base, small_.base());
  EXPECT_EQ(info.length, small_.length());
  EXPECT_EQ(info.os_page_size, kOsPage);
  EXPECT_EQ(info.iova_runs, small_.length() / kOsPage / kRunPages);
  EXPECT_EQ(info.heap_id, heap_.id());
  EXPECT_EQ(info.numa_node, 0);
  EXPECT_EQ(info.kind, BackingKind::external);
  EXPECT_TRUE(info.external && info.cpu_accessible && !info.draining && !info.grown);
  std::vector<IovaRun> runs;
  ASSERT_EQ(face_->list_iova_runs(small_id_, runs), 0);
  ASSERT_EQ(runs.size(), info.iova_runs);
  for (std::size_t i = 0; i < runs.size(); ++i) {
    EXPECT_EQ(runs[i].offset, i * kRunPages * kOsPage);
    EXPECT_EQ(runs[i].length, kRunPages * kOsPage);
    EXPECT_EQ(runs[i].iova, iova_of_page(i * kRunPages));
  }
  BackingSpec backing;
  backing.kind = BackingKind::memfd;
  backing.length = kMiB;
  backing.iova_source = IovaSource::identity;
  RegionId own;
  ASSERT_EQ(face_->add_backing(heap_, backing, own), 0) << face_->message();
  ASSERT_EQ(face_->region_info(own, info), 0);
  EXPECT_EQ(info.kind, BackingKind::memfd);
  EXPECT_FALSE(info.external);
  EXPECT_GE(info.fd, 0);
  EXPECT_EQ(iova(info.base), reinterpret_cast<std::uintptr_t>(info.base));
}

INSTANTIATE_TEST_SUITE_P(, Constraints,
                         testing::Combine(testing::Values(FaceKind::cpp, FaceKind::c),
                                          testing::Values(Style::binned, Style::exact)),
                         [](const auto& test) {
                           return std::string(name_of(std::get<0>(test.param))) +
                                  (std::get<1>(test.param) == Style::binned ? "_Binned" : "_Exact");
                         });

TEST(Iovas, AreThoseOfTheTableWithAndWithoutBadPages) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain);
  auto heap = domain->create_heap("h");
  ASSERT_TRUE(heap);
  constexpr std::size_t kPages = 200;
  const Memory memory(kPages * kOsPage);
  RegionSpec spec;
  spec.base = memory.base();
  spec.length = memory.length();
  spec.os_page_size = kOsPage;
  // One region after the other, in the same place: scattered pages, with bad ones among them or not.
  for (const std::size_t bad : {0u, 3u, 0u, 1u, 0u, 200u, 0u}) {
    SCOPED_TRACE(bad);
    std::vector<Iova> iovas(kPages);
    for (std::size_t i = 0; i < kPages; ++i) iovas[i] = Iova{(i * 77 % kPages * 2 + 1) * kOsPage};
    for (std::size_t i = 0; bad != 0 && i < kPages; i += (kPages + bad - 1) / bad) iovas[i] = kBadIova;
    spec.iovas = iovas;
    auto region = domain->add_region(*heap, spec);
    ASSERT_TRUE(region) << region.error().message();
    for (std::size_t i = 0; i < kPages; ++i) {
      for (const std::size_t byte : {std::size_t{0}, std::size_t{77}, kOsPage - 1}) {
        const auto found = domain->iova_of(static_cast<std::byte*>(spec.base) + i * kOsPage + byte);
        ASSERT_TRUE(found);
        EXPECT_EQ(*found,
                  iovas[i] == kBadIova ? kBadIova : Iova{static_cast<std::uint64_t>(iovas[i]) + byte});
      }
    }
    ASSERT_TRUE(domain->remove_region(*region));
  }
}

}  // namespace
}  // namespace extmem::test
