// Two processes and one heap on a GPU. The owner allocates the GPU's memory, makes it a heap of a named domain, fills objects
// there and passes them on through a ring; the worker has the same memory at an address of its own, checks and frees them.
// Then the owner is killed. The GPU's memory stays, with what is in it: the worker recovers the heap, hands the memory on to a
// process that comes only now, and goes on.
//
//   gpu_shared [MiB]
#include <extmem/cuda.hpp>
#include <extmem/extmem.hpp>

#include <spawn.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <thread>
#include <vector>

using namespace std::chrono_literals;
using extmem::AllocOptions;
using extmem::Domain;
using extmem::Heap;
using extmem::Ring;
using extmem::cuda::Gpu;

namespace {

// Descriptors of the processes: an end of a pair of sockets, and the worker's end of the pair between it and the latecomer.
constexpr int kSocket = 40, kLateSocket = 41;
constexpr std::size_t kRingCapacity = 256;

/// What the processes tell each other, in a memzone.
struct Board {
  std::atomic<std::uint32_t> owner, worker;  // their numbers in the domain
  std::atomic<std::uint32_t> owner_is_dead, recovered, late_is_done;
  std::atomic<std::uint64_t> passed, damaged, survived, made_by_worker, reclaimed, withheld;
  std::atomic<std::uint64_t> seen_late;
};

template <typename T>
T need(extmem::Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "gpu_shared (%d): %s: %s\n", static_cast<int>(::getpid()), what,
                 result.error().message());
    std::exit(1);
  }
  return std::move(result).value();
}
void need(const extmem::Result<void>& result, const char* what) {
  if (result) return;
  std::fprintf(stderr, "gpu_shared (%d): %s: %s\n", static_cast<int>(::getpid()), what,
               result.error().message());
  std::exit(1);
}

/// Sends a descriptor, or receives one (fd -1).
int pass(int socket, int fd) {
  char byte = 0;
  ::iovec one{&byte, 1};
  alignas(::cmsghdr) std::array<char, CMSG_SPACE(sizeof fd)> control{};
  ::msghdr message{};
  message.msg_iov = &one;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  if (fd < 0) {
    if (::recvmsg(socket, &message, MSG_CMSG_CLOEXEC) != 1 || CMSG_FIRSTHDR(&message) == nullptr) return -1;
    std::memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof fd);
    return fd;
  }
  ::cmsghdr* const header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof fd);
  std::memcpy(CMSG_DATA(header), &fd, sizeof fd);
  return ::sendmsg(socket, &message, 0) == 1 ? fd : -1;
}

/// Each object has the byte that its size says.
unsigned char byte_of(std::size_t size) { return static_cast<unsigned char>(size * 7 + size / 256); }
bool is_whole(const Gpu& gpu, const void* p, std::size_t size) {
  std::vector<unsigned char> found(size);
  need(gpu.copy_out(found.data(), p, size), "copy out");
  for (const unsigned char byte : found)
    if (byte != byte_of(size)) return false;
  return true;
}
/// Sizes of one class each, so that an object's usable size tells which it is.
std::size_t some_size(std::minstd_rand& random) { return std::size_t{1} << (6 + random() % 11); }

/// Whether the process that started this one still is there.
bool supervised() {
  static const ::pid_t parent = ::getppid();
  return ::getppid() == parent;
}

struct Joined {
  Domain domain;
  Board* board = nullptr;
  Ring ring;
};
Joined join(const char* name, std::uint32_t number) {
  extmem::OpenOptions options;
  options.mode = extmem::OpenMode::open_only;
  Joined all;
  all.domain = need(Domain::open(name, options), "open the domain");
  all.board = static_cast<Board*>(need(all.domain.find_memzone("board"), "find the board").addr);
  const auto ring = need(all.domain.find_memzone("ring"), "find the ring");
  all.ring = need(Ring::attach(ring.addr, ring.length, number), "attach to the ring");
  return all;
}

