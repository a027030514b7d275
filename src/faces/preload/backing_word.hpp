// A backing's kind in one word, as every JSON of the command and of a preloaded program has it (docs/cli-json.md).
#pragma once

#include "extmem/types.hpp"

namespace extmem::preload {

constexpr const char* backing_word(BackingKind kind) noexcept {
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
      return "memfd_hugetlb";
    case BackingKind::shm:
      return "shm";
    case BackingKind::file:
      return "file";
    case BackingKind::dax:
      return "dax";
  }
  return "unknown";
}

}  // namespace extmem::preload
