#include "os/process.hpp"

#include <gtest/gtest.h>
#include <sys/prctl.h>

#include <cerrno>

#include "os/thread.hpp"
#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

TEST(Process, LosesItsCapabilitiesWithRoot) {
  RUN_IN_CHILD([] {
    REQUIRE(test::drop_privileges());
    REQUIRE(!has_cap_sys_admin());
    REQUIRE(!has_cap_ipc_lock());
    return std::string();
  });
}

TEST(Process, KnowsItsBoot) {
  const Result<BootId> id = boot_id();
  ASSERT_TRUE(id) << id.error().message();
  EXPECT_NE(*id, BootId{});
  EXPECT_EQ(*id, *boot_id());
}

TEST(Process, HasAStartTimeThatStaysAndTellsItApart) {
  const Result<std::uint64_t> mine = process_start_time(process_id());
  ASSERT_TRUE(mine) << mine.error().message();
  EXPECT_GT(*mine, 0U);
  EXPECT_EQ(*mine, *process_start_time(process_id()));
  RUN_IN_CHILD([&] {
    // A name made to confuse: it looks like the fields that follow it.
    REQUIRE(::prctl(PR_SET_NAME, ") R 1 (2) 3") == 0);
    const Result<std::uint64_t> childs = process_start_time(process_id());
    REQUIRE_OK(childs);
    REQUIRE(*childs >= *mine);
    REQUIRE(*childs < *mine + 1'000'000);
    return std::string();
  });
}

TEST(Process, ThatIsNotThereHasNoStartTime) {
  EXPECT_EQ(process_start_time(0).error().code(), ESRCH);
  EXPECT_EQ(process_start_time(0xffffffff).error().code(), ESRCH);
}

TEST(Process, WithoutProcIsAnError) {
  const test::TestFolder folder;
  RUN_IN_CHILD([&] {
    if (::chroot(folder.path().c_str()) != 0) return std::string("skip: needs root to chroot");
    REQUIRE_ERROR(boot_id(), ENOENT);
    REQUIRE_ERROR(process_start_time(process_id()), ESRCH);
    return std::string();
  });
}

}  // namespace
}  // namespace extmem::os
