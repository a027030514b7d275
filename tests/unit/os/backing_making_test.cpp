// Who asked to know of a file that is made knows of it before it is there by its name, on every file system.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "os/backing.hpp"
#include "os/shared_mapping.hpp"
#include "unit/os/backing_fixture.hpp"

namespace extmem::os {
namespace {

using test::kMiB;
using test::TestFolder;

bool without_nameless_files() {
  return test::fail_system_call(SYS_openat, EOPNOTSUPP, 2, O_TMPFILE & ~O_DIRECTORY,
                                O_TMPFILE & ~O_DIRECTORY);
}

std::vector<std::string> files_in(const TestFolder& folder) {
  std::vector<std::string> names;
  for (const auto& file : std::filesystem::directory_iterator(folder.path()))
    names.push_back(file.path().filename().string());
  std::sort(names.begin(), names.end());
  return names;
}

/// What was told, and what was there then.
struct Told {
  bool made;
  std::string name, aside;
  std::vector<std::string> files;
};

/// Makes the file "f" in the folder, removes it again, and writes down what was told.
std::string make(const TestFolder& folder, std::vector<Told>& told) {
  const auto hear = [&](const NewFile& file) -> Result<void> {
    told.push_back(Told{file.fd >= 0, file.name, file.aside, files_in(folder)});
    return {};
  };
  const std::string path = folder.file("f");
  BackingRequest request = test::ask(BackingKind::file, kMiB);
  request.path_or_name = path.c_str();
  request.unlink_on_close = true;
  request.making = hear;
  auto mapping = create_backing(request);
  REQUIRE_OK(mapping);
  REQUIRE(mapping->created);
  REQUIRE(files_in(folder) == std::vector<std::string>{"f"});
  char where[256];
  REQUIRE_OK(path_of(mapping->fd, where, sizeof where));
  REQUIRE(path == where);
  REQUIRE_OK(close_backing(*mapping));
  REQUIRE(files_in(folder).empty());
  return "";
}

TEST(BackingMaking, IsToldOfANamelessFile) {
  RUN_IN_CHILD([] {
    const TestFolder folder;
    std::vector<Told> told;
    if (const std::string wrong = make(folder, told); !wrong.empty()) return wrong;
    if (told.size() != 1) return std::string("skip: no nameless files here");
    REQUIRE(told[0].made && told[0].name == "f" && told[0].aside.empty() && told[0].files.empty());
    return std::string();
  });
}

std::string is_aside_first(bool renamed, bool linked) {
  const TestFolder folder;
  std::vector<Told> told;
  if (!without_nameless_files()) return "skip: no seccomp filters";
  if (!renamed) REQUIRE(test::fail_system_call(SYS_renameat2, EINVAL));
  if (!linked) REQUIRE(test::fail_system_call(SYS_linkat, EPERM));
  if (std::string wrong = make(folder, told); !wrong.empty()) return wrong;
  REQUIRE(told.size() == (renamed || linked ? 2u : 3u));
  REQUIRE(!told[0].made && told[0].name == "f" && told[0].files.empty());
  REQUIRE(told[0].aside.starts_with(kAsidePrefix) && told[0].aside.size() > std::strlen(kAsidePrefix) + 4);
  REQUIRE(told[0].aside.size() < 64);
  REQUIRE(told[1].made && told[1].aside == told[0].aside);
  REQUIRE(told[1].files == std::vector<std::string>{told[0].aside});
  if (told.size() == 3)
    REQUIRE(told[2].made && told[2].aside.empty() && told[2].files == std::vector<std::string>{"f"});
  const std::string before = told[0].aside;
  if (std::string wrong = make(folder, told); !wrong.empty()) return wrong;
  REQUIRE(told.back().aside != before || told.size() == 6);
  return "";
}

TEST(BackingMaking, HasANameAsideWhereFilesCannotBeWithoutOne) {
  RUN_IN_CHILD([] { return is_aside_first(true, true); });
  RUN_IN_CHILD([] { return is_aside_first(false, true); });
  RUN_IN_CHILD([] { return is_aside_first(true, false); });
  RUN_IN_CHILD([] { return is_aside_first(false, false); });
}

TEST(BackingMaking, UsesWhatSomebodyElseHasMadeMeanwhile) {
  RUN_IN_CHILD([] {
    const TestFolder folder;
    if (!without_nameless_files()) return std::string("skip: no seccomp filters");
    const std::string path = folder.file("f");
    const auto hear = [&](const NewFile&) -> Result<void> {
      (void)test::write_file(path, "theirs");
      return {};
    };
    BackingRequest request = test::ask(BackingKind::file, kMiB);
    request.path_or_name = path.c_str();
    request.making = hear;
    auto mapping = create_backing(request);
    REQUIRE_OK(mapping);
    REQUIRE(!mapping->created);
    REQUIRE(std::memcmp(mapping->addr, "theirs", 6) == 0);
    REQUIRE(files_in(folder) == std::vector<std::string>{"f"});
    REQUIRE_OK(close_backing(*mapping));
    return std::string();
  });
}

TEST(BackingMaking, LeavesNothingWhereWhoIsToldRefuses) {
  for (int refused = 1; refused <= 2; ++refused) {
    RUN_IN_CHILD([&] {
      const TestFolder folder;
      if (!without_nameless_files()) return std::string("skip: no seccomp filters");
      static constexpr ErrorInfo kNo{ENOSPC, "no"};
      int calls = 0;
      const auto hear = [&](const NewFile&) -> Result<void> {
        if (++calls == refused) return Error(&kNo);
        return {};
      };
      const std::string path = folder.file("f");
      BackingRequest request = test::ask(BackingKind::file, kMiB);
      request.path_or_name = path.c_str();
      request.making = hear;
      REQUIRE_ERROR(create_backing(request), ENOSPC);
      REQUIRE(calls == refused);
      REQUIRE(files_in(folder).empty());
      return std::string();
    });
  }
}

TEST(BackingMaking, WhatHasANameAsideIsRemovedOnlyIfItCanBeOurs) {
  const TestFolder folder;
  const std::string path = folder.file("aside");
  const auto there = [&] { return test::path_exists(path); };
  ASSERT_TRUE(test::write_file(path, "x"));
  EXPECT_TRUE(unlink_aside(path.c_str(), {}).ok());
  EXPECT_TRUE(there()) << "it holds something";
  ASSERT_TRUE(test::write_file(path, ""));
  struct stat status {};
  ASSERT_EQ(::stat(path.c_str(), &status), 0);
  EXPECT_TRUE(unlink_aside(path.c_str(), {status.st_dev, status.st_ino + 1, 0}).ok());
  EXPECT_TRUE(there()) << "it is another one";
  EXPECT_TRUE(unlink_aside(path.c_str(), {status.st_dev, status.st_ino, 0}).ok());
  EXPECT_FALSE(there());
  ASSERT_TRUE(test::write_file(path, ""));
  EXPECT_TRUE(unlink_aside(path.c_str(), {}).ok());
  EXPECT_FALSE(there());
  EXPECT_TRUE(unlink_aside(path.c_str(), {}).ok()) << "gone already";
  ASSERT_EQ(::symlink("/nowhere", path.c_str()), 0);
  EXPECT_TRUE(unlink_aside(path.c_str(), {}).ok());
  EXPECT_EQ(::unlink(path.c_str()), 0) << "a symbolic link is none of ours";
}

}  // namespace
}  // namespace extmem::os
