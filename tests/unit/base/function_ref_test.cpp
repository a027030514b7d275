#include "extmem/function_ref.hpp"

#include <gtest/gtest.h>

#include <type_traits>

namespace extmem {
namespace {

int twice(int a) { return 2 * a; }
int thrice(int a) noexcept { return 3 * a; }

int call(FunctionRef<int(int)> function) { return function ? function(7) : -1; }
int last = 0;
int noted(int a) { return last = a; }
void tell(FunctionRef<void(int)> function) { function(5); }
struct Options {
  FunctionRef<int(int)> function{};
};

TEST(FunctionRef, TakesLambdasFunctionsAndPointersToThem) {
  int more = 1;
  const auto lambda = [&](int a) { return a + more; };
  EXPECT_EQ(call(lambda), 8);
  EXPECT_EQ(call([](int a) { return a - 1; }), 6);
  EXPECT_EQ(call(twice), 14);
  EXPECT_EQ(call(&twice), 14);
  EXPECT_EQ(call(thrice), 21);
  int (*pointer)(int) = twice;
  EXPECT_EQ(call(pointer), 14);
  pointer = nullptr;
  EXPECT_EQ(call(pointer), -1);
  EXPECT_EQ(call({}), -1);
}

TEST(FunctionRef, KeepsAPointerToAFunctionByValue) {
  const Options options{.function = &twice};  // the pointer itself is gone by now
  EXPECT_EQ(options.function(4), 8);
  const FunctionRef<int(int)> copy = options.function;
  EXPECT_EQ(copy(5), 10);
}

TEST(FunctionRef, DropsAResultThatNobodyWants) {
  tell(noted);
  EXPECT_EQ(last, 5);
  tell([](int a) { return last = a + 1; });
  EXPECT_EQ(last, 6);
}

static_assert(!std::is_constructible_v<FunctionRef<int(int)>, int>);
static_assert(!std::is_constructible_v<FunctionRef<int(int)>, int (*)(int*)>);

}  // namespace
}  // namespace extmem
