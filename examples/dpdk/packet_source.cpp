// Receives packets with DPDK into a heap that processes without DPDK share, and passes them on without copying.
//
//   packet_source [EAL OPTIONS] -- DOMAIN PACKETS [--hugetlb] [--die STEP COUNT]
//
// The first port there is must bring the PACKETS packets of make_capture: net_pcap with rx_pcap=FILE, say. May be killed and
// started again at any time: it goes on with the domain that is there. Ends when every packet was read, and removes nothing: the
// domain is there to be looked at. Steps: created, lent, received, filled, pushed, popped, freed.
#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mempool.h>

#include <algorithm>
#include <array>
#include <set>
#include <thread>
#include <vector>

#include "extmem/dpdk_bridge.h"
#include "packets.hpp"

using namespace packets;

namespace {

constexpr std::uint16_t kBurst = 32;
constexpr std::size_t kMemory = std::size_t{4} << 20;  // for buffers, rings and tables, besides the ledger

struct Options {
  std::string domain;
  std::uint64_t packets = 0;
  bool hugetlb = false;
  Death death;
};

Options parse(int argc, char** argv) {
  Options options;
  if (argc < 3)
    give_up("usage", "packet_source [EAL OPTIONS] -- DOMAIN PACKETS [--hugetlb] [--die STEP COUNT]");
  options.domain = argv[1];
  options.packets = std::strtoull(argv[2], nullptr, 10);
  for (int i = 3; i < argc; ++i) {
    if (std::strcmp(argv[i], "--hugetlb") == 0) {
      options.hugetlb = true;
    } else if (std::strcmp(argv[i], "--die") == 0 && i + 2 < argc) {
      options.death.step = argv[++i];
      options.death.count = std::strtoull(argv[++i], nullptr, 10);
    } else {
      give_up("no such option", argv[i]);
    }
  }
  return options;
}

void need_bridge(int result, const char* what) {
  if (result != 0) give_up(what, extmem_dpdk_last_error_message());
}
void need_dpdk(int result, const char* what) {
  if (result < 0) give_up(what, rte_strerror(-result));
}

// ---- the domain ------------------------------------------------------------------------------------------------

/// Finds the heap and its memory, or makes them: a source that died in the middle of this left a part.
Heap prepare_heap(Domain& domain, const Options& options) {
  auto heap = domain.find_heap(kHeap);
  if (!heap) heap = domain.create_heap(kHeap);
  need(Result<void>(heap.error()), "make the heap");
  if (need(heap->stats(), "look at the heap").regions == 0) {
    BackingSpec backing;
    backing.kind = options.hugetlb ? BackingKind::memfd_hugetlb : BackingKind::anonymous;
    backing.length = kMemory + Ledger::bytes_for(options.packets);
    const auto added = domain.add_backing(*heap, backing);
    if (!added && options.hugetlb) {
      std::printf("needs free hugepages: %s\n", added.error().message());
      std::exit(77);
    }
    need(Result<void>(added.error()), "add memory");
  }
  return *heap;
}

MemzoneInfo prepare_zone(Domain& domain, Heap heap, const char* name, std::size_t bytes) {
  if (const auto found = domain.find_memzone(name)) {
    if (found->length < bytes)
      give_up(name, "is shorter than this run needs; the domain is of a run of fewer packets: remove it");
    return need_mapped(*found);
  }
  AllocOptions options;
  options.align = kRingAlign;
  options.zero = true;
  return need(domain.reserve_memzone(heap, name, bytes, options), name);
}

void prepare_ring(const MemzoneInfo& zone) {
  const auto there = Ring::attach(zone.addr, zone.length, 0);
  if (there) return;
  if (there.error().code() != ENODATA) need(Result<void>(there.error()), "look at a ring");
  need(Ring::create(zone.addr, zone.length, RingKind::mpmc, kRingCapacity), "make a ring");
}

// ---- what is out -----------------------------------------------------------------------------------------------

/// The slots: which mbuf each stands for, and the deaths of those who had one in hand.
class Slots {
 public:
  Slots(Domain& domain, Shared& shared) : domain_(domain), shared_(shared) {
    for (std::uint32_t i = kSlots; i-- > 0;) free_.push_back(i);
  }
  [[nodiscard]] std::size_t out() const { return kSlots - free_.size(); }

