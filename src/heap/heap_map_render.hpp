// The two renderers of the heap map, and what they share. See heap_map.hpp for what is drawn.
//
// Thread-safety: an object belongs to one thread.
#pragma once

#include "extmem/heap_map.hpp"
#include "heap/heap_map_model.hpp"
#include "heap/heap_map_writer.hpp"

namespace extmem::heap::map {

void render_text(const Model& model, const HeapMapOptions& options, Writer& out) noexcept;
void render_svg(const Model& model, const HeapMapOptions& options, Writer& out) noexcept;

// The drawing widths: text in characters, SVG in pixels.
struct Layout {
  std::uint32_t max_bar;
  std::uint32_t min_bar;
  std::uint32_t unit;
};
[[nodiscard]] Layout text_layout(const HeapMapOptions& options) noexcept;
[[nodiscard]] Layout svg_layout(const Model& model) noexcept;

/// What a legend or a tooltip calls the memory of this kind.
void describe_kind(const Model& model, std::uint32_t kind, std::size_t most, bool ascii,
                   Label& label) noexcept;
[[nodiscard]] const char* backing_name(BackingKind kind) noexcept;
[[nodiscard]] std::uint64_t held_bytes(const std::uint64_t (&bytes)[kKinds]) noexcept;
[[nodiscard]] std::uint64_t all_bytes(const std::uint64_t (&bytes)[kKinds]) noexcept;
/// The kind in [from, to) with the most bytes; `to` when there is none.
[[nodiscard]] std::uint32_t most_of(const std::uint64_t (&bytes)[kKinds], std::uint32_t from,
                                    std::uint32_t to) noexcept;
/// "5 regions", "1 region".
void count_of(Label& label, std::uint64_t n, std::string_view noun) noexcept;
/// "3 IOVA runs", "no IOVAs known", ...
void describe_iovas(const Plot& plot, Label& label) noexcept;

}  // namespace extmem::heap::map
