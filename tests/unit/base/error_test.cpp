#include "base/error.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <string>
#include <string_view>

#include "base/crash_point.hpp"
#include "base/relaxed.hpp"

namespace extmem::base {
namespace {

Error make_error() { return EXTMEM_ERROR(EBUSY, "somebody uses it"); }
Error make_sys_error(int code) { return EXTMEM_SYS_ERROR(code, "the system said no"); }

TEST(Error, OfACheckHasItsCodeAndMessage) {
  const Error error = make_error();
  EXPECT_TRUE(static_cast<bool>(error));
  EXPECT_EQ(error.code(), EBUSY);
  EXPECT_STREQ(error.message(), "somebody uses it");
  EXPECT_EQ(make_error().info(), error.info());  // constant data: making one twice gives the same
}

TEST(Error, WithoutFailureHasCodeZeroAndText) {
  constexpr Error none;
  EXPECT_FALSE(static_cast<bool>(none));
  EXPECT_EQ(none.code(), 0);
  EXPECT_STREQ(none.message(), "no error");
}

TEST(Error, OfTheSystemKeepsEveryErrno) {
  for (int code = 1; code < 134; ++code) {
    EXPECT_EQ(make_sys_error(code).code(), code);
    EXPECT_STREQ(make_sys_error(code).message(), "the system said no");
  }
  for (const int strange : {0, -1, -EINVAL, 134, 4096, 1 << 30})
    EXPECT_EQ(make_sys_error(strange).code(), EIO) << strange;
}

TEST(Error, ComparesByCode) {
  EXPECT_EQ(make_error(), make_sys_error(EBUSY));
  EXPECT_FALSE(make_error() == make_sys_error(ENOMEM));
  EXPECT_FALSE(make_error() == Error{});
}

Result<int> half(int n) {
  if (n % 2 != 0) return EXTMEM_ERROR(EINVAL, "odd");
  return n / 2;
}
Result<std::string> quarter_text(int n) {
  EXTMEM_TRY(once, half(n));
  EXTMEM_TRY(twice, half(once));
  once = 0;  // a reference to our own copy: it may be changed
  return std::to_string(twice + once);
}
Result<void> check_even(int n, bool& reached) {
  EXTMEM_TRY_VOID(half(n));
  EXTMEM_TRY_VOID(Result<void>{});
  reached = true;
  return {};
}

TEST(Result, TryHandsOnTheErrorOrTheValue) {
  EXPECT_EQ(quarter_text(12).value(), "3");
  EXPECT_EQ(quarter_text(5).error().code(), EINVAL);
  EXPECT_EQ(quarter_text(6).error().code(), EINVAL);
  bool reached = false;
  EXPECT_FALSE(check_even(1, reached).ok());
  EXPECT_FALSE(reached);
  EXPECT_TRUE(check_even(2, reached).ok());
  EXPECT_TRUE(reached);
}

TEST(Result, MovesItsValueOut) {
  Result<std::unique_ptr<int>> result(std::make_unique<int>(7));
  ASSERT_TRUE(result);
  const std::unique_ptr<int> taken = *std::move(result);
  EXPECT_EQ(*taken, 7);
  EXPECT_EQ(half(3).value_or(9), 9);
  EXPECT_EQ(half(8).value_or(9), 4);
}

TEST(Result, OfAPointerIsTwoWordsAtMost) {
  static_assert(sizeof(Result<void*>) == 16);
  static_assert(std::is_trivially_copyable_v<Result<void*>>);
  Result<void*> nothing = make_error();
  EXPECT_FALSE(nothing);
  EXPECT_EQ(nothing.value_or(&nothing), &nothing);
}

TEST(Relaxed, ReadsAndWritesLikeTheFieldItIs) {
  Relaxed<std::uint16_t> word = 65535;
  word.add(2);
  EXPECT_EQ(word, 1u);
  Relaxed<std::uint16_t> other = word;
  other = 7;
  word = other;
  EXPECT_EQ(word.get(), 7);
  static_assert(sizeof(Relaxed<std::uint64_t>) == 8 && sizeof(Relaxed<std::uint16_t>) == 2);
}

TEST(CrashPoint, CallsTheHookOnlyWhileThereIsOne) {
  static std::multiset<std::string> seen;
  crash_point("before");
  crash_point_hook = [](const char* name) { seen.insert(name); };
  crash_point("inside");
  crash_point("inside");
  crash_point_hook = nullptr;
  crash_point("after");
  EXPECT_EQ(seen, (std::multiset<std::string>{"inside", "inside"}));
}

}  // namespace
}  // namespace extmem::base
