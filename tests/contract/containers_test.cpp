// Standard containers on a heap: through std::pmr and through the STL allocator.
#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <list>
#include <map>
#include <numeric>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "contract/memory.hpp"
#include "extmem/domain.hpp"
#include "extmem/memory_resource.hpp"

namespace extmem::test {
namespace {

template <typename T>
using Vector = std::vector<T, StlAllocator<T>>;
template <typename T>
using List = std::list<T, StlAllocator<T>>;
template <typename K, typename V>
using Map = std::map<K, V, std::less<>, StlAllocator<std::pair<const K, V>>>;
template <typename K, typename V>
using HashMap = std::unordered_map<K, V, std::hash<K>, std::equal_to<>, StlAllocator<std::pair<const K, V>>>;
using String = std::basic_string<char, std::char_traits<char>, StlAllocator<char>>;

static_assert(std::is_same_v<std::allocator_traits<StlAllocator<int>>::pointer, int*>);
static_assert(std::allocator_traits<StlAllocator<int>>::propagate_on_container_move_assignment::value);
static_assert(std::allocator_traits<StlAllocator<int>>::propagate_on_container_swap::value);
static_assert(!std::allocator_traits<StlAllocator<int>>::propagate_on_container_copy_assignment::value);
static_assert(!std::allocator_traits<StlAllocator<int>>::is_always_equal::value);

class Containers : public testing::TestWithParam<Style> {
 protected:
  Containers() {
    domain_ = std::move(*Domain::create());
    HeapOptions options;
    options.style = GetParam();
    a_ = *domain_.create_heap("a", options);
    b_ = *domain_.create_heap("b", options);
    add(a_, memory_a_);
    add(b_, memory_b_);
  }
  ~Containers() override {
    for (const Heap heap : {a_, b_}) {
      const auto stats = heap.stats();
      EXPECT_TRUE(stats);
      EXPECT_EQ(stats->used_bytes, 0u) << heap.name() << ": something leaked";
    }
    EXPECT_EQ(domain_.verify().value_or(99), 0u);
  }
  void add(Heap heap, const Memory& memory) {
    RegionSpec spec;
    spec.base = memory.base();
    spec.length = memory.length();
    const auto added = domain_.add_region(heap, spec);
    EXPECT_TRUE(added) << added.error().message();
  }
  [[nodiscard]] std::uint64_t used(Heap heap) const { return heap.stats()->used_bytes; }

