// Pointers for shared structures: right at any address, and good enough for a standard container.
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <numeric>
#include <vector>

#if __has_include(<boost/container/map.hpp>)
#include <boost/container/deque.hpp>
#include <boost/container/list.hpp>
#include <boost/container/map.hpp>
#include <boost/container/set.hpp>
#include <boost/container/string.hpp>
#include <boost/container/vector.hpp>
#endif

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

constexpr std::size_t kLength = 4 << 20;

/// The same memory at two addresses, as two processes would see it.
class RegionPointer : public testing::Test {
 protected:
  void SetUp() override {
    fd_ = ::memfd_create("region_pointer_test", MFD_CLOEXEC);
    ASSERT_GE(fd_, 0);
    ASSERT_EQ(::ftruncate(fd_, kLength), 0);
    here_ = map();
    there_ = map();
    ASSERT_NE(here_, there_);
    auto domain = Domain::create();
    ASSERT_TRUE(domain.ok());
    domain_ = std::move(*domain);
    heap_ = *domain_.create_heap("shared");
    RegionSpec spec;
    spec.base = here_;
    spec.length = kLength;
    region_ = *domain_.add_region(heap_, spec);
  }
  void TearDown() override {
    domain_ = Domain{};
    ::munmap(here_, kLength);
    ::munmap(there_, kLength);
    ::close(fd_);
  }
  char* map() const {
    return static_cast<char*>(::mmap(nullptr, kLength, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0));
  }
  /// Where the other "process" sees what lies at p here.
  template <typename T>
  T* other(T* p) const {
    return reinterpret_cast<T*>(there_ + (reinterpret_cast<char*>(p) - here_));
  }

  int fd_ = -1;
  char* here_ = nullptr;
  char* there_ = nullptr;
  Domain domain_;
  Heap heap_;
  RegionId region_{};
};

struct Node {
  int value = 0;
  offset_pointer<Node> next;
};

TEST_F(RegionPointer, LinksHoldAtEveryAddress) {
  Node* first = nullptr;
  for (int i = 0; i < 1000; ++i) {
    auto* node = new (*heap_.allocate(sizeof(Node))) Node;
    node->value = i;
    node->next = first;
    first = node;
  }
  int expected = 1000;
  for (const Node* node = other(first); node != nullptr; node = node->next.get())
    EXPECT_EQ(node->value, --expected);
  EXPECT_EQ(expected, 0);
}

TEST_F(RegionPointer, BehavesAsAPointer) {
  auto* array = static_cast<int*>(*heap_.allocate(100 * sizeof(int)));
  std::iota(array, array + 100, 0);
  offset_pointer<int> p;
  EXPECT_FALSE(p);
  EXPECT_EQ(p, nullptr);
  EXPECT_EQ(p.get(), nullptr);
  p = array;
  EXPECT_TRUE(p);
  const offset_pointer<int> end = p + 100;
  EXPECT_EQ(end - p, 100);
  EXPECT_LT(p, end);
  EXPECT_EQ(std::accumulate(p, end, 0), 4950);
  EXPECT_EQ(*std::lower_bound(p, end, 42), 42);
  EXPECT_EQ(p[7], 7);
  EXPECT_EQ(*++p, 1);
  EXPECT_EQ(*p++, 1);
  EXPECT_EQ(*--p, 1);
  const offset_pointer<const int> constant = p;  // copies move the distance, not the target
  EXPECT_EQ(constant.get(), array + 1);
  const offset_pointer<void> untyped = p;
  EXPECT_EQ(static_cast<offset_pointer<int>>(untyped).get(), array + 1);
  EXPECT_EQ(std::to_address(p), array + 1);
  EXPECT_EQ(std::pointer_traits<offset_pointer<int>>::pointer_to(array[5]).get(), array + 5);
}

