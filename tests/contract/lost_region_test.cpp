// A region whose memory went with the last process that had it: a memfd has no name.
#include <gtest/gtest.h>

#include <cerrno>
#include <memory>
#include <string>
#include <vector>

#include "contract/companion.hpp"
#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "contract/state.hpp"

namespace extmem::test {
namespace {

class LostRegion : public testing::TestWithParam<FaceKind> {};
INSTANTIATE_TEST_SUITE_P(, LostRegion, testing::Values(FaceKind::cpp, FaceKind::c),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(LostRegion, SaysSoAndCanBeRemoved) {
  RuntimeDirectory directory;
  for (const bool killed : {false, true}) {
    SCOPED_TRACE(killed ? "killed" : "left");
    const std::string name = killed ? "killed" : "left";
    {
      Companion other;
      ASSERT_EQ(other.ask(words("open", name, directory.path(), "create")).substr(0, 2), "ok");
      ASSERT_EQ(other.ask("heap_new h"), "ok");
      ASSERT_EQ(other.ask("add memfd 4194304").substr(0, 2), "ok");
      ASSERT_EQ(other.ask("zone_reserve z 5000").substr(0, 2), "ok");
      if (killed) {
        other.kill();
      } else {
        ASSERT_EQ(other.ask("close"), "ok");
      }
    }
    const auto face = make_face(GetParam());
    OpenOptions options;
    const std::string path = directory.path();
    options.directory = path.c_str();
    options.mode = OpenMode::open_only;
    ASSERT_EQ(face->open(name.c_str(), options), 0) << face->message();
    // Its records are whole, and that is what verify looks at; where the memory is missed, the error says why.
    std::vector<Breach> breaches;
    ASSERT_EQ(face->verify(breaches), 0);
    EXPECT_TRUE(breaches.empty()) << breaches[0].what;
    MemzoneInfo zone;
    ASSERT_EQ(face->find_memzone("z", zone), 0) << face->message();
    EXPECT_EQ(zone.addr, nullptr);
    void* p = nullptr;
    EXPECT_EQ(face->from_region_ptr(zone.ptr, p), -ENXIO);
    EXPECT_NE(face->message().find("went with the last process that had it"), std::string::npos)
        << face->message();
    // What the error advises.
    std::vector<RegionInfo> regions;
    ASSERT_EQ(face->list_regions(regions), 0) << face->message();
    ASSERT_EQ(regions.size(), 1u);
    EXPECT_EQ(face->remove_region(regions[0].id, nullptr), -EBUSY);
    EXPECT_EQ(face->free_memzone("z"), 0) << face->message();
    EXPECT_EQ(face->remove_region(regions[0].id, nullptr), 0) << face->message();
    ASSERT_EQ(face->verify(breaches), 0);
    EXPECT_TRUE(breaches.empty()) << breaches[0].what;
    face->close();
  }
}

}  // namespace
}  // namespace extmem::test
