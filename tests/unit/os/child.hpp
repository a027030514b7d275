// Doing in a child process what must not happen to the test program: dropping privileges, limits, filters,
// mounts.
//
// A body runs in a forked child and returns "" for success, "skip: why", or what went wrong (REQUIRE makes
// that). RUN_IN_CHILD turns it into a passed, skipped or failed test.
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <string>

namespace extmem::os::test {

// Sanitizers make munlock (and mlock) do nothing.
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
inline constexpr bool kSanitized = __has_feature(address_sanitizer) || __has_feature(thread_sanitizer);
#else
inline constexpr bool kSanitized = false;
#endif

struct Outcome {
  bool ok = false;
  bool skipped = false;
  std::string text;
};

template <typename Body>
Outcome in_child(Body body) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return {false, false, "pipe2 failed"};
  const pid_t child = ::fork();
  if (child < 0) return {false, false, "fork failed"};
  if (child == 0) {
    ::close(ends[0]);
    const std::string text = body();
    [[maybe_unused]] const ssize_t written = ::write(ends[1], text.data(), text.size());
    ::_exit(text.empty() ? 0 : 1);
  }
  ::close(ends[1]);
  Outcome outcome;
  std::array<char, 512> buffer{};
  for (ssize_t got = 0; (got = ::read(ends[0], buffer.data(), buffer.size())) > 0;) {
    outcome.text.append(buffer.data(), static_cast<std::size_t>(got));
  }
  ::close(ends[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  outcome.ok = WIFEXITED(status) && WEXITSTATUS(status) == 0;
  outcome.skipped = outcome.text.rfind("skip: ", 0) == 0;
  if (WIFSIGNALED(status)) outcome.text += "the child died of signal " + std::to_string(WTERMSIG(status));
  return outcome;
}

#define RUN_IN_CHILD(...)                                                                               \
  do {                                                                                                  \
    const auto outcome = ::extmem::os::test::in_child(__VA_ARGS__);                                     \
    if (outcome.skipped) GTEST_SKIP() << "needs more than this machine gives a test: " << outcome.text; \
    ASSERT_TRUE(outcome.ok) << outcome.text;                                                            \
  } while (false)

/// In a child's body: leaves it with a message unless `condition` holds.
#define REQUIRE(condition)                                                                             \
  do {                                                                                                 \
    if (!(condition)) return std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " + #condition; \
  } while (false)

/// In a child's body: leaves it unless `result` is an error with this code; shows the message it had.
#define REQUIRE_ERROR(result, errno_value)                                                                \
  do {                                                                                                    \
    const auto& required = (result);                                                                      \
    if (required.error().code() != (errno_value)) {                                                       \
      return std::string(__FILE__ ":") + std::to_string(__LINE__) + ": expected " #errno_value ", got " + \
             std::to_string(required.error().code()) + ": " + required.error().message();                 \
    }                                                                                                     \
  } while (false)

/// In a child's body: leaves it unless `result` is a success; shows the message it had.
#define REQUIRE_OK(result)                                                                             \
  do {                                                                                                 \
    const auto& required = (result);                                                                   \
    if (!required) {                                                                                   \
      return std::string(__FILE__ ":") + std::to_string(__LINE__) + ": " + required.error().message(); \
    }                                                                                                  \
  } while (false)

inline bool is_root() { return ::geteuid() == 0; }

/// Makes the calling process an ordinary user for good. Returns: whether it is one now.
inline bool drop_privileges() {
  constexpr unsigned kNobody = 65534;
  if (!is_root()) return true;
  return ::setresgid(kNobody, kNobody, kNobody) == 0 && ::setresuid(kNobody, kNobody, kNobody) == 0;
}

/// Sets the soft limit of `resource`; the hard one stays.
inline bool set_limit(__rlimit_resource resource, rlim_t value) {
  rlimit limit{};
  if (::getrlimit(resource, &limit) != 0) return false;
  limit.rlim_cur = value;
  return ::setrlimit(resource, &limit) == 0;
}

/// Makes system call `number` fail with `error` from now on in this process, where its argument `index`,
/// masked with `mask`, equals `value`. Returns: false where the kernel has no such filters.
inline bool fail_system_call(long number, int error, unsigned index = 0, unsigned mask = 0,
                             unsigned value = 0) {
  const auto argument = static_cast<unsigned>(offsetof(seccomp_data, args) + index * sizeof(std::uint64_t));
  std::array<sock_filter, 7> code{{
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, static_cast<unsigned>(offsetof(seccomp_data, nr))},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 4, static_cast<unsigned>(number)},
      {BPF_LD | BPF_W | BPF_ABS, 0, 0, argument},
      {BPF_ALU | BPF_AND | BPF_K, 0, 0, mask},
      {BPF_JMP | BPF_JEQ | BPF_K, 0, 1, value},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)},
      {BPF_RET | BPF_K, 0, 0, SECCOMP_RET_ALLOW},
  }};
  sock_fprog program{static_cast<unsigned short>(code.size()), code.data()};
  return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
         ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program, 0, 0) == 0;
}

/// A folder of its own for a test, removed with what lies in it directly.
class TestFolder {
 public:
  TestFolder() {
    const char* const parent = std::getenv("TMPDIR");
    path_ = std::string(parent != nullptr ? parent : "/tmp") + "/extmem-os-XXXXXX";
    if (::mkdtemp(path_.data()) == nullptr) std::abort();
  }
  ~TestFolder() {
    const std::string command = "rm -rf '" + path_ + "'";
    if (std::system(command.c_str()) != 0) std::abort();
  }
  TestFolder(const TestFolder&) = delete;
  TestFolder& operator=(const TestFolder&) = delete;
  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string file(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

inline bool write_file(const std::string& path, const std::string& content) {
  const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (fd < 0) return false;
  const bool written = ::write(fd, content.data(), content.size()) == static_cast<ssize_t>(content.size());
  ::close(fd);
  return written;
}

inline bool path_exists(const std::string& path) {
  struct stat status {};
  return ::lstat(path.c_str(), &status) == 0;
}

inline long long file_length(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 ? static_cast<long long>(status.st_size) : -1;
}

/// Gives this process mounts of its own. Returns: whether it may mount now.
inline bool own_mounts() {
  return ::unshare(CLONE_NEWNS) == 0 && ::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) == 0;
}

/// As own_mounts, for a test that pretends something in the place of `target`, which must be there.
inline bool can_pretend(const std::string& target) { return path_exists(target) && own_mounts(); }

/// Puts a file with this content in the place of a file of the kernel's (after can_pretend).
inline bool pretend(const TestFolder& folder, const std::string& target, const std::string& content) {
  static int number = 0;
  const std::string source = folder.file("pretend" + std::to_string(number++));
  return write_file(source, content) &&
         ::mount(source.c_str(), target.c_str(), nullptr, MS_BIND, nullptr) == 0;
}

}  // namespace extmem::os::test
