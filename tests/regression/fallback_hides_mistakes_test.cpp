// What broke: with a fallback asked for, any mistake in a backing's spec (no path, a page size of 3, a kind that cannot be
// mapped) gave anonymous memory instead of an error.
#include <gtest/gtest.h>

#include <cerrno>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(FallbackHidesMistakes, NoLonger) {
  auto domain = Domain::create();
  ASSERT_TRUE(domain.ok());
  auto heap = domain->create_heap("h");
  ASSERT_TRUE(heap.ok());
  for (const Fallback fallback : {Fallback::anonymous, Fallback::thp}) {
    const auto refused = [&](const BackingSpec& spec, const char* what) {
      const auto added = domain->add_backing(*heap, spec);
      EXPECT_EQ(added.error().code(), EINVAL) << what;
      EXPECT_EQ(heap->stats()->regions, 0u) << what;
    };
    BackingSpec spec;
    spec.length = 2 << 20;
    spec.fallback = fallback;
    spec.kind = BackingKind::external;
    refused(spec, "external");
    spec.kind = static_cast<BackingKind>(77);
    refused(spec, "unknown kind");
    for (const BackingKind kind : {BackingKind::file, BackingKind::dax, BackingKind::shm}) {
      spec.kind = kind;
      refused(spec, "no path");
    }
    spec.kind = BackingKind::hugetlb;
    spec.os_page_size = 3;
    refused(spec, "an OS page size that is no power of two");
  }
  // What cannot be had here is still replaced.
  BackingSpec spec;
  spec.kind = BackingKind::dax;
  spec.path = "/proc/self/no-such-device";
  spec.length = 2 << 20;
  spec.fallback = Fallback::anonymous;
  const auto added = domain->add_backing(*heap, spec);
  ASSERT_TRUE(added.ok()) << added.error().message();
  EXPECT_EQ(domain->region_info(*added)->kind, BackingKind::anonymous);
}

}  // namespace
}  // namespace extmem