  /// Sends a packet. Requires: a slot is free (there are more than mbufs).
  void send(rte_mbuf* mbuf, Death& death) {
    const std::uint32_t index = free_.back();
    free_.pop_back();
    mbufs_[index] = mbuf;
    Slot& slot = shared_.slots[index];
    slot.data = need(domain_.to_region_ptr(rte_pktmbuf_mtod(mbuf, void*)), "name a packet");
    slot.length = rte_pktmbuf_data_len(mbuf);
    death.at("filled");
    push(index);
    death.at("pushed");
  }

  /// Frees the mbufs of the slots that came back. Returns how many.
  std::size_t take_back(Death& death) {
    std::size_t count = 0;
    std::array<RegionPtr, kBurst> returned;
    for (;;) {
      const auto popped = shared_.back.pop(returned);
      if (!popped) {
        if (popped.error().code() != EAGAIN) need(Result<void>(popped.error()), "pop");
        return count;
      }
      death.at("popped");
      for (std::size_t i = 0; i < *popped; ++i) release(index_of(returned[i]));
      death.at("freed");
      count += *popped;
    }
  }

  /// Finds again what readers had that have died since the last time, and sends it to others.
  void reconcile(Death& death) {
    const std::vector<std::uint32_t> dead = new_dead();
    if (dead.empty()) return;
    need(domain_.recover(), "recover the domain");
    collect_orphans();
    // All that the dead gave back is in this ring now, and nothing of it comes later.
    (void)take_back(death);
    while (!orphans_.empty())
      send_again(orphans_.extract(orphans_.begin()).value(), shared_.control->orphans);
    for (const std::uint32_t number : dead) {
      const std::uint64_t hand = shared_.control->hands[number].exchange(0);
      const auto index = static_cast<std::uint32_t>(hand >> 32) - 1;
      // Settled and not given back. Another serial: it went back or was an orphan, and has been sent again since.
      if (hand != 0 && index < kSlots && mbufs_[index] != nullptr &&
          hand == hand_of(index, shared_.slots[index].serial)) {
        send_again(index, shared_.control->dropped_hands);
      }
      shared_.control->who[number].store(kGone, std::memory_order_release);
    }
  }

 private:
  [[nodiscard]] std::uint32_t index_of(RegionPtr ptr) const {
    auto* const slot = static_cast<Slot*>(need(domain_.from_region_ptr(ptr), "resolve a slot"));
    const auto index = static_cast<std::uint32_t>(slot - shared_.slots);
    if (index >= kSlots) give_up("a ring", "holds what is no slot");
    return index;
  }

  void push(std::uint32_t index) {
    ++shared_.slots[index].serial;
    const RegionPtr ptr = need(domain_.to_region_ptr(&shared_.slots[index]), "name a slot");
    for (;;) {
      const auto pushed = shared_.way.push_wait(ptr, 10ms);
      if (pushed) return;
      if (pushed.error().code() != ETIMEDOUT) need(pushed, "push");
      collect_orphans();  // what a dead reader took may be in the way
    }
  }

  /// Frees the ring of what dead readers had taken; reconcile() sends it again.
  void collect_orphans() {
    const auto is_dead = [&](std::uint32_t number) { return shared_.is_dead(domain_, number); };
    const auto on_orphan = [&](const RingOrphan& orphan) { orphans_.insert(index_of(orphan.ptr)); };
    RingWatch watch;
    watch.is_dead = is_dead;
    watch.on_orphan = on_orphan;
    need(shared_.way.recover(watch), "recover the ring");
  }

  void release(std::uint32_t index) {
    if (mbufs_[index] == nullptr) give_up("back", "a slot came back twice");
    rte_pktmbuf_free(std::exchange(mbufs_[index], nullptr));
    free_.push_back(index);
  }

  void send_again(std::uint32_t index, std::atomic<std::uint64_t>& count) {
    if (mbufs_[index] == nullptr) give_up("way", "an orphan is no packet that is out");
    count.fetch_add(1);
    Payload payload{};
    rte_mbuf* const mbuf = mbufs_[index];
    if (read_payload(rte_pktmbuf_mtod(mbuf, unsigned char*), rte_pktmbuf_data_len(mbuf), payload) &&
        shared_.ledger->has(payload.number)) {
      release(index);  // it was read; only the way back was cut short
      return;
    }
    shared_.control->sent_again.fetch_add(1);
    push(index);
  }

  [[nodiscard]] std::vector<std::uint32_t> new_dead() const {
    std::vector<std::uint32_t> dead;
    const std::uint32_t numbers = std::min(kNumbers - 1, shared_.control->next_number.load());
    for (std::uint32_t i = 1; i <= numbers; ++i) {
      if (shared_.control->who[i].load(std::memory_order_acquire) != kGone && shared_.is_dead(domain_, i))
        dead.push_back(i);
    }
    return dead;
  }

