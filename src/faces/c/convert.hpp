// Options from C, reports to C.
//
// Every struct is translated field by field through structured bindings of *all* fields of the C++ struct: a
// field that is added there and forgotten here stops the build. Enums are compared in convert.cpp.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>

#include "extmem/domain.hpp"
#include "extmem/extmem_process.h"
#include "extmem/extmem_types.h"
#include "extmem/heap_map.hpp"
#include "faces/c/error.hpp"

namespace extmem::faces::c {

// ---- options -----------------------------------------------------------------------------------------------

/// The struct_size of the interface's first version: no caller can have a smaller one.
template <typename T>
inline constexpr std::size_t kFirstSize = 0;
template <>
inline constexpr std::size_t kFirstSize<extmem_domain_options_t> = 48;
template <>
inline constexpr std::size_t kFirstSize<extmem_alloc_options_t> = 72;
template <>
inline constexpr std::size_t kFirstSize<extmem_region_spec_t> = 64;
template <>
inline constexpr std::size_t kFirstSize<extmem_backing_spec_t> = 72;
template <>
inline constexpr std::size_t kFirstSize<extmem_heap_options_t> = 40;
template <>
inline constexpr std::size_t kFirstSize<extmem_walk_options_t> = 16;
template <>
inline constexpr std::size_t kFirstSize<extmem_map_options_t> = 48;
template <>
inline constexpr std::size_t kFirstSize<extmem_open_options_t> = 40;

/// Copies the caller's options over the defaults that `to` holds, as struct_size says. NULL keeps the defaults.
template <typename T>
int load(const T* from, T& to) noexcept {
  static_assert(kFirstSize<T> != 0 && sizeof(T) >= kFirstSize<T> && std::is_trivially_copyable_v<T>);
  if (from == nullptr) return 0;
  const std::size_t size = from->struct_size;
  EXTMEM_C_REQUIRE(size >= kFirstSize<T>,
                   "struct_size is too small; initialise the options with the struct's ..._INIT macro");
  const auto* bytes = reinterpret_cast<const unsigned char*>(from);
  for (std::size_t i = sizeof(T); i < size; ++i) {
    if (bytes[i] != 0) {
      return fail(E2BIG,
                  "the options ask for what this version of the library does not know; use a newer one");
    }
  }
  std::memcpy(&to, from, std::min(size, sizeof(T)));
  return 0;
}

/// Each returns 0, or a failure already kept by fail().
int convert(const extmem_domain_options_t* from, DomainOptions& to) noexcept;
int convert(const extmem_open_options_t* from, OpenOptions& to) noexcept;
int convert(const extmem_alloc_options_t* from, AllocOptions& to) noexcept;
int convert(const extmem_region_spec_t& from, RegionSpec& to) noexcept;
int convert(const extmem_walk_options_t* from, WalkOptions& to) noexcept;
int convert(const extmem_map_options_t* from, HeapMapOptions& to) noexcept;

/// The progress function of a backing, alive as long as the call that was given the converted spec.
struct Progress {
  extmem_progress_fn call = nullptr;
  void* arg = nullptr;
  bool operator()(std::uint64_t done, std::uint64_t total) const { return call(done, total, arg); }
};
int convert(const extmem_backing_spec_t& from, Progress& progress, BackingSpec& to) noexcept;
int convert(const extmem_heap_options_t* from, HeapOptions& to) noexcept;

/// The caller's IOVA table as the core reads it.
std::span<const Iova> as_iovas(const extmem_iova_t* iovas, std::size_t count) noexcept;

// ---- reports -----------------------------------------------------------------------------------------------

extmem_region_info_t to_c(const RegionInfo& info) noexcept;
extmem_region_file_t to_c(const RegionFile& file) noexcept;
extmem_holder_report_t to_c(const HolderReport& report) noexcept;
extmem_heap_stats_t to_c(const HeapStats& stats) noexcept;
extmem_tag_stats_t to_c(const TagStats& stats) noexcept;
extmem_memzone_info_t to_c(const MemzoneInfo& info) noexcept;
extmem_heap_info_t to_c(const HeapInfo& info) noexcept;
extmem_object_info_t to_c(const ObjectInfo& info) noexcept;
extmem_region_event_t to_c(const RegionEvent& event) noexcept;
extmem_walk_entry_t to_c(const WalkEntry& entry) noexcept;
extmem_breach_t to_c(const Breach& breach) noexcept;
extmem_iova_run_t to_c(const IovaRun& run) noexcept;
extmem_domain_info_t to_c(const DomainInfo& info) noexcept;
extmem_participant_info_t to_c(const ParticipantInfo& info) noexcept;
extmem_recovery_report_t to_c(const RecoveryReport& report) noexcept;

/// Whether a report of `size` bytes can be written at `out` at all. Called before anything is done.
template <typename T>
int require_report(const T* out, std::size_t size) noexcept {
  EXTMEM_C_REQUIRE(out != nullptr, "the report is NULL; pass where it is to be written");
  EXTMEM_C_REQUIRE(size >= sizeof(out->struct_size),
                   "the report's size is too small; pass sizeof of the report");
  return 0;
}
/// The same for a report that need not be wanted: NULL is fine.
template <typename T>
int require_optional_report(const T* out, std::size_t size) noexcept {
  return out == nullptr ? 0 : require_report(out, size);
}

/// Writes `value` to the caller's report of `size` bytes, zeroing what this version does not know.
template <typename T>
void store(const T& value, T* out, std::size_t size) noexcept {
  static_assert(std::is_trivially_copyable_v<T>);
  const std::size_t known = std::min(size, sizeof(T));
  auto* bytes = reinterpret_cast<unsigned char*>(out);
  std::memcpy(bytes, &value, known);
  std::memset(bytes + known, 0, size - known);
  std::memcpy(bytes, &known, sizeof(known));  // struct_size comes first in every report
}

/// The caller's array of C structs as one of the core's structs of the same size, for the core to write to. Then
/// convert_in_place turns what was written into the C form.
template <typename CppType, typename CType>
std::span<CppType> for_core(CType* out, std::size_t capacity) noexcept {
  static_assert(sizeof(CppType) == sizeof(CType) && alignof(CppType) == alignof(CType));
  static_assert(std::is_trivially_copyable_v<CppType> && std::is_trivially_copyable_v<CType>);
  return {reinterpret_cast<CppType*>(out), capacity};
}
template <typename CType, typename CppType>
void convert_in_place(std::span<CppType> written) noexcept {
  for (CppType& place : written) {
    const CppType value = place;
    ::new (static_cast<void*>(&place)) CType(to_c(value));
  }
}

}  // namespace extmem::faces::c
