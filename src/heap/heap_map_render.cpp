#include "heap/heap_map_render.hpp"

namespace extmem::heap::map {

void describe_kind(const Model& model, std::uint32_t kind, std::size_t most, bool ascii,
                   Label& label) noexcept {
  if (kind < kTagColors) {
    label.name(model.ranked[kind].name, most, ascii);
    return;
  }
  switch (kind) {
    case kOtherTags:
      if (!model.objects) {
        label.text("objects in slabs, other tags");
      } else if (model.tags_seen > model.ranked_count) {
        count_of(label, model.tags_seen - model.ranked_count, "other tag");
      } else {
        label.text("other tags");
      }
      return;
    case kUntagged:
      label.text("untagged");
      return;
    case kMemzone:
      label.text("memzones");
      return;
    case kCached:
      label.text("cached by threads");
      return;
    case kSlabFree:
      label.text("free in slabs");
      return;
    default:
      label.text("free");
  }
}

const char* backing_name(BackingKind kind) noexcept {
  switch (kind) {
    case BackingKind::external:
      return "external";
    case BackingKind::anonymous:
      return "anonymous";
    case BackingKind::hugetlb:
      return "hugetlb";
    case BackingKind::memfd:
      return "memfd";
    case BackingKind::memfd_hugetlb:
      return "memfd hugetlb";
    case BackingKind::shm:
      return "shm";
    case BackingKind::file:
      return "file";
    case BackingKind::dax:
      return "dax";
  }
  return "?";
}

std::uint64_t held_bytes(const std::uint64_t (&bytes)[kKinds]) noexcept {
  std::uint64_t sum = 0;
  for (std::uint32_t kind = 0; kind < kUsedKinds; ++kind) sum += bytes[kind];
  return sum;
}

std::uint64_t all_bytes(const std::uint64_t (&bytes)[kKinds]) noexcept {
  return held_bytes(bytes) + bytes[kCached] + bytes[kSlabFree] + bytes[kFree];
}

std::uint32_t most_of(const std::uint64_t (&bytes)[kKinds], std::uint32_t from, std::uint32_t to) noexcept {
  std::uint32_t most = to;
  for (std::uint32_t kind = from; kind < to; ++kind) {
    if (bytes[kind] > 0 && (most == to || bytes[kind] > bytes[most])) most = kind;
  }
  return most;
}

void count_of(Label& label, std::uint64_t n, std::string_view noun) noexcept {
  label.number(n).text(" ").text(noun).text(n == 1 ? "" : "s");
}

void describe_iovas(const Plot& plot, Label& label) noexcept {
  if (plot.iova_runs == 0) {
    label.text("no IOVA known");
    return;
  }
  count_of(label, plot.iova_runs, "IOVA run");
  label.text(plot.iova_runs == 1 ? " at " : " from ").hex(static_cast<std::uint64_t>(plot.runs[0].iova));
  if (plot.iova_known < plot.info.length)
    label.text(", ").bytes(plot.info.length - plot.iova_known).text(" unknown");
}

}  // namespace extmem::heap::map
