// fork: the child has a copy of everything, whatever the memory is.
//
// Private memory (anonymous, hugetlb) is copied by the kernel, and the heap's books with it (src/heap/fork.cpp). Memory in a
// shared mapping (memfd, shm, file, dax) is copied here, by the child, before anything else happens in it: only what was ever
// written, into anonymous memory at the same addresses. The parent's forking thread waits until that is done, still inside
// fork, so that what it or a lock that it holds protects is as it was at the fork. The parent's other threads run on: what they
// write meanwhile may be in the copy, each byte by itself. Where the copy does not fit, fork fails with ENOMEM.
// The heap of a named domain is not copied: its books are other processes' too. There fork fails, with the reason.
// vfork, posix_spawn, system and popen share everything until exec anyway, and work. A raw clone system call is not seen.
//
// Two things would write to the parent's memory from a child that has no copy yet: signal handlers, so signals are blocked
// meanwhile, and the C library, which resets the locks of all streams in the child of a process with threads. Those that
// fopen allocated are on the heap: for the time of the fork they are not in its list, and the child resets them in its copy.
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <pty.h>
#include <sys/single_threaded.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>

#include "faces/preload/exported.hpp"
#include "faces/preload/process_heap.hpp"
#include "heap/live_domains.hpp"
#include "os/memory_left.hpp"
#include "os/private_copy.hpp"
#include "os/writer.hpp"

// The GNU C library's list of streams; null in a library that has none.
extern "C" {
[[gnu::weak]] extern FILE* _IO_list_all;
[[gnu::weak]] void _IO_list_lock();
[[gnu::weak]] void _IO_list_unlock();
[[gnu::weak]] void _IO_list_resetlock();
}

namespace extmem::preload {

namespace {

/// The streams that the list of the C library does not have for the time of a fork: those before the standard ones.
class HiddenStreams {
 public:
  void hide() noexcept {
    if (!known()) return;
    threads_ = __libc_single_threaded == 0;
    ::_IO_list_lock();
    first_ = ::_IO_list_all;
    end_ = first_;
    while (end_ != nullptr && end_ != stdin && end_ != stdout && end_ != stderr) end_ = end_->_chain;
    ::_IO_list_all = end_;
  }
  void show_in_parent() noexcept {
    if (!known()) return;
    ::_IO_list_all = first_;
    ::_IO_list_unlock();
  }
  void show_in_child() noexcept {
    if (!known()) return;
    ::_IO_list_all = first_;
    ::_IO_list_resetlock();
    constexpr int kUserLock = 0x8000;  // _IO_USER_LOCK
    for (FILE* f = first_; threads_ && f != end_; f = f->_chain) {
      if ((f->_flags & kUserLock) == 0 && f->_lock != nullptr) std::memset(f->_lock, 0, kLockBytes);
    }
  }

 private:
  static constexpr std::size_t kLockBytes = 2 * sizeof(int) + sizeof(void*);  // _IO_lock_t
  static bool known() noexcept {
    return &::_IO_list_all != nullptr && &::_IO_list_lock != nullptr && &::_IO_list_unlock != nullptr &&
           &::_IO_list_resetlock != nullptr;
  }

