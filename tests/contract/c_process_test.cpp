// What is the C interface's own of named domains: options, reports, visitors. What they do is in named_domain_test.cpp.
#include <gtest/gtest.h>

#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>
#include <string>
#include <vector>

#include "contract/memory.hpp"
#include "contract/runtime_directory.hpp"
#include "extmem/extmem.h"

namespace extmem::test {
namespace {

class CProcess : public testing::Test {
 protected:
  CProcess() {
    options_.directory = directory_.c_str();
    EXPECT_EQ(extmem_domain_open("c", &options_, &domain_), 0) << extmem_last_error_message();
  }
  ~CProcess() override {
    EXPECT_EQ(extmem_domain_close(domain_), 0);
    EXPECT_EQ(extmem_domain_remove("c", directory_.c_str()), 0) << extmem_last_error_message();
  }

  RuntimeDirectory directory_;
  extmem_open_options_t options_ = EXTMEM_OPEN_OPTIONS_INIT;
  extmem_domain_t* domain_ = nullptr;
};

void expect_message(int rc, int expected) {
  EXPECT_EQ(rc, expected);
  EXPECT_EQ(extmem_last_error(), expected);
  EXPECT_STRNE(extmem_last_error_message(), "");
  EXPECT_STRNE(extmem_last_error_message(), "no error");
}

struct Seen {
  std::vector<extmem_domain_info_t> domains;
  std::vector<extmem_participant_info_t> participants;
  int answer = 0;
};
int see_domain(const extmem_domain_info_t* info, void* arg) {
  auto* seen = static_cast<Seen*>(arg);
  seen->domains.push_back(*info);
  return seen->answer;
}
int see_participant(const extmem_participant_info_t* info, void* arg) {
  auto* seen = static_cast<Seen*>(arg);
  seen->participants.push_back(*info);
  return seen->answer;
}

TEST_F(CProcess, RefusesWrongOptions) {
  extmem_domain_t* domain = nullptr;
  for (const std::size_t size : {std::size_t{0}, std::size_t{8}, sizeof(extmem_open_options_t) - 1}) {
    extmem_open_options_t options = options_;
    options.struct_size = size;
    expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  }
  extmem_open_options_t options = options_;
  options.reserved[0] = 1;
  expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  options = options_;
  options.mode = 3;
  expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  options = options_;
  extmem_domain_options_t sizes = EXTMEM_DOMAIN_OPTIONS_INIT;
  options.sizes = &sizes;
  sizes.struct_size = 0;
  expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  sizes = EXTMEM_DOMAIN_OPTIONS_INIT;
  sizes.reserved = 1;
  expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  sizes = EXTMEM_DOMAIN_OPTIONS_INIT;
  sizes.max_heaps = 0;
  expect_message(extmem_domain_open("x", &options, &domain), -EINVAL);
  EXPECT_EQ(domain, nullptr);
  Seen seen;
  ASSERT_EQ(extmem_domain_list(directory_.c_str(), see_domain, &seen), 0) << extmem_last_error_message();
  ASSERT_EQ(seen.domains.size(), 1u) << "a refused open leaves nothing behind";
  EXPECT_STREQ(seen.domains[0].name, "c");
}

TEST_F(CProcess, OptionsOfNewerProgramsAreTakenWhileTheyAskForNothingNew) {
  struct {
    extmem_open_options_t options;
    std::uint64_t newer[3];
  } grown{options_, {0, 0, 0}};
  grown.options.struct_size = sizeof(grown);
  grown.options.mode = EXTMEM_OPEN_EXISTING;
  extmem_domain_t* again = nullptr;
  ASSERT_EQ(extmem_domain_open("c", &grown.options, &again), 0) << extmem_last_error_message();
  EXPECT_EQ(extmem_domain_close(again), 0);
  grown.newer[2] = 1;
  expect_message(extmem_domain_open("c", &grown.options, &again), -E2BIG);
}

TEST_F(CProcess, SizesAreThoseOfWhoeverCreates) {
  extmem_domain_options_t sizes = EXTMEM_DOMAIN_OPTIONS_INIT;
  sizes.max_memzones = 3;
  extmem_open_options_t options = options_;
  options.sizes = &sizes;
  options.remove_when_last = true;
  extmem_domain_t* small = nullptr;
  ASSERT_EQ(extmem_domain_open("small", &options, &small), 0) << extmem_last_error_message();
  extmem_heap_t heap{};
  ASSERT_EQ(extmem_heap_find_by_node(small, 0, &heap), 0) << extmem_last_error_message();
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.kind = EXTMEM_BACKING_MEMFD;
  backing.length = kMiB;
  extmem_region_id_t region{};
  ASSERT_EQ(extmem_region_add_backing(small, heap, &backing, &region), 0) << extmem_last_error_message();
  extmem_memzone_info_t zone;
  for (const char* name : {"a", "b", "c"}) {
    ASSERT_EQ(extmem_memzone_reserve(small, heap, name, 64, nullptr, &zone, sizeof(zone)), 0);
  }
  expect_message(extmem_memzone_reserve(small, heap, "d", 64, nullptr, &zone, sizeof(zone)), -ENOSPC);
  EXPECT_EQ(extmem_domain_close(small), 0);
}

TEST_F(CProcess, TellsWhatItIs) {
  bool named = false;
  std::uint32_t self = 0;
  ASSERT_EQ(extmem_domain_is_named(domain_, &named), 0);
  EXPECT_TRUE(named);
  ASSERT_EQ(extmem_domain_get_participant(domain_, &self), 0);
  EXPECT_EQ(self, 1u);
  Seen seen;
  ASSERT_EQ(extmem_participant_walk(domain_, see_participant, &seen), 0);
  ASSERT_EQ(seen.participants.size(), 1u);
  EXPECT_EQ(seen.participants[0].struct_size, sizeof(extmem_participant_info_t));
  EXPECT_EQ(seen.participants[0].id, self);
  EXPECT_EQ(seen.participants[0].pid, static_cast<std::uint32_t>(::getpid()));
  EXPECT_TRUE(seen.participants[0].self);
  EXPECT_FALSE(seen.participants[0].dead);
  EXPECT_STRNE(seen.participants[0].name, "");

  extmem_domain_t* priv = nullptr;
  ASSERT_EQ(extmem_domain_create(nullptr, &priv), 0);
  ASSERT_EQ(extmem_domain_is_named(priv, &named), 0);
  EXPECT_FALSE(named);
  ASSERT_EQ(extmem_domain_get_participant(priv, &self), 0);
  EXPECT_EQ(self, 0u);
  expect_message(extmem_participant_walk(priv, see_participant, &seen), -ENOTSUP);
  expect_message(extmem_domain_recover(priv, nullptr, 0), -ENOTSUP);
  expect_message(extmem_domain_poll(priv), -ENOTSUP);
  expect_message(extmem_object_hand_over(priv, &seen, 1), -ENOTSUP);
  EXPECT_EQ(extmem_domain_close(priv), 0);
}

TEST_F(CProcess, VisitorsEndTheWalk) {
  Seen seen;
  seen.answer = 42;
  EXPECT_EQ(extmem_domain_list(directory_.c_str(), see_domain, &seen), 42);
  ASSERT_EQ(seen.domains.size(), 1u);
  EXPECT_EQ(seen.domains[0].struct_size, sizeof(extmem_domain_info_t));
  EXPECT_EQ(seen.domains[0].participants, 1u);
  EXPECT_EQ(seen.domains[0].dead, 0u);
  EXPECT_GT(seen.domains[0].bytes, 0u);
  EXPECT_EQ(extmem_participant_walk(domain_, see_participant, &seen), 42);
}

TEST_F(CProcess, RecoveryReportsHaveTheSizeThatTheCallerKnows) {
  EXPECT_EQ(extmem_domain_recover(domain_, nullptr, 0), 0) << extmem_last_error_message();
  std::array<unsigned char, sizeof(extmem_recovery_report_t)> bytes;
  bytes.fill(0xee);
  auto* report = reinterpret_cast<extmem_recovery_report_t*>(bytes.data());
  ASSERT_EQ(extmem_domain_recover(domain_, report, 16), 0) << extmem_last_error_message();
  std::size_t known = 0;
  std::memcpy(&known, bytes.data(), sizeof(known));
  EXPECT_EQ(known, 16u);
  for (std::size_t i = 8; i < 16; ++i) EXPECT_EQ(bytes[i], 0) << i;
  for (std::size_t i = 16; i < bytes.size(); ++i) ASSERT_EQ(bytes[i], 0xee) << i;
  EXPECT_EQ(extmem_domain_poll(domain_), 0) << extmem_last_error_message();
}

TEST_F(CProcess, HandsOverToTheLivingOnly) {
  extmem_heap_t heap{};
  ASSERT_EQ(extmem_heap_find_by_node(domain_, 0, &heap), 0) << extmem_last_error_message();
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.kind = EXTMEM_BACKING_MEMFD;
  backing.length = kMiB;
  extmem_region_id_t region{};
  ASSERT_EQ(extmem_region_add_backing(domain_, heap, &backing, &region), 0) << extmem_last_error_message();
  void* p = extmem_malloc(heap, 100);
  ASSERT_NE(p, nullptr) << extmem_last_error_message();
  EXPECT_EQ(extmem_object_hand_over(domain_, p, 1), 0) << extmem_last_error_message();
  expect_message(extmem_object_hand_over(domain_, p, 0), -ESRCH);
  expect_message(extmem_object_hand_over(domain_, p, 2), -ESRCH);
  expect_message(extmem_object_hand_over(domain_, p, 257), -ESRCH);
  expect_message(extmem_object_hand_over(domain_, static_cast<char*>(p) + 1, 1), -EINVAL);
  expect_message(extmem_object_hand_over(domain_, &backing, 1), -EFAULT);
  extmem_memzone_info_t zone;
  ASSERT_EQ(extmem_memzone_reserve(domain_, heap, "z", 4096, nullptr, &zone, sizeof(zone)), 0);
  expect_message(extmem_object_hand_over(domain_, zone.addr, 1), -EPERM);
  EXPECT_EQ(extmem_free(heap, p), 0) << extmem_last_error_message();
  expect_message(extmem_object_hand_over(domain_, p, 1), -EALREADY);
}

TEST_F(CProcess, AttachesOnlyWhatIsNotMapped) {
  extmem_heap_t heap{};
  ASSERT_EQ(extmem_heap_find_by_node(domain_, 0, &heap), 0) << extmem_last_error_message();
  Memory memory(kMiB);
  extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
  spec.base = memory.base();
  spec.length = memory.length();
  extmem_region_id_t region{};
  ASSERT_EQ(extmem_region_add(domain_, heap, &spec, &region), 0) << extmem_last_error_message();
  expect_message(extmem_region_attach(domain_, region, memory.base()), -EEXIST);
  expect_message(extmem_region_attach(domain_, extmem_region_id_t{77, 1}, memory.base()), -ENOENT);
  EXPECT_EQ(extmem_region_remove(domain_, region, nullptr, 0), 0) << extmem_last_error_message();
}

}  // namespace
}  // namespace extmem::test
