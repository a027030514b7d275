// Other processes for the tests of fbarrays: children that were forked before the array was made, so that they attach to
// it as a program of its own would; and a page that parent and children share, with the array's struct in it.
#pragma once

#include <gtest/gtest.h>
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fbarray.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "faces/dpdk/eal.hpp"

namespace fbarray_test {

using namespace std::chrono_literals;

/// Waits until `done`, a minute at most: a loaded machine is slow.
inline bool wait_until(const std::function<bool()>& done) {
  for (const auto end = std::chrono::steady_clock::now() + 60s; std::chrono::steady_clock::now() < end;) {
    if (done()) return true;
    std::this_thread::sleep_for(200us);
  }
  return false;
}

/// What parent and children share.
struct Page {
  rte_fbarray array{};
  std::atomic<int> parent{0};  // steps that are done
  std::atomic<int> child{0};
  std::atomic<int> result{0};
  std::atomic<int> error{0};
  std::atomic<std::uint64_t> number{0};

  /// For the child: keeps a result and the rte_errno that goes with it.
  void keep(int value) {
    result = value;
    error = rte_errno;
  }
};

class Child {
 public:
  explicit Child(const std::function<void()>& body) : pid_(::fork()) {
    if (pid_ != 0) return;
    body();
    ::_exit(0);
  }
  Child(const Child&) = delete;
  ~Child() { kill(); }
  void kill() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    wait();
  }
  /// Returns: the signal that ended it, 0 if none did.
  int wait() {
    int status = 0;
    ::waitpid(pid_, &status, 0);
    pid_ = -1;
    return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

/// The environment is there and shares, in a runtime directory of its own.
class SharedArrays : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    char directory[] = "/dev/shm/extmem-fbarray-test.XXXXXX";
    if (extmem::dpdk::initialized() || ::mkdtemp(directory) == nullptr) return;
    owner_ = ::getpid();
    runtime_ = directory;
    ::setenv("EXTMEM_RUNTIME_DIR", directory, 1);
    // What a process that was killed has left. "rte" is the file prefix where none is given.
    std::filesystem::create_directories(runtime_ + "/.dpdk/rte");
    std::ofstream(runtime_ + "/.dpdk/rte/fbarray_stale") << "not an array";
    std::string words[] = {"fbarray_test", "--no-huge", "-m", "8", "-l", "0"};
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    EXPECT_GE(rte_eal_init(int(std::size(words)), arguments.data()), 0) << rte_strerror(rte_errno);
  }
  static void TearDownTestSuite() {
    if (owner_ != ::getpid()) return;
    rte_eal_cleanup();
    std::error_code ignored;
    std::filesystem::remove_all(runtime_, ignored);
  }
  void SetUp() override {
    ASSERT_TRUE(extmem::dpdk::initialized() && extmem::dpdk::options().shared())
        << "run this test in a process of its own, as ctest does";
    void* const memory =
        ::mmap(nullptr, sizeof(Page), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(memory, MAP_FAILED);
    page_ = new (memory) Page;
  }
  void TearDown() override {
    if (page_ != nullptr) ::munmap(page_, sizeof(Page));
  }

  /// Tells the children that step `n` is done, or waits for theirs.
  void done(int n) { page_->parent = n; }
  void await_child(int n) {
    ASSERT_TRUE(wait_until([&] { return page_->child >= n; })) << "the child did not get to step " << n;
  }
  /// For the child.
  static void await_parent(const Page& page, int n) {
    while (page.parent < n) ::usleep(200);
  }
  static std::string path_of(const char* name) {
    return std::string(rte_eal_get_runtime_dir()) + "/fbarray_" + name;
  }
  static std::uint64_t ones(rte_fbarray* array) {
    std::uint64_t sum = 0;
    for (unsigned i = 0; i < array->len; ++i) sum += rte_fbarray_is_used(array, i) == 1 ? 1u : 0u;
    return sum;
  }

  static inline std::string runtime_;
  static inline pid_t owner_ = 0;
  Page* page_ = nullptr;
};

}  // namespace fbarray_test
