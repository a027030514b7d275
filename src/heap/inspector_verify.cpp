// Verifying a domain from outside: part by part, each of an instant of its own, and no breach told that may be none.
#include <algorithm>

#include "base/error.hpp"
#include "heap/inspector.hpp"
#include "os/thread.hpp"

namespace extmem::heap {

namespace {
constexpr int kRounds = 8;
constexpr std::uint64_t kNapNs = 500'000;
}  // namespace

/// All that `checks` asks for, on the copy as it is. It may be done again on the same copy.
std::size_t InspectorState::check(Part part, std::uint32_t heap, alloc::Core::Checks checks, bool names,
                                  FunctionRef<void(const Breach&)> report) noexcept {
  DomainState& view = *view_;
  switch (part) {
    case Part::heap: {
      const bool settles = checks.derived;
      if (settles) view.core_.settle_tags_paused(heap);
      const std::size_t breaches = view.verify_heap_paused(heap, report, checks, [names] { return names; });
      return names ? breaches + view.verify_zones_locked(heap, report) : breaches;
    }
    case Part::names:
      return view.verify_names_locked(report);
    case Part::regions:
      return view.verify_regions_locked(report);
    case Part::small:
    case Part::large:
      return view.verify_space_locked(part == Part::large, report);
    case Part::none:
      break;
  }
  return 0;
}

Result<InspectorState::Verdict> InspectorState::judge(Part part, std::uint32_t heap,
                                                      FunctionRef<void(const Breach&)> report) noexcept {
  using Checks = alloc::Core::Checks;
  Verdict verdict;
  for (int round = 0; round < kRounds; ++round) {
    EXTMEM_TRY(instant, take_patiently(part, heap));
    if (part == Part::heap && view_->heaps_[heap].used == 0) {
      verdict.settled = instant.names;  // it was destroyed meanwhile
      if (verdict.settled) return verdict;
      continue;
    }
    if (!instant.locked) continue;
    const bool names = instant.names;
    if (!instant.whole) {
      // Somebody is, or died, in the midst of a change of what is his own. Journaled things are whole all the same.
      if (round + 1 < kRounds && !instant.stopped) continue;
      verdict.breaches = check(part, heap, Checks{false, false}, names, report);
      return verdict;
    }
    if (check(part, heap, Checks{}, names, {}) == 0) {
      verdict.settled = part != Part::heap || names || view_->heaps_[heap].memzones == 0;
      if (verdict.settled || round + 1 == kRounds) return verdict;
      continue;
    }
    // Pops and pushes of magazines may have gone on. What is wrong without these is wrong.
    const Checks sure{true, false};
    if (check(part, heap, sure, names, {}) != 0) {
      verdict.breaches = check(part, heap, sure, names, report);
      verdict.settled = true;
      return verdict;
    }
    // The rest only if nobody pushed or popped: the kernel knows.
    EXTMEM_TRY(watched, take(part, heap, true));
    if (watched.whole && watched.still) {
      const std::size_t found = check(part, heap, Checks{}, watched.names, {});
      if (found != 0) verdict.breaches = check(part, heap, Checks{}, watched.names, report);
      verdict.settled = true;
      return verdict;
    }
    os::sleep_ns(kNapNs);
  }
  return verdict;
}

Result<std::size_t> InspectorState::verify_heap(std::uint32_t heap,
                                                FunctionRef<void(const Breach&)> report) noexcept {
  if (walking_) return EXTMEM_ERROR(EDEADLK, "the inspector is inside a walk over a heap: verify after it");
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  if (heap >= view_->heaps_.high() || view_->heaps_[heap].used == 0)
    return EXTMEM_ERROR(ENOENT, "no heap has this id");
  EXTMEM_TRY(verdict, judge(Part::heap, heap, report));
  if (verdict.breaches != 0 || verdict.settled) return verdict.breaches;
  return EXTMEM_ERROR(
      EAGAIN,
      "unstable: the heap is changed all the time, or a process stopped or died in the middle "
      "of a change to it: no breach was found in what could be judged");
}

Result<std::size_t> InspectorState::verify(FunctionRef<void(const Breach&)> report,
                                           std::size_t* unstable) noexcept {
  if (unstable != nullptr) *unstable = 0;
  if (walking_) return EXTMEM_ERROR(EDEADLK, "the inspector is inside a walk over a heap: verify after it");
  have_names_ = false;
  if (auto names = want_names(); !names && names.error().code() != EAGAIN) return names.error();
  std::size_t breaches = 0;
  std::size_t unsettled = 0;
  const auto add = [&](Result<Verdict> verdict) -> Result<void> {
    if (!verdict) return verdict.error();
    breaches += verdict->breaches;
    if (!verdict->settled) ++unsettled;
    return {};
  };
  for (std::uint32_t id = 0; id < view_->heaps_.high(); ++id) {
    if (view_->heaps_[id].used != 0) EXTMEM_TRY_VOID(add(judge(Part::heap, id, report)));
  }
  for (const Part part : {Part::names, Part::regions, Part::small, Part::large})
    EXTMEM_TRY_VOID(add(judge(part, 0, report)));
  if (unstable != nullptr) {
    *unstable = unsettled;
  } else if (unsettled != 0 && breaches == 0) {
    return EXTMEM_ERROR(
        EAGAIN,
        "unstable: a part of the domain is changed all the time, or a process stopped or died in "
        "the middle of a change: no breach was found in what could be judged");
  }
  return breaches;
}

}  // namespace extmem::heap
