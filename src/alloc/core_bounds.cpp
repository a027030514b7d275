// What of a record can be believed before it is used as an index or an address: of segments that others may have damaged.
#include "alloc/core.hpp"

namespace extmem::alloc {

bool Core::sound(const RegionCore& r) const noexcept {
  const std::uint64_t pages = r.pages.pages;
  const std::uint64_t descs = r.pages.descs_offset;
  const unsigned shift = r.pages.page_shift;
  const std::uint64_t end = tables_.large_area + geometry_.large_bytes;
  // An offset in a region has 48 bits: a shift above 47 leaves no page.
  if (pages == 0 || pages > kMaxPages || shift > 47 || pages > (std::uint64_t{1} << 48) >> shift)
    return false;
  if (r.heap >= geometry_.max_heaps || r.os_page_shift > 63) return false;
  return descs % alignof(PageDesc) == 0 && descs >= tables_.large_area && descs <= end &&
         page_table_bytes(pages, shift) <= end - descs;
}

bool Core::sound(const Slab& s) const noexcept {
  const std::uint64_t objects = s.objects;
  const std::uint32_t region = s.region();
  if (objects == 0 || s.size() == 0 || s.cls() >= kClasses || region == 0 || region > geometry_.max_regions)
    return false;
  const std::uint64_t words = state_words();
  if (s.first_state > words || objects > words - s.first_state) return false;
  const RegionCore& r = regions_[region];
  return sound(r) && s.offset() + objects * s.size() <= std::uint64_t{r.pages.pages} << r.pages.page_shift;
}

}  // namespace extmem::alloc