TEST_F(RegionPointer, AVectorCanBeReadFromAnywhere) {
  using Vector = std::vector<int, shared_allocator<int>>;
  auto* vector = new (*heap_.allocate(sizeof(Vector))) Vector(shared_allocator<int>(heap_, region_));
  for (int i = 0; i < 10'000; ++i) vector->push_back(i);
  const Vector* seen = other(vector);
  ASSERT_EQ(seen->size(), 10'000u);
  EXPECT_TRUE(std::equal(vector->begin(), vector->end(), seen->begin()));
  EXPECT_EQ(&(*seen)[0], other(&(*vector)[0]));
  Vector copy(*vector);
  copy.erase(copy.begin() + 5, copy.end() - 5);
  EXPECT_EQ(copy.size(), 10u);
  copy.swap(*vector);
  EXPECT_EQ(seen->size(), 10u);
  vector->~Vector();
  copy = Vector(shared_allocator<int>(heap_, region_));
  ASSERT_TRUE(heap_.deallocate(vector).ok());
  ASSERT_TRUE(heap_.flush().ok());
  EXPECT_EQ(heap_.stats()->used_count, 0u);
}

static_assert(std::is_reference_v<offset_pointer<void>::reference>, "as Boost's pointer_traits want it");
static_assert(std::is_same_v<offset_pointer<const int>::reference, const int&>);

TEST_F(RegionPointer, IsMadeOfZeroAndOfNull) {
  const offset_pointer<int> zero(0), null(nullptr);
  offset_pointer<int> set(here_ == nullptr ? nullptr : reinterpret_cast<int*>(here_));
  EXPECT_FALSE(zero);
  EXPECT_FALSE(null);
  EXPECT_TRUE(set);
  set = nullptr;
  EXPECT_EQ(set, zero);
  set = reinterpret_cast<int*>(here_);
  set = 0;
  EXPECT_EQ(set, nullptr);
  const offset_pointer<offset_pointer<int>> to_pointer(0);
  EXPECT_FALSE(to_pointer);
}

TEST_F(RegionPointer, SmallObjectsOfOneRegionTakeNoWholePages) {
  AllocOptions pinned;
  pinned.region = region_;
  for (int i = 0; i < 10'000; ++i) ASSERT_TRUE(heap_.allocate(100, pinned).ok()) << i;
  // Where the heap has another region, they still lie in the one that is asked for.
  BackingSpec spec;
  spec.length = kLength;
  const auto second = domain_.add_backing(heap_, spec);
  ASSERT_TRUE(second.ok());
  for (int i = 0; i < 2'000; ++i) {
    pinned.region = i % 2 == 0 ? region_ : *second;
    const auto p = heap_.allocate(64 + static_cast<std::size_t>(i) % 100, pinned);
    ASSERT_TRUE(p.ok()) << i;
    ASSERT_EQ(domain_.region_of(*p).value_or(RegionId{}), pinned.region) << i;
    if (i % 3 != 0) continue;
    ASSERT_TRUE(heap_.deallocate(*p).ok());
  }
  EXPECT_EQ(heap_.verify().value_or(1), 0u);
}

#if __has_include(<boost/container/map.hpp>)
TEST_F(RegionPointer, ServesBoostsContainers) {
  namespace bc = boost::container;
  const shared_allocator<int> in_region(heap_, region_);
  using String = bc::basic_string<char, std::char_traits<char>, shared_allocator<char>>;
  struct Root {
    explicit Root(const shared_allocator<int>& a)
        : numbers(a), names(std::less<int>(), a), list(a), deque(a), set(std::less<int>(), a), text(a) {}
    bc::vector<int, shared_allocator<int>> numbers;
    bc::map<int, String, std::less<int>, shared_allocator<std::pair<const int, String>>> names;
    bc::list<int, shared_allocator<int>> list;
    bc::deque<int, shared_allocator<int>> deque;
    bc::set<int, std::less<int>, shared_allocator<int>> set;
    String text;
  };
  Root* const root = new (*heap_.allocate(sizeof(Root))) Root(in_region);
  for (int i = 0; i < 1000; ++i) {
    root->numbers.push_back(i);
    root->names.emplace(i, String("a text that is too long to lie in the object itself", in_region));
    root->list.push_back(i);
    root->deque.push_back(i);
    root->set.insert(i);
  }
  root->text = "another one that is far too long to lie in the object itself";
  const Root* const seen = other(root);
  EXPECT_EQ(seen->numbers[999], 999);
  EXPECT_EQ(seen->names.size(), 1000u);
  EXPECT_EQ(seen->names.find(500)->second, "a text that is too long to lie in the object itself");
  EXPECT_EQ(seen->list.back(), 999);
  EXPECT_EQ(seen->deque[777], 777);
  EXPECT_EQ(seen->set.count(333), 1u);
  EXPECT_EQ(seen->text, root->text);
  root->~Root();
  ASSERT_TRUE(heap_.deallocate(root).ok());
  EXPECT_EQ(heap_.stats()->used_count, 0u);
}
#endif

TEST_F(RegionPointer, NamesAByteOfTheDomain) {
  auto* value = static_cast<long*>(*heap_.allocate(sizeof(long)));
  *value = 4711;
  const auto named = region_pointer<long>::from(domain_, value);
  ASSERT_TRUE(named.ok());
  EXPECT_EQ(*named->in(domain_), value);
  EXPECT_EQ(*region_pointer<long>{}.in(domain_), nullptr);
  EXPECT_FALSE(*region_pointer<long>::from(domain_, nullptr));
  long foreign = 0;
  EXPECT_EQ(region_pointer<long>::from(domain_, &foreign).error().code(), EFAULT);
  EXPECT_EQ(region_pointer<long>{RegionPtr{~std::uint64_t{0}}}.in(domain_).error().code(), EFAULT);
}

}  // namespace
}  // namespace extmem
