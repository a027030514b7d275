// Rings whose memory holds what no ring writes: every call returns, in bounds, with an error or a wrong element.
#include <array>
#include <cerrno>
#include <chrono>
#include <random>

#include "shared/ring_format.hpp"
#include "unit/shared/ring_world.hpp"

namespace extmem::shared::test {
namespace {

class RingHostile : public ::testing::TestWithParam<RingKind> {
 protected:
  static RingKind kind() { return GetParam(); }
  RingHeader& header() { return *reinterpret_cast<RingHeader*>(world_.base()); }
  Result<Ring> attach() { return Ring::attach(world_.base(), world_.bytes(), 1); }

  RingWorld world_{kind(), 8};
};
INSTANTIATE_TEST_SUITE_P(Kind, RingHostile, ::testing::Values(RingKind::spsc, RingKind::mpmc),
                         [](const auto& test) { return kind_name(test.param); });

/// The header's check, as create() computes it.
std::uint64_t check_for(RingKind kind, std::size_t capacity) {
  const RingWorld world(kind, capacity);
  return reinterpret_cast<const RingHeader*>(world.base())->check;
}

TEST_P(RingHostile, SaysWhatIsWrongWithAHeader) {
  ASSERT_TRUE(attach());
  header().magic.store(0);
  EXPECT_FAILS(attach(), ENODATA);
  header().magic.store(kRingMagic + 1);
  EXPECT_FAILS(attach(), ENODATA);
  header().magic.store(kRingMagic);
  header().version = 2;
  EXPECT_FAILS(attach(), EPROTO);
  header().version = kRingVersion;
  for (const std::uint32_t bad : {0u, 3u, kind() == RingKind::mpmc ? 1u : 2u}) {
    header().kind = bad;
    EXPECT_FAILS(attach(), EBADMSG);
  }
  header().kind = static_cast<std::uint32_t>(kind());
  for (const std::uint64_t bad : {std::uint64_t{0}, std::uint64_t{7}, std::uint64_t{16}, ~std::uint64_t{0}}) {
    header().capacity = bad;
    EXPECT_FAILS(attach(), EBADMSG);
  }
  header().capacity = 8;
  header().bytes -= 8;
  EXPECT_FAILS(attach(), EBADMSG);
  header().bytes += 8;
  header().check ^= 1;
  EXPECT_FAILS(attach(), EBADMSG);
  header().check ^= 1;
  ASSERT_TRUE(attach());
  // A header that fits itself, but not the memory.
  header().capacity = 1024;
  header().bytes = *Ring::bytes_for(kind(), 1024);
  header().check = check_for(kind(), 1024);
  EXPECT_FAILS(attach(), EMSGSIZE);
}

TEST_P(RingHostile, AttachesToNoFlippedBitOfTheHeader) {
  for (std::size_t bit = 0; bit < 40 * 8; ++bit) {
    const std::byte mask{static_cast<unsigned char>(1u << (bit % 8))};
    world_.base()[bit / 8] ^= mask;
    EXPECT_FALSE(attach()) << "bit " << bit;
    world_.base()[bit / 8] ^= mask;
  }
  EXPECT_TRUE(attach());
}

/// Everything a participant can call; the calls have to return and stay inside.
void try_everything(const Ring& ring, std::mt19937_64& random) {
  std::array<RegionPtr, 20> some{};
  some.fill(element(1));
  for (int i = 0; i < 20; ++i) {
    switch (random() % 8) {
      case 0:
        (void)ring.try_push(element(2));
        break;
      case 1:
        (void)ring.try_pop();
        break;
      case 2:
        (void)ring.push(some);
        break;
      case 3: {
        std::array<RegionPtr, 20> out{};
        const auto popped = ring.pop(out);
        EXPECT_LE(popped.value_or(0), out.size());
        break;
      }
      case 4:
        if (const auto taken = ring.take()) (void)ring.settle(*taken);
        (void)ring.settle({.ptr = {}, .ticket = random()});
        break;
      case 5: {
        std::size_t orphans = 0;
        (void)ring.recover({.is_dead = [](std::uint32_t participant) { return participant % 2 == 0; },
                            .on_orphan = [&](const RingOrphan&) { ++orphans; }});
        EXPECT_LE(orphans, 8u);
        break;
      }
      case 6: {
        std::size_t entries = 0;
        (void)ring.walk([&](const RingEntry&) { return ++entries < 100; });
        EXPECT_LE(entries, 16u);
        EXPECT_LE(ring.size_hint(), 8u);
        break;
      }
      default:
        (void)ring.check();
        (void)ring.detach();
        (void)ring.push_wait(element(3), std::chrono::nanoseconds(1));
        (void)ring.pop_wait(std::chrono::nanoseconds(1));
    }
  }
}

TEST_P(RingHostile, ReturnsWhateverTheMemoryHolds) {
  std::mt19937_64 random(5);
  const Ring ring = *attach();
  for (int round = 0; round < 3000; ++round) {
    ASSERT_TRUE(Ring::create(world_.base(), world_.bytes(), kind(), 8));
    auto* const words = reinterpret_cast<std::uint64_t*>(world_.base());
    const std::size_t count = world_.bytes() / 8;
    const std::array<std::uint64_t, 8> nasty{
        0, 1, ~0ul, 1ul << 63, 1ul << 48, (1ul << 16) | 1, (1ul << 16) | 2, 3};
    const std::size_t changes = round % 4 == 0 ? count : 1 + random() % 6;
    for (std::size_t i = 0; i < changes; ++i) {
      const std::size_t at = 8 + random() % (count - 8);  // not the header, the handle has it already
      words[at] = random() % 2 == 0 ? nasty[random() % nasty.size()] : random() >> (random() % 64);
    }
    try_everything(ring, random);
  }
}

TEST_P(RingHostile, NamesDamage) {
  const Ring ring = *attach();
  for (std::uint64_t i = 1; i <= 4; ++i) ASSERT_TRUE(ring.try_push(element(i)));
  header().tail.store(100);
  EXPECT_FAILS(ring.try_push(element(5)), EBADMSG);
  EXPECT_FAILS(ring.check(), EBADMSG);
  header().tail.store(4);
  ASSERT_TRUE(ring.check());
  header().head.store(50);
  if (kind() == RingKind::mpmc) {
    EXPECT_FAILS(ring.try_pop(), EBADMSG);
  } else {
    header().claimed.store(50);
    EXPECT_FAILS(ring.try_pop(), EBADMSG);
  }
  EXPECT_FAILS(ring.check(), EBADMSG);
}

}  // namespace
}  // namespace extmem::shared::test
