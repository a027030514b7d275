#include "os/kernel_text.hpp"

#include <gtest/gtest.h>

#include <cerrno>
#include <set>
#include <string>

#include "unit/os/child.hpp"

namespace extmem::os {
namespace {

TEST(KernelText, TakesNumbers) {
  std::string_view text = "  12,034 18446744073709551615 18446744073709551616";
  EXPECT_EQ(take_number(text), 12U);
  EXPECT_EQ(take_number(text), std::nullopt);
  text.remove_prefix(1);
  EXPECT_EQ(take_number(text), 34U);
  EXPECT_EQ(take_number(text), UINT64_MAX);
  EXPECT_EQ(take_number(text), std::nullopt) << "beyond 64 bits";
  EXPECT_EQ(text, " 18446744073709551616");
  text = "";
  EXPECT_EQ(take_number(text), std::nullopt);
  text = "-1";
  EXPECT_EQ(take_number(text), std::nullopt);
}

TEST(KernelText, FindsANumberByTheStartOfItsLine) {
  const std::string_view text = "Free:  1 kB\nTotalFree: 2\nKey: x\nLast: 3";
  EXPECT_EQ(number_after(text, "Free:"), 1U);
  EXPECT_EQ(number_after(text, "TotalFree:"), 2U);
  EXPECT_EQ(number_after(text, "Last:"), 3U);
  EXPECT_EQ(number_after(text, "Key:"), std::nullopt);
  EXPECT_EQ(number_after(text, "Other:"), std::nullopt);
}

TEST(KernelText, ReadsFiles) {
  const test::TestFolder folder;
  ASSERT_TRUE(test::write_file(folder.file("a"), "  42\n"));
  std::array<char, 4> small;
  EXPECT_EQ(read_text(folder.file("a").c_str(), small), "  42");
  EXPECT_EQ(read_number(folder.file("a").c_str()), 42U);
  EXPECT_EQ(read_text(folder.file("b").c_str(), small), std::nullopt);
  EXPECT_EQ(errno, ENOENT);
  EXPECT_EQ(read_text(folder.path().c_str(), small), std::nullopt);
  EXPECT_EQ(errno, EISDIR);
}

TEST(KernelText, BuildsPaths) {
  Path path("/sys/");
  path.add("node").add(std::uint64_t{17}).add("/x");
  EXPECT_STREQ(path.c_str(), "/sys/node17/x");
  EXPECT_TRUE(path.ok());
  for (int i = 0; i < 100; ++i) path.add("0123456789");
  EXPECT_FALSE(path.ok());
  EXPECT_LT(std::string(path.c_str()).size(), 256U);
}

TEST(KernelText, WalksAFolderOfAnySize) {
  const test::TestFolder folder;
  std::set<std::string> wanted;
  for (int i = 0; i < 200; ++i) {
    const std::string name = "a-name-of-some-length-" + std::to_string(i);
    wanted.insert(name);
    ASSERT_TRUE(test::write_file(folder.file(name), ""));
  }
  std::set<std::string> found;
  FolderReader reader(folder.path().c_str());
  while (const auto name = reader.next()) found.emplace(*name);
  EXPECT_EQ(found, wanted);
  EXPECT_EQ(reader.next(), std::nullopt);
  EXPECT_EQ(FolderReader(folder.file("none").c_str()).next(), std::nullopt);
}

}  // namespace
}  // namespace extmem::os
