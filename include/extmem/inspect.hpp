// Inspector: looks at a named domain from outside, and nobody in it notices.
//
// What it is: a reader of the domain's control file. It needs no more than permission to read that: it does not join, takes no
// lock, writes nothing, maps no region, and waits for nobody: not for a stopped process that holds a lock either.
// What it tells comes from a private copy: the names are copied by refresh(), a heap when something of it is first
// wanted after that. It keeps the figures until refresh(), or until another heap is looked at.
// The domain's processes go on meanwhile. So a copy may be of no one instant; the inspector knows, tries again for some
// milliseconds, and then answers EAGAIN, or, where it is given a `stable`, the figures as they were read, which need not
// add up, and false. verify() reports only breaches that are there: docs/decisions/0012-inspectors.md says why.
// It trusts nothing in the file: one that is damaged or cut short while it is read gives breaches or errors.
// Thread-safety: one thread at a time; any number of inspectors. Inside a heap's walk() its calls answer EDEADLK.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

#include "extmem/export.h"
#include "extmem/function_ref.hpp"
#include "extmem/result.hpp"
#include "extmem/types.hpp"

namespace extmem {

namespace heap {
class InspectorState;
}

class EXTMEM_API Inspector {
 public:
  /// Opens the control file of a domain to read it. `directory`: as in OpenOptions.
  /// Errors: EINVAL, ENAMETOOLONG the name; ENOENT; EACCES; ELOOP, EPERM what is there is no control file; EUCLEAN, EPROTO,
  /// ESTALE it is damaged, of another version or layout, of before a reboot; ENOMEM.
  static Result<Inspector> open(std::string_view name, const char* directory = nullptr) noexcept;

  Inspector() noexcept = default;
  Inspector(Inspector&& other) noexcept;
  Inspector& operator=(Inspector&& other) noexcept;
  Inspector(const Inspector&) = delete;
  Inspector& operator=(const Inspector&) = delete;
  ~Inspector();
  [[nodiscard]] explicit operator bool() const noexcept { return state_ != nullptr; }

  /// Looks again. Errors: ESTALE the domain was removed; EUCLEAN the file was cut short; EAGAIN unstable: names and regions
  /// came and went all the time (what was read last can be walked all the same).
  Result<void> refresh() noexcept;

  // ---- what there is; the visitor returns true to go on ------------------------------------------------

  Result<void> walk_heaps(FunctionRef<bool(const HeapInfo&)> visit) noexcept;
  /// `base` is null: nothing is mapped here.
  Result<void> walk_regions(FunctionRef<bool(const RegionInfo&)> visit) noexcept;
  /// One in another pid namespace counts as living.
  Result<void> walk_participants(FunctionRef<bool(const ParticipantInfo&)> visit) noexcept;
  /// `addr` is null.
  Result<void> walk_memzones(FunctionRef<bool(const MemzoneInfo&)> visit) noexcept;
  /// All runs of consecutive IOVAs of a region. Errors: ENOENT; EUCLEAN its table is damaged; EAGAIN unstable.
  Result<void> walk_iova_runs(RegionId region, FunctionRef<bool(const IovaRun&)> visit) noexcept;
  Result<void> walk_tags(FunctionRef<bool(Tag, const char*)> visit) noexcept;

  // ---- a heap, by its id. Errors of all: ENOENT; EUCLEAN; EAGAIN unstable, where `stable` is null --------

  Result<HeapStats> stats(std::uint32_t heap, bool* stable = nullptr) noexcept;
  /// As Heap::tag_stats.
  Result<std::size_t> tag_stats(std::uint32_t heap, std::span<TagStats> out, bool* stable = nullptr) noexcept;
  /// As Heap::holders.
  Result<void> holders(std::uint32_t heap, HolderReport& report, bool* stable = nullptr) noexcept;
  /// As Heap::walk; `addr` is null. Errors: also EUCLEAN the heap's pages do not tile its regions: run verify.
  Result<void> walk(std::uint32_t heap, FunctionRef<bool(const WalkEntry&)> visit,
                    const WalkOptions& options = {}, bool* stable = nullptr) noexcept;

  // ---- verification ------------------------------------------------------------------------------------

  /// Checks what Domain::verify checks. Returns the number of breaches; reports each. What could not be judged (a heap
  /// whose threads change it all the time, or in which a process died or stopped in the middle of a change) is counted in
  /// *unstable; without that it is EAGAIN, unless breaches were found.
  Result<std::size_t> verify(FunctionRef<void(const Breach&)> report = {},
                             std::size_t* unstable = nullptr) noexcept;
  /// The same for one heap. Errors: also EAGAIN unstable and no breach found.
  Result<std::size_t> verify_heap(std::uint32_t heap, FunctionRef<void(const Breach&)> report = {}) noexcept;

  /// Bytes of the control segment that are backed by memory now.
  [[nodiscard]] std::uint64_t metadata_resident_bytes() const noexcept;

 private:
  explicit Inspector(heap::InspectorState* state) noexcept : state_(state) {}
  heap::InspectorState* state_ = nullptr;
};

}  // namespace extmem