  Domain& domain_;
  Shared& shared_;
  std::array<rte_mbuf*, kSlots> mbufs_{};
  std::vector<std::uint32_t> free_;
  std::set<std::uint32_t> orphans_;
};

/// Waits until nobody looks at packets of a source that died: the readers that live are through, and have given back.
void wait_for_readers(Domain& domain, Shared& shared) {
  const auto is_dead = [&](std::uint32_t number) { return shared.is_dead(domain, number); };
  const auto dropped = [](const RingOrphan&) {
  };  // its packet is in the ledger, or comes from the port once more
  RingWatch watch;
  watch.is_dead = is_dead;
  watch.on_orphan = dropped;
  const auto patience = std::chrono::steady_clock::now() + 20s;
  for (;;) {
    need(domain.recover(), "recover the domain");
    need(shared.way.recover(watch), "recover the ring way");
    need(shared.back.recover(watch), "recover the ring back");
    // First the ring, then the hands: a reader fills its hand before it settles, and empties it when the slot is in `back`.
    // So who is no longer seen here is seen there; and nobody fills the ring.
    bool busy = false, alive = false;
    need(shared.way.walk([&](const RingEntry&) {
      busy = true;
      return false;
    }),
         "walk the ring way");
    const std::uint32_t numbers = std::min(kNumbers - 1, shared.control->next_number.load());
    for (std::uint32_t i = 1; i <= numbers; ++i) {
      const std::uint64_t who = shared.control->who[i].load(std::memory_order_acquire);
      if (i == shared.number || who == 0 || who == kGone) continue;
      if (shared.is_dead(domain, i)) {
        shared.control->hands[i].store(0);
        shared.control->who[i].store(kGone, std::memory_order_release);
        continue;
      }
      alive = true;
      busy |= shared.control->hands[i].load(std::memory_order_acquire) != 0;
    }
    if (!alive) {
      while (shared.way.try_pop()) {
      }
    }
    if (!busy) break;
    if (std::chrono::steady_clock::now() > patience)
      give_up("readers",
              "one of them keeps a packet of a source that died; it is stopped: continue or kill it");
    std::this_thread::sleep_for(1ms);
  }
  while (shared.back.try_pop()) {
  }
}

// ---- DPDK ------------------------------------------------------------------------------------------------------

std::uint16_t start_port(rte_mempool* pool) {
  std::uint16_t port = rte_eth_find_next(0);
  if (port >= RTE_MAX_ETHPORTS) give_up("port", "there is none; give EAL a --vdev");
  rte_eth_conf configuration{};
  need_dpdk(rte_eth_dev_configure(port, 1, 1, &configuration), "configure the port");
  need_dpdk(rte_eth_rx_queue_setup(port, 0, 256, 0, nullptr, pool), "set up receiving");
  need_dpdk(rte_eth_tx_queue_setup(port, 0, 256, 0, nullptr), "set up sending");
  need_dpdk(rte_eth_dev_start(port), "start the port");
  return port;
}

/// Receives a burst and sends what was not read before. Returns how many packets came.
std::uint16_t receive(std::uint16_t port, rte_mempool* pool, Shared& shared, Slots& slots, Death& death) {
  // net_pcap drops what it finds no mbuf for, as a NIC does; so ask for no more than there are.
  if (rte_mempool_avail_count(pool) < kBurst) return 0;
  rte_mbuf* mbufs[kBurst];
  const std::uint16_t n = rte_eth_rx_burst(port, 0, mbufs, kBurst);
  death.at("received");
  shared.control->received.fetch_add(n);
  for (std::uint16_t i = 0; i < n; ++i) {
    Payload payload{};
    const bool ours =
        rte_pktmbuf_is_contiguous(mbufs[i]) &&
        read_payload(rte_pktmbuf_mtod(mbufs[i], unsigned char*), rte_pktmbuf_data_len(mbufs[i]), payload) &&
        payload.number < shared.control->packets.load(std::memory_order_relaxed);
    if (!ours || shared.ledger->has(payload.number)) {
      shared.control->discarded.fetch_add(1);
      rte_pktmbuf_free(mbufs[i]);
      continue;
    }
    slots.send(mbufs[i], death);
  }
  return n;
}

}  // namespace

