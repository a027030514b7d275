// Workloads that need more than malloc: regions, IOVAs, IOVA-contiguous memory, memzones.
//
// What it is: samplers for allocators with HasRegions, HasIova, HasZones; each measures its steps
// separately.
// Thread-safety: main thread only.
#pragma once

#include "harness.hpp"

namespace bench {

inline constexpr std::size_t kZoneBytes = 4096;
inline constexpr std::size_t kZoneName = 16;

/// Adds a region of `size` bytes with 4 KiB pages, resident, with a table of scattered IOVAs; removes it
/// again.
template <class A>
void serve_region_add_remove(const Options& options, const std::vector<int>& cpus) {
  Crew<A> crew(1, cpus);
  void* base = map_memory(options.size, true);
  const auto iovas = make_iovas(options.size / kPage, IovaShape::scattered);
  Slices<2>* slices = nullptr;
  const auto pass = [&] {
    const Watch watch;
    const std::uint64_t t0 = now_ns();
    if (!A::region_add(base, options.size, iovas)) fail("region_add");
    const std::uint64_t t1 = now_ns();
    if (!A::region_remove(base, options.size)) fail("region_remove");
    const std::uint64_t t2 = now_ns();
    if (slices == nullptr) return;
    slices->add(watch.undisturbed(), static_cast<double>(t2 - t0), 1,
                {static_cast<double>(t1 - t0), static_cast<double>(t2 - t1)});
  };
  pass();
  serve([&] {
    Slices<2> sums(options.sample_ns);
    slices = &sums;
    while (!sums.enough()) pass();
    return Sample{{{"region_add", sums.mean(0)},
                   {"region_remove", sums.mean(1)},
                   {"region_add_remove", sums.mean(0) + sums.mean(1)}},
                  sums.quality()};
  });
}

/// What an empty region of `size` bytes costs in metadata; its memory is reserved but cannot be touched.
template <class A>
void serve_empty_region(const Options& options, const std::vector<int>& cpus) {
  Crew<A> crew(1, cpus);
  void* base = map_memory(options.size, false, PROT_NONE);
  serve([&] {
    const std::size_t before = A::metadata_bytes();
    if (!A::region_add(base, options.size, {})) fail("region_add");
    const auto bytes = static_cast<double>(A::metadata_bytes() - before);
    if (!A::region_remove(base, options.size)) fail("region_remove");
    return Sample{{{"metadata_bytes", bytes}}};
  });
}

/// What a lookup loop asks for. `nothing` costs what the loop itself costs.
enum class Lookup { nothing, region, iova };

/// Looks up random addresses. With Chain each address depends on the answer before, so that the loop
/// shows the latency of a lookup; without, the CPU overlaps them as it does for a batch of buffers.
template <class A, Lookup kWhat, bool kChain>
class Lookups {
 public:
  Lookups(const void* base, std::size_t bytes) : base_(static_cast<const char*>(base)), bytes_(bytes) {}
  std::uint64_t run(std::uint64_t n) {
    std::uint64_t answer = 0;
    std::uint64_t sum = 0;
    for (std::uint64_t i = 0; i < n; ++i) {
      const std::uint64_t draw = kChain ? (rng_.next() ^ answer) & 0xffffffffu : rng_.next();
      const char* p = base_ + ((draw * bytes_) >> 32);
      if constexpr (kWhat == Lookup::region) {
        answer = A::region_lookup(p);
      } else if constexpr (kWhat == Lookup::iova) {
        answer = A::iova_lookup(p);
      } else {
        answer = reinterpret_cast<std::uintptr_t>(p);
      }
      sum += answer;
    }
    escape(reinterpret_cast<void*>(sum));
    return n;
  }

 private:
  const char* base_;
  std::uint64_t bytes_;
  Rng rng_{3};
};

/// Times the three loops back to back, so that their differences are those of one moment.
template <class A, bool kChain>
void lookup_sample(void* base, std::size_t bytes, std::uint64_t target_ns, Sample& sample) {
  const auto time = [&]<Lookup kWhat>() {
    Lookups<A, kWhat, kChain> lookups(base, bytes);
    std::uint64_t chunk = 0;
    timed(lookups, target_ns / 10, &chunk);
    Slices slices(target_ns / 3);
    while (!slices.enough()) {
      const Timing t = timed(lookups, kSliceNs / 2, &chunk);
      slices.add(t.undisturbed, t.ns, t.ops, {t.ns});
    }
    sample.quality = std::min(sample.quality, slices.quality());
    return slices.mean();
  };
  const double nothing = time.template operator()<Lookup::nothing>();
  const double region = time.template operator()<Lookup::region>() - nothing;
  const double iova = time.template operator()<Lookup::iova>() - nothing;
  sample.results.push_back({kChain ? "region_lookup_chain" : "region_lookup", region});
  sample.results.push_back({kChain ? "iova_lookup_chain" : "iova_lookup", iova});
  sample.results.push_back({kChain ? "iova_beyond_region_chain" : "iova_beyond_region", iova - region});
}

template <class A>
void serve_iova_lookup(const Options& options, const std::vector<int>& cpus, void* base, std::size_t bytes) {
  Crew<A> crew(1, cpus);
  serve([&] {
    Sample sample;
    lookup_sample<A, false>(base, bytes, options.sample_ns, sample);
    lookup_sample<A, true>(base, bytes, options.sample_ns, sample);
    return sample;
  });
}

/// Reserves `count` memzones of 4 KiB, looks them up by name in random order, frees them in random order.
template <class A>
void serve_memzones(const Options& options, const std::vector<int>& cpus) {
  if (options.count > A::max_zones()) skip("more memzones than it can have");
  Crew<A> crew(1, cpus);
  const std::size_t n = options.count;
  const auto names = map_array<char[kZoneName]>(n);
  const auto order = map_array<std::uint32_t>(n);
  const auto found = map_array<const void*>(n);
  for (std::size_t i = 0; i < n; ++i) {
    std::snprintf(names[i], kZoneName, "zone_%07u", static_cast<unsigned>(i));
    order[i] = static_cast<std::uint32_t>(i);
  }
  Rng rng(11);
  for (std::size_t i = n - 1; i > 0; --i) std::swap(order[i], order[rng.below(i + 1)]);
  Slices<3>* slices = nullptr;
  const auto pass = [&] {
    const Watch watch;
    const std::uint64_t t0 = now_ns();
    for (std::size_t i = 0; i < n; ++i) {
      if (!A::zone_reserve(names[i], kZoneBytes)) fail("zone_reserve");
    }
    const std::uint64_t t1 = now_ns();
    for (const std::uint32_t i : order) {
      found[i] = A::zone_lookup(names[i]);
      if (found[i] == nullptr) fail("zone_lookup");
    }
    const std::uint64_t t2 = now_ns();
    for (const std::uint32_t i : order) {
      if (!A::zone_free(names[i], found[i])) fail("zone_free");
    }
    const std::uint64_t t3 = now_ns();
    if (slices == nullptr) return;
    slices->add(watch.undisturbed(), static_cast<double>(t3 - t0), static_cast<double>(n),
                {static_cast<double>(t1 - t0), static_cast<double>(t2 - t1), static_cast<double>(t3 - t2)});
  };
  pass();
  serve([&] {
    Slices<3> sums(options.sample_ns);
    slices = &sums;
    while (!sums.enough()) pass();
    return Sample{
        {{"memzone_reserve", sums.mean(0)}, {"memzone_lookup", sums.mean(1)}, {"memzone_free", sums.mean(2)}},
        sums.quality()};
  });
}

}  // namespace bench
