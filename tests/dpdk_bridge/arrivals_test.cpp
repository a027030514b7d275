// Regions that come and go while a heap is lent: by other threads, and by other processes of a named domain.
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <chrono>
#include <thread>

#include "contract/runtime_directory.hpp"
#include "eal.hpp"

namespace bridge_test {
namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;

using Arrivals = Bridge;

TEST_F(Arrivals, FromThreadsMeetLendingAndWithdrawing) {
  std::atomic<bool> done{false};
  std::atomic<int> failures{0}, added{0};
  std::vector<std::thread> threads;
  for (int t = 0; t < 2; ++t) {
    threads.emplace_back([&] {
      const Memory memory(kMiB);
      while (!done) {
        extmem_region_id_t region{};
        if (add(heap, memory, region) != 0 || extmem_region_remove(domain, region, nullptr, 0) != 0)
          ++failures;
        ++added;
      }
    });
  }
  int leases = 0;
  for (const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(1);
       std::chrono::steady_clock::now() < end || added < 100;) {
    extmem_dpdk_lease_t* lease = nullptr;
    const int lent = extmem_dpdk_lend(domain, heap, 0, &lease);
    EXPECT_EQ(lent, 0) << "lease " << leases << ": " << extmem_dpdk_last_error_message();
    if (lent != 0) break;
    EXPECT_EQ(extmem_dpdk_refresh(lease), 0) << extmem_dpdk_last_error_message();
    EXPECT_EQ(extmem_dpdk_withdraw(lease), 0) << extmem_dpdk_last_error_message();
    ++leases;
  }
  done = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(failures, 0) << "of " << added << " regions, under " << leases << " leases";
  EXPECT_EQ(dma().balance(), 0);
}

/// Opens the domain "d" of a folder, which processes share. `join`: only if it is there.
int open_shared(const std::string& directory, bool join, extmem_domain_t** domain) {
  extmem_open_options_t options = EXTMEM_OPEN_OPTIONS_INIT;
  options.directory = directory.c_str();
  if (join) options.mode = EXTMEM_OPEN_EXISTING;
  return extmem_domain_open("d", &options, domain);
}

/// A child that adds a region to the heap "h", and removes it when it is told to.
class Adder {
 public:
  explicit Adder(const std::string& directory) {
    EXPECT_EQ(::pipe(to_child_), 0);
    EXPECT_EQ(::pipe(to_parent_), 0);
    pid_ = ::fork();
    if (pid_ == 0) run(directory);
    EXPECT_GT(pid_, 0);
  }
  Adder(const Adder&) = delete;
  Adder& operator=(const Adder&) = delete;
  ~Adder() {
    for (const int fd : {to_child_[0], to_child_[1], to_parent_[0], to_parent_[1]}) ::close(fd);
  }
  /// Waits for the region.
  extmem_region_id_t region() {
    extmem_region_id_t id{};
    EXPECT_EQ(::read(to_parent_[0], &id, sizeof id), static_cast<ssize_t>(sizeof id));
    return id;
  }
  void go_on() { EXPECT_EQ(::write(to_child_[1], "x", 1), 1); }
  [[nodiscard]] bool ended(int& status) const { return ::waitpid(pid_, &status, WNOHANG) == pid_; }