int main(int argc, char** argv) {
  const int used = rte_eal_init(argc, argv);
  if (used < 0) give_up("rte_eal_init", rte_strerror(rte_errno));
  Options options = parse(argc - used, argv + used);

  // Once for C++ and once for the bridge: it is one participant.
  Domain domain = need(Domain::open(options.domain), "open the domain");
  extmem_domain_t* c_domain = nullptr;
  extmem_heap_t c_heap{};
  Heap heap = prepare_heap(domain, options);
  if (extmem_domain_open(options.domain.c_str(), nullptr, &c_domain) != 0 ||
      extmem_heap_find(c_domain, kHeap, &c_heap) != 0) {
    give_up("open the domain for the bridge", extmem_last_error_message());
  }
  const std::size_t ring_bytes = need(Ring::bytes_for(RingKind::mpmc, kRingCapacity), "size of a ring");
  const MemzoneInfo way = prepare_zone(domain, heap, "way", ring_bytes);
  const MemzoneInfo back = prepare_zone(domain, heap, "back", ring_bytes);
  Shared shared;
  shared.slots = static_cast<Slot*>(prepare_zone(domain, heap, "slots", kSlots * sizeof(Slot)).addr);
  shared.ledger =
      static_cast<Ledger*>(prepare_zone(domain, heap, "ledger", Ledger::bytes_for(options.packets)).addr);
  shared.control = static_cast<Control*>(prepare_zone(domain, heap, "control", sizeof(Control)).addr);
  prepare_ring(way);
  prepare_ring(back);
  options.death.at("created");

  std::uint64_t before = shared.control->source.load(std::memory_order_acquire);
  if (before != 0 && Shared::lives(domain, before)) give_up("source", "another one is running");
  shared.join(domain, way, back);
  const std::uint64_t packets_before = shared.control->packets.load();
  if (packets_before != 0 && packets_before != options.packets)
    give_up("packets",
            "this domain is of a run of another number of packets; give that number, or remove it");
  wait_for_readers(domain, shared);
  shared.control->packets.store(options.packets);
  // Release: readers that see this source see all of the above.
  if (!shared.control->source.compare_exchange_strong(before, Shared::self(domain),
                                                      std::memory_order_acq_rel))
    give_up("source", "another one began at the same time");
  shared.control->sources.fetch_add(1);

  extmem_dpdk_lease_t* lease = nullptr;
  need_bridge(extmem_dpdk_lend(c_domain, c_heap, 0, &lease), "lend the heap");
  rte_mempool* pool = nullptr;
  extmem_dpdk_pool_options_t wanted = EXTMEM_DPDK_POOL_OPTIONS_INIT;
  wanted.name = "packets";
  wanted.count = kSlots - 1;
  need_bridge(extmem_dpdk_pktmbuf_pool_create(c_domain, c_heap, &wanted, &pool), "make the pool");
  options.death.at("lent");
  const std::uint16_t port = start_port(pool);

  Slots slots(domain, shared);
  auto next_look = std::chrono::steady_clock::now();
  while (slots.out() != 0 || shared.ledger->count(options.packets) < options.packets) {
    const std::size_t moved =
        slots.take_back(options.death) + receive(port, pool, shared, slots, options.death);
    if (std::chrono::steady_clock::now() >= next_look) {
      slots.reconcile(options.death);
      next_look = std::chrono::steady_clock::now() + 5ms;
    }
    if (moved == 0) std::this_thread::sleep_for(100us);
  }
  shared.control->finished.store(1, std::memory_order_release);

  rte_eth_stats stats{};
  need_dpdk(rte_eth_stats_get(port, &stats), "statistics of the port");
  need_dpdk(rte_eth_dev_stop(port), "stop the port");
  std::uint32_t out = 0;
  if (extmem_dpdk_pktmbuf_pool_destroy(pool, &out) != 0)
    give_up("destroy the pool", extmem_dpdk_last_error_message());
  need_bridge(extmem_dpdk_withdraw(lease), "withdraw the heap");
  const auto count = [](const std::atomic<std::uint64_t>& n) {
    return static_cast<unsigned long long>(n.load());
  };
  const Control& c = *shared.control;
  std::printf(
      "%llu packets read, twice %llu, damaged %llu; %u sources; received %llu, without an mbuf %llu; "
      "orphans %llu, dropped hands %llu, sent again %llu, discarded %llu\n",
      static_cast<unsigned long long>(shared.ledger->count(options.packets)), count(shared.ledger->twice),
      count(shared.ledger->damaged), c.sources.load(), count(c.received),
      static_cast<unsigned long long>(stats.rx_nombuf), count(c.orphans), count(c.dropped_hands),
      count(c.sent_again), count(c.discarded));
  extmem_domain_close(c_domain);
  (void)rte_eal_cleanup();
  return stats.rx_nombuf == 0 ? 0 : 1;
}