int own(const char* name, std::size_t bytes) {
  const Gpu gpu = need(Gpu::open(), "open the GPU");
  auto memory = need(extmem::cuda::Memory::shareable(gpu, bytes), "allocate the GPU's memory");
  Joined all = join(name, 1);
  all.board->owner = all.domain.participant();
  Heap heap = need(all.domain.create_heap("gpu"), "make the heap");
  need(all.domain.add_region(heap, memory.spec()), "add the GPU's memory");
  const int fd = need(memory.export_fd(), "export the GPU's memory");
  if (pass(kSocket, fd) < 0) return std::perror("gpu_shared: sendmsg"), 1;
  ::close(fd);
  while (all.board->worker == 0 && supervised()) std::this_thread::sleep_for(1ms);
  std::minstd_rand random(1);
  while (supervised()) {  // until it is killed
    const std::size_t size = some_size(random);
    void* const p = need(heap.allocate(size), "allocate");
    need(gpu.fill(p, byte_of(size), size), "fill");
    need(all.domain.hand_over(p, all.board->worker), "hand over");  // so that it survives us
    const auto ptr = need(all.domain.to_region_ptr(p), "name an object");
    while (!all.ring.push_wait(ptr, 100ms).ok() && supervised()) {
    }
    if (random() % 4 == 0)
      (void)need(heap.allocate(some_size(random)), "allocate");  // what is ours goes with us
  }
  return 1;
}

extmem::RegionInfo region_of(const Domain& domain, Heap heap) {
  extmem::RegionInfo region;
  auto find = [&](const extmem::RegionInfo& info) {
    if (info.heap_id == heap.id()) region = info;
    return true;
  };
  need(domain.walk_regions(find), "look for the region");
  return region;
}

/// Comes when the owner is dead, has the memory from the worker, and looks at all that is held in it: what the worker kept, and
/// perhaps an object that the owner had handed over and not yet passed on when it was killed.
int come_late(const char* name) {
  const Gpu gpu = need(Gpu::open(), "open the GPU");
  const int fd = pass(kSocket, -1);
  if (fd < 0) return std::perror("gpu_shared: recvmsg"), 1;
  Joined all = join(name, 3);
  Heap heap = need(all.domain.find_heap("gpu"), "find the heap");
  const extmem::RegionInfo region = region_of(all.domain, heap);
  const auto memory =
      need(extmem::cuda::Memory::imported(gpu, fd, region.length, region.adder_base), "import");
  ::close(fd);
  need(all.domain.attach_region(region.id, memory.base()), "attach the GPU's memory");
  std::vector<extmem::WalkEntry> objects;
  auto note = [&](const extmem::WalkEntry& entry) {
    const bool object = entry.kind == extmem::WalkKind::object || entry.kind == extmem::WalkKind::held_span;
    if (object && entry.held) objects.push_back(entry);
    return true;
  };
  need(heap.walk(note, {.objects = true}), "walk the heap");
  for (const extmem::WalkEntry& object : objects)
    ++(is_whole(gpu, object.addr, object.length) ? all.board->seen_late : all.board->damaged);
  all.board->late_is_done = 1;
  need(all.domain.detach_region(region.id), "detach the GPU's memory");
  return 0;
}

