// fbarrays that processes share: attaching at the same address, who keeps whom from destroying, and killed processes.
#include <fcntl.h>
#include <sys/stat.h>

#include <climits>
#include <cstring>
#include <random>
#include <vector>

#include "base/crash_point.hpp"
#include "dpdk/fbarray_model.hpp"
#include "dpdk/fbarray_processes.hpp"
#include "faces/dpdk/fbarray.hpp"
#include "faces/dpdk/fbarray_file.hpp"

namespace {

using fbarray_test::Child;
using fbarray_test::Page;

class FbarrayShare : public fbarray_test::SharedArrays {
 protected:
  void make(const char* name, unsigned len, unsigned elt_sz = 8) {
    ASSERT_EQ(rte_fbarray_init(&page_->array, name, len, elt_sz), 0) << rte_strerror(rte_errno);
  }
  void destroy() {
    EXPECT_EQ(rte_fbarray_destroy(&page_->array), 0) << rte_strerror(rte_errno);
    const rte_fbarray zero{};
    EXPECT_EQ(std::memcmp(&page_->array, &zero, sizeof(zero)), 0) << "destroy zeroes the struct";
  }
};

/// Dies at the crash point that `dies_at` names.
const char* dies_at = nullptr;
void die_there(const char* name) {
  if (std::strcmp(name, dies_at) == 0) ::raise(SIGKILL);
}
void die_at(const char* name) {
  dies_at = name;
  extmem::base::crash_point_hook = die_there;
}

TEST_F(FbarrayShare, BadArgumentsAreReportedInOrder) {
  const auto error = [](rte_fbarray* array, const char* name, unsigned len, unsigned elt_sz) {
    return rte_fbarray_init(array, name, len, elt_sz) == 0 ? 0 : rte_errno;
  };
  rte_fbarray array{};
  const std::string too_long(RTE_FBARRAY_NAME_LEN, 'n');
  EXPECT_EQ(error(nullptr, "a", 1, 1), EINVAL);
  EXPECT_EQ(error(&array, nullptr, 1, 1), EINVAL);
  EXPECT_EQ(error(&array, "a", 0, 1), EINVAL);
  EXPECT_EQ(error(&array, "a", 1, 0), EINVAL);
  EXPECT_EQ(error(&array, "a", unsigned{INT_MAX} + 1, 1), EINVAL);
  EXPECT_EQ(error(&array, too_long.c_str(), 0, 1), EINVAL) << "the length is looked at before the name's";
  EXPECT_EQ(error(&array, too_long.c_str(), 1, 1), ENAMETOOLONG);
  EXPECT_EQ(array.data, nullptr) << "a failure leaves the struct alone";

  for (const auto call : {&rte_fbarray_attach, &rte_fbarray_detach, &rte_fbarray_destroy}) {
    EXPECT_EQ(call(nullptr), -1);
    EXPECT_EQ(rte_errno, EINVAL);
  }
  EXPECT_EQ(rte_fbarray_attach(&array), -1);
  EXPECT_EQ(rte_errno, EINVAL) << "a zero struct describes no array";
  EXPECT_EQ(rte_fbarray_detach(&array), -1);
  EXPECT_EQ(rte_errno, ENOENT);
  EXPECT_EQ(rte_fbarray_destroy(&array), -1);
  EXPECT_EQ(rte_errno, ENOENT);

  ASSERT_EQ(extmem::dpdk::init_private_array(&array, "private", 100, 8), 0);
  EXPECT_EQ(rte_fbarray_destroy(&array), -1);
  EXPECT_EQ(rte_errno, ENOENT) << "an array that rte_fbarray_init() has not made";
  extmem::dpdk::destroy_private_array(&array);
}

TEST_F(FbarrayShare, TheFileIsOursAloneAndGoesWithTheArray) {
  make("file", 100);
  struct stat status {};
  ASSERT_EQ(::lstat(path_of("file").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 07777, 0600u);
  destroy();
  EXPECT_NE(::lstat(path_of("file").c_str(), &status), 0);
}

TEST_F(FbarrayShare, LargeArraysTakeMemoryWhereTheyAreTouched) {
  constexpr unsigned kLength = 1u << 20, kSize = 8192;  // 8 GiB
  const auto memory_of = [](const char* name) {
    struct stat status {};
    EXPECT_EQ(::lstat(path_of(name).c_str(), &status), 0);
    return status.st_blocks * 512;
  };
  ASSERT_NO_FATAL_FAILURE(make("small", 1000, kSize));
  EXPECT_GE(memory_of("small"), 1000 * kSize);
  destroy();
  ASSERT_NO_FATAL_FAILURE(make("large", kLength, kSize));
  rte_fbarray* const array = &page_->array;
  EXPECT_GE(memory_of("large"), kLength / 8);
  EXPECT_LT(memory_of("large"), 4 << 20);
  auto* const last = static_cast<char*>(rte_fbarray_get(array, kLength - 1));
  EXPECT_EQ(last - static_cast<char*>(array->data), std::ptrdiff_t{kLength - 1} * kSize);
  EXPECT_EQ(rte_fbarray_find_idx(array, last), static_cast<int>(kLength - 1));
  last[kSize - 1] = 1;
  EXPECT_EQ(rte_fbarray_set_used(array, kLength - 1), 0);
  EXPECT_EQ(rte_fbarray_find_next_used(array, 0), static_cast<int>(kLength - 1));
  EXPECT_LT(memory_of("large"), 4 << 20);
  destroy();
}

TEST_F(FbarrayShare, AnswersAsTheModel) {
  for (const unsigned len : {1u, 64u, 65u, 1000u}) {
    make("model", len);
    fbarray_model::run(&page_->array, len, 100, 10,
                       [](const fbarray_model::Difference& text) { ADD_FAILURE() << text.text(); });
    destroy();
  }
}

TEST_F(FbarrayShare, AttachGivesTheSameMemoryAtTheSameAddress) {
  Child child([&] {
    await_parent(*page_, 1);
    rte_fbarray copy = page_->array;  // a copy of the struct serves as well
    page_->keep(rte_fbarray_attach(&copy));
    *static_cast<std::uint64_t*>(rte_fbarray_get(&copy, 7)) += 1000;
    rte_fbarray_set_used(&copy, 7);
    page_->number = copy.count;
    page_->child = 1;
    await_parent(*page_, 2);
    page_->keep(rte_fbarray_detach(&copy));
    page_->child = 2;
  });
  make("same", 5000);
  *static_cast<std::uint64_t*>(rte_fbarray_get(&page_->array, 7)) = 23;
  rte_fbarray_set_used(&page_->array, 4999);
  done(1);
  await_child(1);
  EXPECT_EQ(page_->result, 0) << rte_strerror(page_->error);
  EXPECT_EQ(page_->number, 2u) << "the copy's count holds both processes' marks";
  EXPECT_EQ(*static_cast<std::uint64_t*>(rte_fbarray_get(&page_->array, 7)), 1023u);
  EXPECT_EQ(rte_fbarray_find_next_used(&page_->array, 0), 7);
  rte_fbarray_set_used(&page_->array, 7);
  EXPECT_EQ(page_->array.count, 2u);

  EXPECT_EQ(rte_fbarray_destroy(&page_->array), -1);
  EXPECT_EQ(rte_errno, EBUSY);
  EXPECT_EQ(rte_fbarray_is_used(&page_->array, 7), 1) << "a refused destroy changes nothing";
  done(2);
  await_child(2);
  EXPECT_EQ(page_->result, 0);
  destroy();
}

TEST_F(FbarrayShare, AttachingWhatIsThereAlreadyIsRefused) {
  make("twice", 100);
  rte_fbarray copy = page_->array;
  EXPECT_EQ(rte_fbarray_attach(&copy), -1);
  EXPECT_EQ(rte_errno, EEXIST);
  std::strcpy(copy.name, "other");
  EXPECT_EQ(rte_fbarray_attach(&copy), -1);
  EXPECT_EQ(rte_errno, EEXIST) << "the addresses overlap, whatever the name";
  EXPECT_EQ(rte_fbarray_init(&copy, "twice", 100, 8), -1);
  EXPECT_EQ(rte_errno, EBUSY);
  destroy();
  EXPECT_EQ(rte_fbarray_destroy(&page_->array), -1);
  EXPECT_EQ(rte_errno, ENOENT);
}

TEST_F(FbarrayShare, DetachedArraysStayForOthersAndCanBeAttachedAgain) {
  make("again", 100);
  rte_fbarray_set_used(&page_->array, 3);
  ASSERT_EQ(rte_fbarray_detach(&page_->array), 0);
  EXPECT_EQ(rte_fbarray_detach(&page_->array), -1);
  EXPECT_EQ(rte_errno, ENOENT);
  ASSERT_EQ(rte_fbarray_attach(&page_->array), 0) << rte_strerror(rte_errno);
  EXPECT_EQ(rte_fbarray_is_used(&page_->array, 3), 1);
  destroy();
}

TEST_F(FbarrayShare, AttachChecksWhatTheStructSays) {
  make("checked", 1000);
  ASSERT_EQ(rte_fbarray_detach(&page_->array), 0);
  const auto error = [&](auto&& change) {
    rte_fbarray wrong = page_->array;
    change(wrong);
    return rte_fbarray_attach(&wrong) == 0 ? 0 : rte_errno;
  };
  EXPECT_EQ(error([](rte_fbarray& a) { a.len = 999; }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { a.elt_sz = 4; }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { a.len = 2000; }), EINVAL) << "longer than the file";
  EXPECT_EQ(error([](rte_fbarray& a) { a.data = static_cast<char*>(a.data) + 4096 * 1024; }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { a.data = static_cast<char*>(a.data) + 8; }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { a.data = nullptr; }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { a.data = reinterpret_cast<void*>(-4096); }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { std::strcpy(a.name, "nobody"); }), ENOENT);
  EXPECT_EQ(error([](rte_fbarray& a) { std::strcpy(a.name, "a/b"); }), EINVAL);
  EXPECT_EQ(error([](rte_fbarray& a) { std::memset(a.name, 'x', sizeof(a.name)); }), ENAMETOOLONG);
  ASSERT_EQ(rte_fbarray_attach(&page_->array), 0) << rte_strerror(rte_errno);
  destroy();
}

TEST_F(FbarrayShare, AttachNeverReplacesWhatIsMappedThere) {
  Child child([&] {
    await_parent(*page_, 1);
    void* const taken = ::mmap(page_->array.data, 4096, PROT_READ | PROT_WRITE,
                               MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    std::memset(taken, 5, 4096);
    page_->keep(rte_fbarray_attach(&page_->array));
    page_->number = std::uint64_t(static_cast<char*>(taken)[4095]);
    page_->child = 1;
    await_parent(*page_, 2);
    ::munmap(taken, 4096);
    page_->keep(rte_fbarray_attach(&page_->array));
    page_->child = 2;
  });
  make("taken", 5000);
  done(1);
  await_child(1);
  EXPECT_EQ(page_->result, -1);
  EXPECT_EQ(page_->error, EADDRNOTAVAIL);
  EXPECT_EQ(page_->number, 5u);
  done(2);
  await_child(2);
  EXPECT_EQ(page_->result, 0) << rte_strerror(page_->error);
  child.wait();
  destroy();
}

TEST_F(FbarrayShare, AnotherProcessCannotMakeTheSameArrayWhileItsOwnerLives) {
  Child child([&] {
    rte_fbarray mine{};
    page_->keep(rte_fbarray_init(&mine, "owned", 100, 8));
    rte_fbarray_set_used(&mine, 5);
    page_->child = 1;
    await_parent(*page_, INT_MAX);
  });
  await_child(1);
  ASSERT_EQ(page_->result, 0);
  EXPECT_EQ(rte_fbarray_init(&page_->array, "owned", 200, 8), -1);
  EXPECT_EQ(rte_errno, EBUSY);
  child.kill();
  make("owned", 200);
  EXPECT_EQ(page_->array.count, 0u);
  EXPECT_EQ(rte_fbarray_find_next_used(&page_->array, 0), -1) << "what the dead left is not used any more";
  destroy();
}

TEST_F(FbarrayShare, AKilledProcessKeepsNobodyFromDestroying) {
  Child child([&] {
    await_parent(*page_, 1);
    page_->keep(rte_fbarray_attach(&page_->array));
    page_->child = 1;
    await_parent(*page_, INT_MAX);
  });
  make("left", 100);
  done(1);
  await_child(1);
  EXPECT_EQ(page_->result, 0);
  EXPECT_EQ(rte_fbarray_destroy(&page_->array), -1);
  EXPECT_EQ(rte_errno, EBUSY);
  child.kill();
  destroy();
}

TEST_F(FbarrayShare, AForkedChildCountsAsAProcessOfItsOwn) {
  make("forked", 100);
  Child child([&] {
    page_->keep(rte_fbarray_destroy(&page_->array));
    rte_fbarray_set_used(&page_->array, 9);
    page_->child = 1;
    await_parent(*page_, INT_MAX);
  });
  await_child(1);
  EXPECT_EQ(page_->result, -1);
  EXPECT_EQ(page_->error, EBUSY) << "its parent has the array";
  EXPECT_EQ(rte_fbarray_is_used(&page_->array, 9), 1);
  EXPECT_EQ(rte_fbarray_destroy(&page_->array), -1);
  EXPECT_EQ(rte_errno, EBUSY) << "its child has the array";
  child.kill();
  destroy();
}

TEST_F(FbarrayShare, InitLeavesNothingBehindWhereThereIsNoRoom) {
  EXPECT_EQ(rte_fbarray_init(&page_->array, "huge", INT_MAX, UINT_MAX), -1);
  EXPECT_EQ(rte_errno, ENOMEM);
  EXPECT_EQ(::access(path_of("huge").c_str(), F_OK), -1);
  EXPECT_EQ(rte_fbarray_init(&page_->array, "a/b", 1, 1), -1);
  EXPECT_EQ(rte_errno, EINVAL);
}

TEST_F(FbarrayShare, SymbolicLinksAreNotFollowed) {
  ASSERT_EQ(::symlink("/dev/null", path_of("link").c_str()), 0);
  EXPECT_EQ(rte_fbarray_init(&page_->array, "link", 1, 1), -1);
  EXPECT_EQ(rte_errno, ELOOP);
  ::unlink(path_of("link").c_str());
}

TEST_F(FbarrayShare, FilesOfTheDeadCanBeRemovedAndThoseOfTheLivingStay) {
  Child child([&] {
    rte_fbarray mine{};
    page_->keep(rte_fbarray_init(&mine, "dead", 100, 8));
    page_->child = 1;
    await_parent(*page_, INT_MAX);
  });
  await_child(1);
  make("living", 100);
  extmem::dpdk::remove_dead_arrays(rte_eal_get_runtime_dir());
  EXPECT_EQ(::access(path_of("dead").c_str(), F_OK), 0) << "it lives yet";
  child.kill();
  extmem::dpdk::remove_dead_arrays(rte_eal_get_runtime_dir());
  EXPECT_EQ(::access(path_of("dead").c_str(), F_OK), -1);
  EXPECT_EQ(::access(path_of("living").c_str(), F_OK), 0);
  destroy();
}

TEST_F(FbarrayShare, StartingAsPrimaryRemovesFilesOfTheDead) {
  ASSERT_EQ(path_of("stale"), runtime_ + "/.dpdk/rte/fbarray_stale");
  EXPECT_EQ(::access(path_of("stale").c_str(), F_OK), -1);
}

// ---- killed in the middle ----

TEST_F(FbarrayShare, AKillAtAnyPointOfMarkingLeavesMaskAndCountRight) {
  struct Point {
    const char* name;
    bool changed;  // the mask, at that point
  };
  for (const bool used : {true, false}) {
    for (const Point point : {Point{"fbarray_changing", false}, Point{"fbarray_mask_changed", true},
                              Point{"fbarray_counted", true}}) {
      SCOPED_TRACE(point.name);
      page_->parent = 0;
      Child child([&] {
        await_parent(*page_, 1);
        if (rte_fbarray_attach(&page_->array) != 0) ::_exit(1);
        die_at(point.name);
        extmem::dpdk::mark_elements(page_->array, 60, 10, used);
      });
      make("marking", 200);
      ASSERT_EQ(extmem::dpdk::mark_elements(page_->array, 50, 100, !used), 0);
      done(1);
      ASSERT_EQ(child.wait(), SIGKILL);
      const unsigned before = used ? 0 : 100;
      const unsigned after = !point.changed ? before : used ? 10 : 90;
      EXPECT_EQ(ones(&page_->array), after) << "the mask is right at once";
      EXPECT_EQ(rte_fbarray_find_next_n_used(&page_->array, 0, 10), after == 0 ? -1 : used ? 60 : 50);
      ASSERT_EQ(rte_fbarray_set_used(&page_->array, 0), 0);
      EXPECT_EQ(page_->array.count, after + 1) << "the count is right from the next mark on";
      destroy();
    }
  }
}

TEST_F(FbarrayShare, AKillWhileRecountingLeavesItToTheNext) {
  for (const char* const point : {"fbarray_inherited", "fbarray_recounted"}) {
    SCOPED_TRACE(point);
    page_->parent = 0;
    Child first([&] {
      await_parent(*page_, 1);
      if (rte_fbarray_attach(&page_->array) != 0) ::_exit(1);
      die_at("fbarray_mask_changed");
      rte_fbarray_set_used(&page_->array, 3);
    });
    Child heir([&] {
      await_parent(*page_, 2);
      die_at(point);
      rte_fbarray_attach(&page_->array);
    });
    make("recounting", 200);
    done(1);
    ASSERT_EQ(first.wait(), SIGKILL);
    done(2);
    ASSERT_EQ(heir.wait(), SIGKILL);
    ASSERT_EQ(rte_fbarray_set_used(&page_->array, 4), 0);
    EXPECT_EQ(page_->array.count, 2u);
    destroy();
  }
}

TEST_F(FbarrayShare, AKillWhileMakingOrDestroyingDoesNotBlockTheName) {
  for (const char* const point : {"fbarray_created", "fbarray_begun", "fbarray_removed"}) {
    SCOPED_TRACE(point);
    Child child([&] {
      die_at(point);
      rte_fbarray mine{};
      if (rte_fbarray_init(&mine, "half", 100, 8) == 0) rte_fbarray_destroy(&mine);
    });
    ASSERT_EQ(child.wait(), SIGKILL);
    make("half", 50);
    EXPECT_EQ(rte_fbarray_find_contig_free(&page_->array, 0), 50);
    destroy();
  }
}

TEST_F(FbarrayShare, KilledChildrenInALoopLeaveTheCountRight) {
  const std::uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  make("loop", 1000);
  ASSERT_EQ(rte_fbarray_detach(&page_->array), 0);
  for (int round = 0; round < 100; ++round) {
    page_->child = 0;
    const auto hammer = [&](std::uint64_t own_seed) {
      std::mt19937_64 own(own_seed);
      if (rte_fbarray_attach(&page_->array) != 0) ::_exit(1);
      ++page_->child;
      for (;;) {
        const unsigned start = unsigned(own() % 900);
        extmem::dpdk::mark_elements(page_->array, start, 1 + unsigned(own() % 100), own() % 2 == 0);
      }
    };
    const std::uint64_t seeds[] = {random(), random()};
    Child one([&] { hammer(seeds[0]); });
    Child two([&] { hammer(seeds[1]); });
    await_child(2);
    ::usleep(unsigned(random() % 3000));
    one.kill();
    ::usleep(unsigned(random() % 1000));
    two.kill();
    ASSERT_EQ(rte_fbarray_attach(&page_->array), 0) << rte_strerror(rte_errno);
    ASSERT_EQ(page_->array.count, ones(&page_->array)) << "round " << round;
    ASSERT_EQ(rte_fbarray_detach(&page_->array), 0);
  }
  ASSERT_EQ(rte_fbarray_attach(&page_->array), 0);
  destroy();
}

TEST_F(FbarrayShare, AStoppedProcessDelaysMarksButNotForever) {
  Child child([&] {
    await_parent(*page_, 1);
    if (rte_fbarray_attach(&page_->array) != 0) ::_exit(1);
    extmem::base::crash_point_hook = [](const char* name) {
      if (std::strcmp(name, "fbarray_mask_changed") == 0) ::raise(SIGSTOP);
    };
    rte_fbarray_set_used(&page_->array, 1);
    page_->child = 1;
    await_parent(*page_, INT_MAX);
  });
  make("stopped", 100);
  done(1);
  int status = 0;
  ASSERT_EQ(::waitpid(child.pid(), &status, WUNTRACED), child.pid());
  ASSERT_TRUE(WIFSTOPPED(status));
  EXPECT_EQ(rte_fbarray_find_next_used(&page_->array, 0), 1) << "searches take no lock";
  EXPECT_EQ(rte_fbarray_set_used(&page_->array, 2), -1);
  EXPECT_EQ(rte_errno, ETIMEDOUT);
  EXPECT_EQ(rte_fbarray_is_used(&page_->array, 2), 0);
  ::kill(child.pid(), SIGCONT);
  await_child(1);
  EXPECT_EQ(rte_fbarray_set_used(&page_->array, 2), 0);
  EXPECT_EQ(page_->array.count, 2u);
  child.kill();
  destroy();
}

}  // namespace