  Memory memory_a_{8 * kMiB};
  Memory memory_b_{8 * kMiB};
  Domain domain_;
  Heap a_;
  Heap b_;
};

TEST_P(Containers, LiveOnTheHeap) {
  Vector<int> numbers{StlAllocator<int>(a_)};
  for (int i = 0; i < 10000; ++i) numbers.push_back(i);
  EXPECT_TRUE(memory_a_.contains(numbers.data()));
  EXPECT_EQ(std::accumulate(numbers.begin(), numbers.end(), 0), 49995000);

  Map<int, String> map{StlAllocator<std::pair<const int, String>>(a_)};
  HashMap<int, int> hash{StlAllocator<std::pair<const int, int>>(a_)};
  List<int> list{StlAllocator<int>(a_)};
  for (int i = 0; i < 500; ++i) {
    map.emplace(i, String("a string that is too long for the small buffer " + std::to_string(i),
                          StlAllocator<char>(a_)));
    hash[i] = i * i;
    list.push_front(i);
  }
  EXPECT_TRUE(memory_a_.contains(map.at(77).data()));
  EXPECT_TRUE(memory_a_.contains(&hash.at(77)));
  EXPECT_TRUE(memory_a_.contains(&list.front()));
  EXPECT_EQ(hash.at(20), 400);
  list.sort();
  EXPECT_EQ(list.front(), 0);
  map.clear();
  hash.clear();
  list.clear();
  EXPECT_EQ(map.size() + hash.size() + list.size(), 0u);
}

TEST_P(Containers, MoveAndSwapCarryTheHeapAlong) {
  Vector<int> in_a({1, 2, 3}, StlAllocator<int>(a_));
  Vector<int> in_b({4, 5}, StlAllocator<int>(b_));
  const int* data_a = in_a.data();
  const int* data_b = in_b.data();
  swap(in_a, in_b);
  EXPECT_EQ(in_a.data(), data_b);
  EXPECT_EQ(in_b.data(), data_a);
  EXPECT_EQ(in_a.get_allocator().heap(), b_);
  Vector<int> moved{StlAllocator<int>(a_)};
  moved = std::move(in_a);
  EXPECT_EQ(moved.data(), data_b) << "moving must not copy";
  EXPECT_EQ(moved.get_allocator().heap(), b_);
}

TEST_P(Containers, CopyAssignmentKeepsTheTargetsHeap) {
  Vector<int> in_a({1, 2, 3}, StlAllocator<int>(a_));
  Vector<int> in_b({4}, StlAllocator<int>(b_));
  in_b = in_a;
  EXPECT_EQ(in_b, in_a);
  EXPECT_TRUE(memory_b_.contains(in_b.data()));
  const Vector<int> copy = in_a;
  EXPECT_TRUE(memory_a_.contains(copy.data()));
}

TEST_P(Containers, AllocatorsAreEqualWhenTheHeapIs) {
  const StlAllocator<int> ints(a_);
  const StlAllocator<char> chars(ints);
  EXPECT_TRUE(ints == chars);
  EXPECT_FALSE(ints == StlAllocator<int>(b_));
  EXPECT_TRUE(ints != StlAllocator<int>(b_));
}

TEST_P(Containers, AllocatorThrowsAndLeavesTheContainerWhole) {
  Vector<char> bytes(1000, 'x', StlAllocator<char>(a_));
  EXPECT_THROW(bytes.resize(9 * kMiB), std::bad_alloc);
  EXPECT_EQ(bytes.size(), 1000u);
  EXPECT_THROW(bytes.resize(bytes.max_size() + 1), std::length_error);
  StlAllocator<std::uint64_t> words(a_);
  EXPECT_THROW((void)words.allocate(SIZE_MAX / 4), std::bad_array_new_length);
  EXPECT_THROW((void)words.allocate(SIZE_MAX / 16), std::bad_alloc);
}

TEST_P(Containers, HonourAlignmentAndTag) {
  struct alignas(256) Wide {
    char bytes[256];
  };
  const Tag tag = *domain_.intern_tag("containers");
  Vector<Wide> wide(7, StlAllocator<Wide>(a_, tag));
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(wide.data()) % 256, 0u);
  EXPECT_EQ(domain_.owner_of(wide.data())->tag, tag);
}

TEST_P(Containers, AllocateNothingAndFreeIt) {
  StlAllocator<int> ints(a_);
  int* p = ints.allocate(0);
  EXPECT_NE(p, nullptr);
  ints.deallocate(p, 0);
  HeapResource resource(a_);
  void* q = resource.allocate(0, 1);
  EXPECT_NE(q, nullptr);
  resource.deallocate(q, 0, 1);
  EXPECT_EQ(resource.refused_frees(), 0u);
}

TEST_P(Containers, PmrContainersLiveOnTheHeap) {
  HeapResource resource(a_);
  {
    std::pmr::vector<std::pmr::string> strings(&resource);
    for (int i = 0; i < 300; ++i) strings.emplace_back("a string that is too long for the small buffer");
    EXPECT_TRUE(memory_a_.contains(strings.data()));
    EXPECT_TRUE(memory_a_.contains(strings.back().data())) << "the elements use the resource too";
    std::pmr::unordered_map<int, int> hash(&resource);
    std::pmr::deque<int> deque(&resource);
    std::pmr::set<int> set(&resource);
    for (int i = 0; i < 300; ++i) {
      hash[i] = i;
      deque.push_front(i);
      set.insert(-i);
    }
    EXPECT_EQ(*set.begin(), -299);
    EXPECT_GT(used(a_), 300u * 40);
    EXPECT_THROW(strings.reserve(kMiB), std::bad_alloc);
    EXPECT_EQ(strings.size(), 300u);
  }
  EXPECT_EQ(resource.refused_frees(), 0u);
}

TEST_P(Containers, ResourcesAreEqualWhenTheHeapIs) {
  HeapResource one(a_);
  HeapResource same(a_);
  HeapResource other(b_);
  EXPECT_TRUE(one.is_equal(same));
  EXPECT_FALSE(one.is_equal(other));
  EXPECT_FALSE(one.is_equal(*std::pmr::new_delete_resource()));
  void* p = one.allocate(100, 16);
  same.deallocate(p, 100, 16);
  EXPECT_EQ(same.refused_frees(), 0u);
  same.deallocate(p, 100, 16);
  EXPECT_EQ(same.refused_frees(), 1u) << "a second free is counted, since it cannot be reported";
}

TEST_P(Containers, ResourceServesAsUpstream) {
  HeapResource resource(a_);
  std::pmr::unsynchronized_pool_resource pool(&resource);
  std::pmr::monotonic_buffer_resource monotonic(&resource);
  std::pmr::list<int> list(&pool);
  std::pmr::vector<int> vector(&monotonic);
  for (int i = 0; i < 1000; ++i) {
    list.push_back(i);
    vector.push_back(i);
  }
  EXPECT_TRUE(memory_a_.contains(&list.front()));
  EXPECT_TRUE(memory_a_.contains(vector.data()));
}

INSTANTIATE_TEST_SUITE_P(, Containers, testing::Values(Style::binned, Style::exact), [](const auto& test) {
  return std::string(test.param == Style::binned ? "Binned" : "Exact");
});

}  // namespace
}  // namespace extmem::test
