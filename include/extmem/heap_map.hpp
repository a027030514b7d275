// The heap map: a picture of where a domain's memory is and who holds it.
//
// What it is: regions as bars drawn to scale, own or external, with their free runs, slabs, held spans and memzones
// in the colours of the tags that hold them, and below each bar the region's runs of IOVAs. As text for a terminal,
// or as one self-contained SVG. Built on nothing but the walks and statistics that every program can call.
// Thread-safety: any thread at any time, except from inside a walk's callback. Each heap is locked while it is
// walked; the sink is called with no lock held, so it may allocate from the very heaps that are drawn.
// Invariants:
//  1. The output is bounded (kHeapMapMaxBytes), whatever the length of the regions and the number of spans in
//     them: each bar is a fixed number of columns, and a column shows the shares of what lies in it.
//  2. Nothing of the managed memory is read, and no malloc is called: one scratch mapping serves each call.
//  3. Names are escaped: no name can end an XML element or reach a terminal as a control sequence.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "extmem/domain.hpp"
#include "extmem/export.h"
#include "extmem/function_ref.hpp"
#include "extmem/heap.hpp"
#include "extmem/inspect.hpp"
#include "extmem/result.hpp"

namespace extmem {

enum class HeapMapFormat : std::uint8_t {
  text,  ///< UTF-8 lines for a terminal
  svg,   ///< one self-contained SVG 1.1 document
};

struct HeapMapOptions {
  HeapMapFormat format = HeapMapFormat::text;
  Heap heap{};                ///< draw only this heap; empty: every heap that holds a region
  std::uint32_t width = 100;  ///< text: columns of the terminal; taken as 40 or 250 when outside of these
  bool colors = false;        ///< text: ANSI colours (256-colour codes)
  bool ascii = false;         ///< text: nothing but ASCII
  bool objects = true;  ///< look at every object, so that slabs show which tags hold them; without, the walk
                        ///< is shorter (the heap is locked meanwhile) and slabs show how full they are
  std::string_view title{};  ///< heading; empty: "extmem heap map"
};

/// Regions drawn at most; of more, the largest ones are drawn and the rest is summed up in a line.
inline constexpr std::size_t kHeapMapMaxRegions = 48;
/// Bytes written at most, in any format.
inline constexpr std::size_t kHeapMapMaxBytes = std::size_t{2} << 20;

/// Draws the map and gives it to `sink` in chunks, in order; the sink returns false to stop.
/// Errors: EINVAL an empty domain handle; ENOENT, ESTALE options.heap is not (or no longer) of this domain;
/// ENOMEM the scratch mapping; ECANCELED the sink stopped.
EXTMEM_API Result<void> write_heap_map(const Domain& domain, FunctionRef<bool(std::string_view chunk)> sink,
                                       const HeapMapOptions& options = {}) noexcept;

/// The same of a domain that is looked at from outside, as it is then: refresh() is the caller's. A heap that is changed
/// all the time is drawn as it was read. `heap`: only the one of that name; empty: every heap that holds a region.
/// HeapMapOptions::heap is not looked at. Errors: also ENOENT no such heap; those of Inspector.
EXTMEM_API Result<void> write_heap_map(Inspector& inspector, FunctionRef<bool(std::string_view chunk)> sink,
                                       const HeapMapOptions& options = {},
                                       std::string_view heap = {}) noexcept;

}  // namespace extmem
