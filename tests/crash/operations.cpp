// What a child can do.
#include "crash/role.hpp"

namespace extmem::crash {

const std::vector<std::string>& operations() {
  static const std::vector<std::string> all = {
      "allocate_first",
      "allocate_hit",
      "allocate_tagged",
      "allocate_refill",
      "allocate_slabs",
      "allocate_span",
      "allocate_growth",
      "allocate_exact",
      "exact_hit",
      "exact_push",
      "exact_deep",
      "exact_flush",
      "exact_foreign",
      "keep_exact_hit",
      "keep_exact_push",
      "keep_exact_deep",
      "keep_exact_flush",
      "keep_exact_foreign",
      "keep_free_coalescing",
      "keep_reallocate_exact",
      "free_local",
      "free_flush",
      "free_remote",
      "free_shared",
      "free_foreign",
      "free_span",
      "free_coalescing",
      "reallocate",
      "reallocate_exact",
      "tags",
      "hand_over",
      "add_backing",
      "add_external",
      "add_file",
      "add_file_aside",
      "add_existing",
      "remove_region",
      "drain_region",
      "drain_region_shared",
      "memzone_reserve",
      "memzone_free",
      "create_heap",
      "destroy_heap",
      "destroy_foreign",
      "flush",
      "flush_remote",
      "look",
      "thread",
      "join",
      "leave",
      "hold",
      "create_domain",
  };
  return all;
}

}  // namespace extmem::crash