int work(const char* name) {
  const Gpu gpu = need(Gpu::open(), "open the GPU");
  const int fd = pass(kSocket, -1);
  if (fd < 0) return std::perror("gpu_shared: recvmsg"), 1;
  Joined all = join(name, 2);
  Domain& domain = all.domain;
  Board& board = *all.board;
  Heap heap = need(domain.find_heap("gpu"), "find the heap");
  const extmem::RegionInfo region = region_of(domain, heap);
  // Something is at the owner's address here, so that the two differ.
  const auto in_the_way = need(extmem::cuda::Memory::shareable(gpu, region.length), "allocate memory");
  const auto memory =
      need(extmem::cuda::Memory::imported(gpu, fd, region.length, region.adder_base), "import");
  ::close(fd);
  need(domain.attach_region(region.id, memory.base()), "attach the GPU's memory");
  const int for_latecomer = need(memory.export_fd(), "export the GPU's memory");
  if (pass(kLateSocket, for_latecomer) < 0) return std::perror("gpu_shared: sendmsg"), 1;
  ::close(for_latecomer);
  // It answers when the owner is dead: nothing of its is given out again while its work on the GPU may go on.
  extmem::cuda::Attachment attachment;
  need(attachment.attach(domain, gpu), "attach");
  std::printf("the GPU's memory is at %p in the owner, at %p in the worker\n", region.adder_base,
              memory.base());
  board.worker = domain.participant();

  std::vector<void*> kept;  // the first hundred are looked at again when their maker is dead
  const auto take = [&](std::chrono::milliseconds patience) {
    auto taken = all.ring.take_wait(patience);
    if (!taken) return false;
    void* const p = need(domain.from_region_ptr(taken->ptr), "resolve an object");
    const std::size_t size = need(heap.usable_size(p), "size of an object");
    if (!is_whole(gpu, p, size)) ++board.damaged;
    if (kept.size() < 100) {
      kept.push_back(p);
    } else {
      need(heap.deallocate(p), "free");
    }
    need(all.ring.settle(*taken), "settle");
    ++board.passed;
    return true;
  };
  while (board.owner_is_dead == 0 && supervised()) (void)take(20ms);

  const auto before = need(heap.stats(), "statistics");
  // Until nothing is the dead owner's, or nobody's because the attachment withholds it while the owner is ending.
  for (bool left = true; left; std::this_thread::sleep_for(1ms)) {
    board.withheld += need(domain.recover(), "recover").withheld_objects;
    extmem::HolderReport holders;
    need(heap.holders(holders), "ask who holds what");
    left = false;
    for (std::size_t i = 0; i < holders.count; ++i) left = left || holders.holders[i].pid == 0;
    auto look = [&](const extmem::ParticipantInfo& one) { return !(left = left || one.id == board.owner); };
    need(domain.walk_participants(look), "look who is there");
  }
  board.reclaimed = before.used_count - need(heap.stats(), "statistics").used_count;
  while (take(0ms)) {
  }
  board.recovered = 1;
  while (board.late_is_done == 0 && supervised()) std::this_thread::sleep_for(1ms);
  for (void* p : kept) {
    if (is_whole(gpu, p, need(heap.usable_size(p), "size of an object"))) ++board.survived;
    need(heap.deallocate(p), "free");
  }
  std::minstd_rand random(2);
  for (int i = 0; i < 1000; ++i) {
    const std::size_t size = some_size(random);
    void* const p = need(heap.allocate(size), "allocate");
    need(gpu.fill(p, byte_of(size), size), "fill");
    if (!is_whole(gpu, p, size)) ++board.damaged;
    need(heap.deallocate(p), "free");
    ++board.made_by_worker;
  }
  attachment.detach();
  need(domain.detach_region(region.id), "detach the GPU's memory");
  return 0;
}

struct Process {
  ::pid_t pid = -1;
  /// 0: it ended well. `patience`: then it is killed.
  int wait(std::chrono::seconds patience) const {
    int status = 0;
    for (const auto end = std::chrono::steady_clock::now() + patience;
         ::waitpid(pid, &status, WNOHANG) == 0;) {
      if (std::chrono::steady_clock::now() > end) (void)::kill(pid, SIGKILL);
      std::this_thread::sleep_for(1ms);
    }
    return status;
  }
};
Process start(std::string role, std::string name, std::string mib, int socket, int second = -1) {
  std::string program = "gpu_shared";
  char* arguments[] = {program.data(), role.data(), name.data(), mib.data(), nullptr};
  ::posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, socket, kSocket);
  if (second >= 0) ::posix_spawn_file_actions_adddup2(&actions, second, kLateSocket);
  Process process;
  const int failed = ::posix_spawn(&process.pid, "/proc/self/exe", &actions, nullptr, arguments, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (failed != 0) std::exit(1);
  return process;
}

