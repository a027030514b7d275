// Reads packets where DPDK has received them, without DPDK: this program links libextmem only.
//
//   packet_reader DOMAIN [--work MICROSECONDS] [--die STEP COUNT]
//
// May be killed and started again at any time, and run several times at once. Ends when the source says that all is read;
// with 2 where no source comes for 20 seconds. Steps: taken, hand, read, entered, settled, returned.
#include <thread>

#include "packets.hpp"

using namespace packets;

namespace {

struct Options {
  std::string domain;
  std::chrono::microseconds work{0};
  Death death;
};

Options parse(int argc, char** argv) {
  Options options;
  if (argc < 2) give_up("usage", "packet_reader DOMAIN [--work MICROSECONDS] [--die STEP COUNT]");
  options.domain = argv[1];
  for (int i = 2; i < argc; ++i) {
    if (std::strcmp(argv[i], "--work") == 0 && i + 1 < argc) {
      options.work = std::chrono::microseconds(std::strtoul(argv[++i], nullptr, 10));
    } else if (std::strcmp(argv[i], "--die") == 0 && i + 2 < argc) {
      options.death.step = argv[++i];
      options.death.count = std::strtoull(argv[++i], nullptr, 10);
    } else {
      give_up("no such option", argv[i]);
    }
  }
  return options;
}

/// As if there were more to do with a packet.
void spend(std::chrono::microseconds time) {
  const auto until = std::chrono::steady_clock::now() + time;
  while (time.count() != 0 && std::chrono::steady_clock::now() < until) {
  }
}

/// Tries until it succeeds: the source may not have got that far.
template <typename Try>
auto wait_for(Try&& attempt, const char* what) {
  const auto patience = std::chrono::steady_clock::now() + 20s;
  for (;;) {
    auto result = attempt();
    if (result || std::chrono::steady_clock::now() > patience) return need(std::move(result), what);
    std::this_thread::sleep_for(2ms);
  }
}

/// Looks at one packet, where it lies. The memory is the source's and may hold anything: nothing in it is trusted.
void read(const Domain& domain, Shared& shared, const Slot& slot, Death& death) {
  const auto found = domain.from_region_ptr(slot.data);
  Payload payload{};
  const auto* const packet = found ? static_cast<const unsigned char*>(*found) : nullptr;
  const bool whole = packet != nullptr && read_payload(packet, slot.length, payload) &&
                     sum_of(packet + kEthernet + sizeof payload, payload.length) == payload.sum &&
                     payload.number < shared.control->packets.load(std::memory_order_relaxed);
  death.at("read");
  if (!whole) {
    shared.ledger->damaged.fetch_add(1);
    return;
  }
  if (!shared.ledger->enter(payload.number)) shared.ledger->twice.fetch_add(1);
  death.at("entered");
}

/// The source is dead: recovers what it left, once for each source, and waits for the next. False: none came.
bool wait_for_source(Domain& domain, const Shared& shared, std::uint64_t dead) {
  need(domain.recover(), "recover the domain");
  shared.control->drained.fetch_add(1);
  const auto patience = std::chrono::steady_clock::now() + 20s;
  while (shared.control->source.load(std::memory_order_acquire) == dead) {
    // The next source takes what dead readers had in this ring, and waits for living ones: they are through here.
    if (std::chrono::steady_clock::now() > patience) return false;
    std::this_thread::sleep_for(1ms);
    if (shared.way.size_hint() != 0) return true;
  }
  return true;
}

}  // namespace

int main(int argc, char** argv) {
  Options options = parse(argc, argv);
  OpenOptions open;
  open.mode = OpenMode::open_only;
  Domain domain = wait_for([&] { return Domain::open(options.domain, open); }, "open the domain");
  const auto zone = [&](const char* name) {
    return need_mapped(wait_for([&] { return domain.find_memzone(name); }, "find a memzone"));
  };
  Shared shared;
  shared.control = static_cast<Control*>(zone("control").addr);
  wait_for(
      [&]() -> Result<bool> {
        static constexpr ErrorInfo kNotYet{EAGAIN, "no source has begun"};
        if (shared.control->source.load(std::memory_order_acquire) == 0) return Error(&kNotYet);
        return true;
      },
      "wait for a source");
  shared.ledger = static_cast<Ledger*>(zone("ledger").addr);
  shared.slots = static_cast<Slot*>(zone("slots").addr);
  shared.join(domain, zone("way"), zone("back"));
  std::atomic<std::uint64_t>& hand = shared.control->hands[shared.number];

  std::uint64_t drained_for = 0;
  for (;;) {
    const auto taken = shared.way.take_wait(20ms);
    if (!taken) {
      if (taken.error().code() != ETIMEDOUT) need(Result<void>(taken.error()), "take");
      if (shared.control->finished.load(std::memory_order_acquire) != 0) return 0;
      const std::uint64_t source = shared.control->source.load(std::memory_order_acquire);
      if (source == drained_for || Shared::lives(domain, source)) continue;
      if (!wait_for_source(domain, shared, source)) return 2;
      continue;
    }
    options.death.at("taken");
    auto* const slot = static_cast<Slot*>(need(domain.from_region_ptr(taken->ptr), "resolve a slot"));
    const auto index = static_cast<std::uint32_t>(slot - shared.slots);
    if (index >= kSlots) give_up("a ring", "holds what is no slot");
    // Release: the source that sees the hand of a dead reader sees what was done before.
    hand.store(hand_of(index, slot->serial), std::memory_order_release);
    options.death.at("hand");
    spend(options.work / 2);
    read(domain, shared, *slot, options.death);
    spend(options.work / 2);
    need(shared.way.settle(*taken), "settle");
    options.death.at("settled");
    need(shared.back.push_wait(taken->ptr, 20s), "give a slot back");
    options.death.at("returned");
    hand.store(0, std::memory_order_release);
  }
}
