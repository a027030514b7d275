// What broke: the heap map took any handle whose number a heap has now: of a destroyed heap, or of another domain's.
#include <gtest/gtest.h>

#include <cerrno>

#include "extmem/extmem.hpp"

namespace extmem {
namespace {

TEST(MapOfAStaleHeap, IsRefused) {
  auto domain = Domain::create();
  auto other = Domain::create();
  ASSERT_TRUE(domain.ok() && other.ok());
  const auto sink = [](std::string_view) { return true; };
  auto heap = domain->create_heap("h");
  auto foreign = other->create_heap("h");
  ASSERT_TRUE(heap.ok() && foreign.ok());
  HeapMapOptions options;
  options.heap = *heap;
  EXPECT_TRUE(write_heap_map(*domain, sink, options).ok());
  options.heap = *foreign;
  EXPECT_EQ(write_heap_map(*domain, sink, options).error().code(), ESTALE);
  ASSERT_TRUE(domain->destroy_heap(*heap).ok());
  ASSERT_TRUE(domain->create_heap("h").ok());
  options.heap = *heap;
  EXPECT_EQ(write_heap_map(*domain, sink, options).error().code(), ESTALE);
}

}  // namespace
}  // namespace extmem
