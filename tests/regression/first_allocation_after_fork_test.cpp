// In a named domain the first allocation of a fork's child was its parent's, where the parent had allocated before: it outlived
// the child. (The holder was looked up before the child joined.)
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "contract/runtime_directory.hpp"
#include "extmem/extmem.hpp"

namespace extmem::test {
namespace {

void child_holds_what_it_allocates(Style style, bool tagged, std::size_t size) {
  const RuntimeDirectory directory;
  OpenOptions options;
  options.directory = directory.c_str();
  auto domain = Domain::open("d", options);
  ASSERT_TRUE(domain.ok()) << domain.error().message();
  HeapOptions how;
  how.style = style;
  Heap heap = *domain->create_heap("h", how);
  ASSERT_TRUE(domain->add_backing(heap, {.length = 4u << 20}).ok());
  AllocOptions tag;
  if (tagged) tag.tag = *domain->intern_tag("t");
  ASSERT_TRUE(heap.allocate(size, tag).ok());
  const ::pid_t child = ::fork();
  if (child == 0) ::_exit(heap.allocate(size, tag).ok() ? 0 : 1);
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_EQ(status, 0);
  EXPECT_EQ(domain->recover()->freed_objects, 1u);
  EXPECT_EQ(heap.stats()->used_count, 1u);
}

TEST(FirstAllocationAfterFork, IsTheChilds) {
  for (const Style style : {Style::binned, Style::exact})
    for (const bool tagged : {false, true})
      for (const std::size_t size : {100u, 300'000u}) child_holds_what_it_allocates(style, tagged, size);
}

}  // namespace
}  // namespace extmem::test
