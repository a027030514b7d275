// How long a GPU goes on writing for a process that was killed: why memory that it held must not be given out again at once.
//
//   cmake --preset bench && cmake --build --preset bench --target gpu_kill && build/bench/bench/gpu_kill [ROUNDS]
//
// A process queues settings of 1 GiB of shared memory of the GPU's, each with another word, and is killed. The other one looks
// every few hundred microseconds: at the process' fcntl lock, at what Attachment asks before it lets go of a dead one's
// memory (detail::may_use_gpu), and at the memory's last word. A line a round, in milliseconds from the kill. The last
// column has to be 0. Needs an NVIDIA GPU.
#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <thread>

#include "extmem/cuda.hpp"

namespace {

using extmem::cuda::Gpu;
using extmem::cuda::Memory;
using Clock = std::chrono::steady_clock;

constexpr std::size_t kBytes = std::size_t{1} << 30;
constexpr int kMemory = 3, kStarted = 4;  // descriptors in the process that is killed

void must(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "gpu_kill: %s failed, CUDA's status %d\n", what, extmem::cuda::last_status());
  std::exit(1);
}

int write_until_killed(const char* lock_file) {
  auto gpu = Gpu::open();
  must(gpu.ok(), "opening the GPU");
  auto memory = Memory::imported(*gpu, kMemory, kBytes, nullptr);
  must(memory.ok(), "importing the memory");
  const int file = ::open(lock_file, O_RDWR | O_CLOEXEC);
  struct ::flock lock {};
  lock.l_type = F_WRLCK;
  lock.l_len = 1;
  must(::fcntl(file, F_SETLK, &lock) == 0, "locking");
  const Gpu::Current current(*gpu);
  extmem::cuda::Stream stream = nullptr;
  must(gpu->driver().stream_create(&stream, 1) == 0, "making a stream");
  for (unsigned word = 1;; ++word) {
    must(gpu->driver().set_words(extmem::cuda::device_ptr(memory->base()), word, kBytes / 4, stream) == 0,
         "setting");
    if (word == 3) must(::write(kStarted, "x", 1) == 1, "telling");
  }
}

void round(const Gpu& gpu, const Memory& memory, const std::string& lock_file) {
  int started[2];
  const auto fd = memory.export_fd();
  must(fd.ok() && ::pipe2(started, O_CLOEXEC) == 0, "exporting the memory");
  ::posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  // Upwards first: neither may be the other's target.
  ::posix_spawn_file_actions_adddup2(&actions, *fd, 40);
  ::posix_spawn_file_actions_adddup2(&actions, started[1], 41);
  ::posix_spawn_file_actions_adddup2(&actions, 40, kMemory);
  ::posix_spawn_file_actions_adddup2(&actions, 41, kStarted);
  std::string program = "gpu_kill", file = lock_file;
  char* arguments[] = {program.data(), file.data(), nullptr};
  ::pid_t pid = 0;
  must(::posix_spawn(&pid, "/proc/self/exe", &actions, nullptr, arguments, environ) == 0,
       "starting a process");
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(*fd);
  ::close(started[1]);
  char byte = 0;
  must(::read(started[0], &byte, 1) == 1, "waiting for the process");
  ::close(started[0]);
  std::this_thread::sleep_for(std::chrono::milliseconds(200));  // its queue is full

  const int descriptor = ::open(lock_file.c_str(), O_RDWR | O_CLOEXEC);
  const char* const last_word = static_cast<const char*>(memory.base()) + kBytes - 4;
  unsigned before = 0, now = 0;
  double unlocked = -1, over = -1, changed = 0;
  int after_lock = 0, after_over = 0;
  const auto killed = Clock::now();
  const auto ms = [&] { return std::chrono::duration<double, std::milli>(Clock::now() - killed).count(); };
  (void)::kill(pid, SIGKILL);
  while (over < 0 || ms() < over + 500) {
    const bool was_unlocked = unlocked >= 0, was_over = over >= 0;
    struct ::flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_len = 1;
    if (!was_unlocked && ::fcntl(descriptor, F_GETLK, &lock) == 0 && lock.l_type == F_UNLCK) unlocked = ms();
    if (!was_over && !extmem::cuda::detail::may_use_gpu(pid, "/dev/nvidia")) over = ms();
    must(gpu.copy_out(&now, last_word, sizeof now).ok(), "looking");
    if (now == before) continue;
    before = now;
    changed = ms();
    after_lock += was_unlocked ? 1 : 0;
    after_over += was_over ? 1 : 0;
  }
  ::close(descriptor);
  (void)::waitpid(pid, nullptr, 0);
  std::printf("%10.2f %14.2f %18d %15.2f %18d\n", unlocked, changed, after_lock, over, after_over);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc > 1 && argv[1][0] == '/') return write_until_killed(argv[1]);
  auto gpu = Gpu::open();
  if (!gpu) {
    std::printf("needs an NVIDIA GPU: %s\n", gpu.error().message());
    return 77;
  }
  auto memory = Memory::shareable(*gpu, kBytes);
  must(memory.ok(), "allocating shareable memory");
  char lock_file[] = "/tmp/gpu_kill.XXXXXX";
  const int file = ::mkstemp(lock_file);
  must(file >= 0, "making a file");
  ::close(file);
  std::printf("%s\n%10s %14s %18s %15s %18s\n", gpu->name().data(), "lock gone", "last change",
              "changes after it", "files closed", "changes after them");
  for (int i = argc > 1 ? std::atoi(argv[1]) : 5; i > 0; --i) round(*gpu, *memory, lock_file);
  (void)::unlink(lock_file);
  return 0;
}