 private:
  [[noreturn]] void run(const std::string& directory) {
    // A participant of its own from here on; it has no listeners and no leases.
    extmem_domain_t* domain = nullptr;
    extmem_heap_t heap{};
    extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
    backing.length = kMiB;
    extmem_region_id_t id{};
    char go = 0;
    if (open_shared(directory, true, &domain) != 0) ::_exit(1);
    if (extmem_heap_find(domain, "h", &heap) != 0) ::_exit(2);
    if (extmem_region_add_backing(domain, heap, &backing, &id) != 0) ::_exit(3);
    if (::write(to_parent_[1], &id, sizeof id) != static_cast<ssize_t>(sizeof id)) ::_exit(4);
    if (::read(to_child_[0], &go, 1) != 1) ::_exit(5);
    if (extmem_region_drain(domain, id, 60'000'000'000, nullptr, 0) != 0) ::_exit(6);
    if (extmem_region_remove(domain, id, nullptr, 0) != 0) ::_exit(7);
    ::_exit(extmem_domain_close(domain) == 0 ? 0 : 8);
  }

  ::pid_t pid_ = -1;
  int to_child_[2] = {-1, -1}, to_parent_[2] = {-1, -1};
};

TEST_F(Arrivals, FromAnotherProcessAreLentWhenTheyAreMappedHere) {
  const extmem::test::RuntimeDirectory directory;
  extmem_domain_t* shared = nullptr;
  ASSERT_EQ(open_shared(directory.path(), false, &shared), 0) << extmem_last_error_message();
  extmem_heap_t of_all{};
  ASSERT_EQ(extmem_heap_create(shared, "h", nullptr, &of_all), 0);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(shared, of_all, 0, &lease), 0) << extmem_dpdk_last_error_message();

  Adder adder(directory.path());
  const extmem_region_id_t id = adder.region();
  ASSERT_NE(id.generation, 0u);
  ASSERT_EQ(extmem_domain_poll(shared), 0) << extmem_last_error_message();
  extmem_region_info_t region{};
  ASSERT_EQ(extmem_region_get_info(shared, id, &region, sizeof region), 0);
  ASSERT_NE(region.base, nullptr);
  EXPECT_TRUE(dpdk_knows(region.base));
  EXPECT_EQ(dpdk_iova(region.base), reinterpret_cast<std::uintptr_t>(region.base));
  extmem_dpdk_lease_info_t info{};
  ASSERT_EQ(extmem_dpdk_lease_get_info(lease, &info, sizeof info), 0);
  EXPECT_EQ(info.regions, 1u);

  adder.go_on();  // it drains, which asks this process to let go
  int status = -1;
  const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!adder.ended(status) && std::chrono::steady_clock::now() < patience) {
    ASSERT_EQ(extmem_domain_poll(shared), 0) << extmem_last_error_message();
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(status, 0);
  EXPECT_FALSE(dpdk_knows(region.base));
  EXPECT_EQ(dma().balance(), 0);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(extmem_domain_close(shared), 0);
}

/// Takes memory of the heap "h" in a process of its own and dies with it.
void allocate_and_die(const std::string& directory) {
  const ::pid_t pid = ::fork();
  if (pid == 0) {
    extmem_domain_t* domain = nullptr;
    extmem_heap_t heap{};
    if (open_shared(directory, true, &domain) != 0) ::_exit(1);
    if (extmem_heap_find(domain, "h", &heap) != 0) ::_exit(2);
    if (extmem_malloc(heap, 100'000) == nullptr) ::_exit(3);
    (void)::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(pid, &status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(status)) << WEXITSTATUS(status);
}

TEST_F(Arrivals, StayLentWhenADeadProcessMemoryIsReclaimed) {
  const extmem::test::RuntimeDirectory directory;
  extmem_domain_t* shared = nullptr;
  ASSERT_EQ(open_shared(directory.path(), false, &shared), 0) << extmem_last_error_message();
  extmem_heap_t of_all{};
  ASSERT_EQ(extmem_heap_create(shared, "h", nullptr, &of_all), 0);
  extmem_backing_spec_t backing = EXTMEM_BACKING_SPEC_INIT;
  backing.length = kMiB;
  extmem_region_id_t id{};
  ASSERT_EQ(extmem_region_add_backing(shared, of_all, &backing, &id), 0);
  extmem_dpdk_lease_t* lease = nullptr;
  ASSERT_EQ(extmem_dpdk_lend(shared, of_all, 0, &lease), 0) << extmem_dpdk_last_error_message();
  allocate_and_die(directory.path());
  extmem_heap_stats_t stats{};
  ASSERT_EQ(extmem_heap_get_stats(of_all, &stats, sizeof stats), 0);
  EXPECT_EQ(stats.used_count, 1u);
  ASSERT_EQ(extmem_domain_recover(shared, nullptr, 0), 0) << extmem_last_error_message();
  ASSERT_EQ(extmem_heap_get_stats(of_all, &stats, sizeof stats), 0);
  EXPECT_EQ(stats.used_count, 0u);
  extmem_region_info_t region{};
  ASSERT_EQ(extmem_region_get_info(shared, id, &region, sizeof region), 0);
  EXPECT_TRUE(dpdk_knows(region.base)) << "devices may be using it";
  EXPECT_EQ(dma().balance(), 2);
  extmem_dpdk_lease_info_t info{};
  ASSERT_EQ(extmem_dpdk_lease_get_info(lease, &info, sizeof info), 0);
  EXPECT_EQ(info.regions, 1u);
  EXPECT_EQ(extmem_dpdk_withdraw(lease), 0);
  EXPECT_EQ(dma().balance(), 0);
  EXPECT_EQ(extmem_domain_close(shared), 0);
}

}  // namespace
}  // namespace bridge_test