  FILE* first_ = nullptr;
  FILE* end_ = nullptr;
  bool threads_ = false;
};

struct Forking {
  pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;  // one fork at a time
  sigset_t signals{};
  HiddenStreams streams;
  // From the child: a byte when it has its copy; its end without one when it has none.
  int pipe[2] = {-1, -1};
  bool copies = false;  // this fork is one that copies
};
Forking forking;

/// What the calling thread's last fork came to: 0, or why the child has no copy.
thread_local int outcome = 0;

void close_end(int& fd) noexcept {
  if (fd >= 0) ::close(fd);
  fd = -1;
}

[[noreturn]] void end_child(const char* why) noexcept {
  os::Writer(STDERR_FILENO).text("extmem: fork: no copy of the heap's memory: ").text(why).text("\n");
  ::_exit(127);
}

void prepare() noexcept {
  outcome = 0;
  if (!process.settings.shared_with_children()) return;
  sigset_t all;
  sigset_t before;
  ::sigfillset(&all);
  ::pthread_sigmask(SIG_SETMASK, &all, &before);
  ::pthread_mutex_lock(&forking.lock);
  forking.signals = before;
  forking.copies = true;
  if (::pipe2(forking.pipe, O_CLOEXEC) != 0) {
    outcome = errno;
    forking.pipe[0] = forking.pipe[1] = -1;
  }
  forking.streams.hide();
}

void in_parent() noexcept {
  if (!process.settings.shared_with_children()) return;
  const int before = errno;
  close_end(forking.pipe[1]);
  if (forking.pipe[0] >= 0) {
    char done = 0;
    ::ssize_t got;
    do {
      got = ::read(forking.pipe[0], &done, 1);
    } while (got < 0 && errno == EINTR);
    if (got != 1) outcome = ENOMEM;
    close_end(forking.pipe[0]);
  }
  forking.streams.show_in_parent();
  forking.copies = false;
  const sigset_t signals = forking.signals;
  ::pthread_mutex_unlock(&forking.lock);
  ::pthread_sigmask(SIG_SETMASK, &signals, nullptr);
  errno = before;
}

void in_child() noexcept {
  if (!forking.copies) return;
  const int before = errno;
  close_end(forking.pipe[0]);
  if (forking.pipe[1] < 0) end_child("no descriptor for a pipe");
  if (const auto copied = heap::copy_for_child(); !copied) end_child(copied.error().message());
  process.path_lock.drop();  // it has a copy: the path is its parent's, and free again when that ends
  const char done = 1;
  if (::write(forking.pipe[1], &done, 1) != 1) end_child("the parent is gone");
  close_end(forking.pipe[1]);
  forking.streams.show_in_child();
  forking.copies = false;
  const sigset_t signals = forking.signals;
  forking.lock = PTHREAD_MUTEX_INITIALIZER;
  ::pthread_sigmask(SIG_SETMASK, &signals, nullptr);
  errno = before;
}

/// Whether the machine, or the control group, has the memory for the copy that a child needs.
bool fits() noexcept {
  std::uint64_t bytes = 0;
  (void)process.domain().walk_regions([&](const RegionInfo& region) {
    if (region.fd >= 0) bytes += os::bytes_to_copy(region.fd, region.length);
    return true;
  });
  return bytes == 0 || os::check_memory_left(bytes).ok();
}

/// Whether other threads may have thread-specific data on the heap: the C library keeps what belongs to keys beyond the first block in
/// memory that it allocates, and clears that in the child, before there is a copy.
bool clears_data_of_threads() noexcept {
  if (__libc_single_threaded != 0) return false;
  constexpr pthread_key_t kFirstBlock = 32;  // PTHREAD_KEY_2NDLEVEL_SIZE
  pthread_key_t keys[kFirstBlock + 1];
  pthread_key_t made = 0;
  bool beyond = true;                                        // no key is left
  while (::pthread_key_create(&keys[made], nullptr) == 0) {  // the lowest that is unused
    const pthread_key_t key = keys[made++];
    beyond = key > kFirstBlock;
    if (key >= kFirstBlock) break;
  }
  while (made != 0) (void)::pthread_key_delete(keys[--made]);
  return beyond;
}

bool refused(const char* function) noexcept {
  const Settings& settings = process.settings;
  if (!settings.shared_with_children()) return false;
  const char* why = nullptr;
  int error = ENOTSUP;
  if (settings.domain[0] != '\0') {
    why =
        "the heap is in a domain that processes share, and the child would share it instead of having a "
        "copy. "
        "Leave --domain away for programs that fork.";
  } else if (process.domain().region_of(&why)) {
    why =
        "the calling thread's stack was allocated, and until it has its copy the child would share it. Use "
        "--backing anon, thp or hugetlb for programs that fork so.";
  } else if (clears_data_of_threads()) {
    why =
        "the process has threads and more than 32 keys of thread-specific data, which the C library would "
        "clear in "
        "the parent. Use --backing anon, thp or hugetlb for programs that fork so.";
  } else if (!fits()) {
    why =
        "there is no memory for the child's copy of the heap (MemAvailable in /proc/meminfo, the control "
        "group's memory.max).";
    error = ENOMEM;
  }
  if (why == nullptr) return false;
  static std::atomic_flag told = ATOMIC_FLAG_INIT;  // relaxed: nothing goes with it
  if (!told.test_and_set(std::memory_order_relaxed)) {
    os::Writer(STDERR_FILENO).text("extmem: ").text(function).text(" refused: ").text(why).text("\n");
  }
  errno = error;
  return true;
}

template <typename Function>
Function next(const char* name) noexcept {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

/// What fork gives, or -1 where the child has ended for want of a copy.
pid_t checked(pid_t pid) noexcept {
  if (pid <= 0 || outcome == 0) return pid;
  while (::waitpid(pid, nullptr, 0) < 0 && errno == EINTR) {
  }
  errno = outcome;
  return -1;
}

}  // namespace

int watch_forks() noexcept { return ::pthread_atfork(&prepare, &in_parent, &in_child); }

}  // namespace extmem::preload

using extmem::preload::checked;
using extmem::preload::next;
using extmem::preload::refused;

EXTMEM_EXPORTED_C pid_t fork() {
  if (refused("fork")) return -1;
  const auto real = next<pid_t (*)()>("fork");
  return checked(real());
}
EXTMEM_EXPORTED_C pid_t _Fork() {
  if (refused("_Fork")) return -1;
  const auto real = next<pid_t (*)()>("_Fork");
  if (real == nullptr) {  // the GNU C library has it from 2.34 on
    errno = ENOSYS;
    return -1;
  }
  // It runs no handlers of anybody's; ours it needs.
  extmem::preload::prepare();
  const pid_t pid = real();
  if (pid == 0) {
    extmem::preload::in_child();
  } else {
    extmem::preload::in_parent();
  }
  return checked(pid);
}
EXTMEM_EXPORTED_C int forkpty(int* main, char* name, const termios* settings, const winsize* size) {
  if (refused("forkpty")) return -1;
  const auto real = next<int (*)(int*, char*, const termios*, const winsize*)>("forkpty");
  if (real == nullptr) {  // in libutil before 2.34, which its callers have loaded
    errno = ENOSYS;
    return -1;
  }
  const pid_t pid = checked(real(main, name, settings, size));
  if (pid < 0 && extmem::preload::outcome != 0) ::close(*main);
  return pid;
}
EXTMEM_EXPORTED_C int daemon(int nochdir, int noclose) {
  if (refused("daemon")) return -1;
  const auto real = next<int (*)(int, int)>("daemon");
  return real(nochdir, noclose);  // where the child gets no copy after all it says so, and ends with 127
}
