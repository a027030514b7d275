// Records of varying size from one program to others, through a heap and a ring that they share. The consumers are killed
// and started again at random; in the end every record is accounted for, once, and every byte is free.
//
//   records [COUNT] [CONSUMERS]      10 million records: records 10000000
//
// Each consumer is a process of its own (this program, started anew): its addresses differ from the producer's.
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "extmem/extmem.hpp"

extern char** environ;

using namespace extmem;
using namespace std::chrono_literals;

namespace {

constexpr std::size_t kRingCapacity = 4096;

struct Record {
  std::uint64_t number;
  std::uint32_t length;  // of the payload behind this
  std::uint32_t sum;
};
unsigned char* payload_of(Record* record) { return reinterpret_cast<unsigned char*>(record + 1); }

/// Adler-like, enough to see that a record is whole.
std::uint32_t sum_of(const unsigned char* bytes, std::size_t n) {
  std::uint32_t a = 1, b = 0;
  for (std::size_t i = 0; i < n; ++i) b += a += bytes[i];
  return a ^ b << 16;
}

/// Which records were consumed: a bit for each. In a memzone, so that it survives every consumer.
struct Ledger {
  std::atomic<std::uint64_t> done, twice, damaged, bytes;
  std::atomic<std::uint64_t> bits[1];  // really (count + 63) / 64
  static std::size_t bytes_for(std::uint64_t count) { return sizeof(Ledger) + (count + 63) / 64 * 8; }
  /// Enters a record. False: it is there already.
  bool enter(std::uint64_t number) {
    const std::uint64_t bit = std::uint64_t{1} << (number % 64);
    if ((bits[number / 64].fetch_or(bit) & bit) != 0) return false;
    done.fetch_add(1);
    return true;
  }
};

template <typename T>
T need(Result<T> result, const char* what) {
  if (!result) {
    std::fprintf(stderr, "records: %s: %s\n", what, result.error().message());
    std::exit(1);
  }
  return std::move(result).value();
}
void need(const Result<void>& result, const char* what) {
  if (result) return;
  std::fprintf(stderr, "records: %s: %s\n", what, result.error().message());
  std::exit(1);
}

/// Consumes until it is killed. The order makes every instant accountable: entered, then freed, then settled. A record
/// whose consumer dies before it settles is reported to the producer, who can tell from the ledger and from the record
/// how far the consumer got.
int consume(const std::string& name, std::uint32_t id) {
  OpenOptions options;
  options.mode = OpenMode::open_only;
  Domain domain = need(Domain::open(name, options), "open");
  Heap heap = need(domain.find_heap("records"), "find the heap");
  const MemzoneInfo zone = need(domain.find_memzone("ring"), "find the ring");
  auto* ledger = static_cast<Ledger*>(need(domain.find_memzone("ledger"), "find the ledger").addr);
  const Ring ring = need(Ring::attach(zone.addr, zone.length, id), "attach to the ring");
  const ::pid_t parent = ::getppid();
  while (::getppid() == parent) {
    auto taken = ring.take_wait(100ms);
    if (!taken) continue;
    auto* record = static_cast<Record*>(need(domain.from_region_ptr(taken->ptr), "resolve a record"));
    if (record->number != taken->ticket || sum_of(payload_of(record), record->length) != record->sum)
      ledger->damaged.fetch_add(1);
    ledger->bytes.fetch_add(record->length);
    if (!ledger->enter(record->number)) ledger->twice.fetch_add(1);
    need(heap.deallocate(record), "free a record");
    need(ring.settle(*taken), "settle");
  }
  return 0;
}

struct Consumer {
  ::pid_t pid = -1;
  std::uint32_t id = 0;
};

Consumer start(const std::string& name, std::uint32_t id) {
  std::string program = "records", role = "consume", domain = name, number = std::to_string(id);
  char* arguments[] = {program.data(), role.data(), domain.data(), number.data(), nullptr};
  Consumer consumer;
  consumer.id = id;
  if (::posix_spawn(&consumer.pid, "/proc/self/exe", nullptr, nullptr, arguments, environ) != 0) {
    std::perror("records: cannot start a consumer");
    std::exit(1);
  }
  return consumer;
}

int produce(std::uint64_t count, std::size_t consumers) {
  const std::string name = "records-" + std::to_string(::getpid());
  OpenOptions options;
  options.mode = OpenMode::create_only;
  options.remove_when_last = true;
  auto opened = Domain::open(name, options);
  if (!opened) {
    std::printf("records: needs a tmpfs for named domains: %s\n", opened.error().message());
    return 77;
  }
  Domain domain = std::move(*opened);
  Heap heap = need(domain.create_heap("records"), "create the heap");
  BackingSpec backing;
  backing.length = (std::size_t{32} << 20) + Ledger::bytes_for(count) + (std::size_t{1} << 20);
  need(domain.add_backing(heap, backing), "add memory");
  const std::size_t ring_bytes = need(Ring::bytes_for(RingKind::mpmc, kRingCapacity), "size of the ring");
  AllocOptions aligned;
  aligned.align = kRingAlign;
  const MemzoneInfo zone =
      need(domain.reserve_memzone(heap, "ring", ring_bytes, aligned), "reserve the ring");
  aligned.zero = true;
  auto* ledger = static_cast<Ledger*>(
      need(domain.reserve_memzone(heap, "ledger", Ledger::bytes_for(count), aligned), "reserve the ledger")
          .addr);
  need(Ring::create(zone.addr, zone.length, RingKind::mpmc, kRingCapacity), "create the ring");
  const Ring ring = need(Ring::attach(zone.addr, zone.length, 0), "attach to the ring");

  std::uint32_t next_id = 1;
  std::vector<Consumer> running;
  for (std::size_t i = 0; i < consumers; ++i) running.push_back(start(name, next_id++));

  std::uint64_t orphans = 0, kills = 0;
  std::uint32_t dead = 0;  // the consumer that was just killed
  RingWatch watch;
  auto is_dead = [&](std::uint32_t id) { return id == dead; };
  auto on_orphan = [&](const RingOrphan& orphan) {
    ++orphans;
    auto* record = static_cast<Record*>(need(domain.from_region_ptr(orphan.ptr), "resolve an orphan"));
    if (record->number != orphan.ticket)
      return;                             // entered, freed, and its memory is another record's already
    (void)ledger->enter(record->number);  // unless the consumer got that far
    (void)heap.deallocate(record);        // refused as a double free where the consumer got that far
  };
  watch.is_dead = is_dead;
  watch.on_orphan = on_orphan;
  const auto replace = [&](Consumer& consumer) {
    (void)::kill(consumer.pid, SIGKILL);
    (void)::waitpid(consumer.pid, nullptr, 0);
    ++kills;
    dead = consumer.id;
    need(ring.recover(watch), "recover the ring");
    need(domain.recover(), "recover the heap");
    dead = 0;
  };

  std::minstd_rand random(static_cast<unsigned>(::getpid()));
  std::uint64_t sent_bytes = 0;
  auto next_kill = std::chrono::steady_clock::now() + 20ms;
  const auto begun = std::chrono::steady_clock::now();
  for (std::uint64_t number = 0; number < count; ++number) {
    const auto length = static_cast<std::uint32_t>(16 + random() % (random() % 64 == 0 ? 4000u : 300u));
    auto* record = static_cast<Record*>(need(heap.allocate(sizeof(Record) + length), "allocate a record"));
    record->number = number;
    record->length = length;
    std::memset(payload_of(record), static_cast<int>(number), length);
    record->sum = sum_of(payload_of(record), length);
    sent_bytes += length;
    const RegionPtr ptr = need(domain.to_region_ptr(record), "name a record");
    while (!ring.push_wait(ptr, 10ms).ok()) {
    }
    if (number % 256 == 0 && std::chrono::steady_clock::now() >= next_kill && next_id < kMaxRingParticipant) {
      Consumer& victim = running[random() % running.size()];
      replace(victim);
      victim = start(name, next_id++);
      next_kill = std::chrono::steady_clock::now() + std::chrono::milliseconds(random() % 40);
    }
  }
  const auto patience = std::chrono::steady_clock::now() + 60s;
  while (ledger->done < count && std::chrono::steady_clock::now() < patience) ::usleep(1000);
  const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
  for (Consumer& consumer : running) replace(consumer);
  need(heap.flush(), "flush");

  const HeapStats stats = need(heap.stats(), "statistics");
  const std::size_t breaches = need(domain.verify(), "verify");
  std::printf(
      "%llu records (%.1f MB) through %zu consumers, %llu of which were killed, in %.2f s: %.2f million "
      "records/s\n",
      static_cast<unsigned long long>(count), static_cast<double>(sent_bytes) / 1e6, consumers,
      static_cast<unsigned long long>(kills), seconds, static_cast<double>(count) / seconds / 1e6);
  std::printf(
      "accounted for %llu, twice %llu, damaged %llu, orphans taken over %llu, objects left %llu, breaches "
      "%zu\n",
      static_cast<unsigned long long>(ledger->done.load()),
      static_cast<unsigned long long>(ledger->twice.load()),
      static_cast<unsigned long long>(ledger->damaged.load()), static_cast<unsigned long long>(orphans),
      static_cast<unsigned long long>(stats.used_count - stats.memzones), breaches);
  return ledger->done == count && ledger->twice == 0 && ledger->damaged == 0 &&
                 stats.used_count == stats.memzones && breaches == 0
             ? 0
             : 1;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc == 4 && std::strcmp(argv[1], "consume") == 0) {
    return consume(argv[2], static_cast<std::uint32_t>(std::strtoul(argv[3], nullptr, 10)));
  }
  const std::uint64_t count = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 200'000;
  const std::size_t consumers = argc > 2 ? std::strtoul(argv[2], nullptr, 10) : 2;
  return produce(std::max<std::uint64_t>(count, 1), std::max<std::size_t>(consumers, 1));
}