int supervise(std::size_t mib) {
  {
    const auto gpu = Gpu::open();
    if (!gpu) return std::printf("needs an NVIDIA GPU: %s\n", gpu.error().message()), 77;
    if (!gpu->has(extmem::cuda::DeviceAttribute::posix_descriptors))
      return std::printf("needs a GPU whose memory processes can share by descriptors\n"), 77;
    std::printf("%zu MiB of %s\n", mib, gpu->name().data());
  }
  const std::string name = "gpu-" + std::to_string(::getpid());
  extmem::OpenOptions options;
  options.mode = extmem::OpenMode::create_only;
  options.remove_when_last = true;
  auto opened = Domain::open(name, options);
  if (!opened) return std::printf("needs a tmpfs for named domains: %s\n", opened.error().message()), 77;
  Domain domain = std::move(*opened);
  Heap host = need(domain.create_heap("host"), "make a heap");
  extmem::BackingSpec backing;
  backing.length = std::size_t{2} << 20;
  need(domain.add_backing(host, backing), "add memory");
  AllocOptions aligned;
  aligned.align = extmem::kRingAlign;
  aligned.zero = true;
  auto& board = *static_cast<Board*>(
      need(domain.reserve_memzone(host, "board", sizeof(Board), aligned), "reserve the board").addr);
  const std::size_t ring_bytes =
      need(Ring::bytes_for(extmem::RingKind::spsc, kRingCapacity), "size of the ring");
  const auto ring = need(domain.reserve_memzone(host, "ring", ring_bytes, aligned), "reserve the ring");
  need(Ring::create(ring.addr, ring.length, extmem::RingKind::spsc, kRingCapacity), "make the ring");

  int sockets[2], late[2];
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets) != 0) return 1;
  if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, late) != 0) return 1;
  const Process owner = start("own", name, std::to_string(mib), sockets[0]);
  const Process worker = start("work", name, std::to_string(mib), sockets[1], late[0]);
  for (const int fd : {sockets[0], sockets[1], late[0]}) ::close(fd);
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (board.passed < 2000 && std::chrono::steady_clock::now() < patience &&
         ::waitpid(owner.pid, nullptr, WNOHANG) == 0 && ::waitpid(worker.pid, nullptr, WNOHANG) == 0)
    std::this_thread::sleep_for(1ms);
  const std::uint64_t passed = board.passed;
  (void)::kill(owner.pid, SIGKILL);
  const auto killed = std::chrono::steady_clock::now();
  board.owner_is_dead = 1;  // while its end is under way
  (void)owner.wait(60s);
  while (board.recovered == 0 && std::chrono::steady_clock::now() < patience)
    std::this_thread::sleep_for(1ms);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - killed).count();
  const Process latecomer = start("late", name, std::to_string(mib), late[1]);
  ::close(late[1]);
  const bool ended_well = latecomer.wait(60s) == 0 && worker.wait(60s) == 0;

  need(domain.recover(), "recover");
  Heap heap = need(domain.find_heap("gpu"), "find the heap");
  const auto stats = need(heap.stats(), "statistics");
  const std::size_t breaches = need(domain.verify(), "verify");
  const auto number = [](const auto& n) { return static_cast<unsigned long long>(n); };
  std::printf("passed on %llu objects, damaged %llu; the owner was killed\n", number(passed),
              number(board.damaged));
  std::printf(
      "of the dead one's objects %llu were reclaimed, %llu of them only when its files of the GPU were "
      "closed, ",
      number(board.reclaimed), number(board.withheld));
  std::printf("%.2f s after the kill\n", seconds);
  std::printf("a process that came then saw %llu objects whole, the worker %llu of 100 that it had kept\n",
              number(board.seen_late), number(board.survived));
  std::printf("the worker went on with %llu objects more; held now: %llu; breaches: %zu\n",
              number(board.made_by_worker), number(stats.used_count), breaches);
  return ended_well && board.damaged == 0 && board.seen_late >= 100 && board.survived == 100 &&
                 board.made_by_worker == 1000 && stats.used_count == 0 && breaches == 0
             ? 0
             : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4) {
    const std::size_t mib = std::strtoul(argv[3], nullptr, 10);
    if (std::strcmp(argv[1], "own") == 0) return own(argv[2], mib << 20);
    return std::strcmp(argv[1], "work") == 0 ? work(argv[2]) : come_late(argv[2]);
  }
  return supervise(argc > 1 ? std::strtoul(argv[1], nullptr, 10) : 256);
}
