// Whether a function of a preloaded library is called at all: the loader finds the executable's first.
//
// Thread-safety: any thread. No allocation; errno stays as it was. Linked into a preloaded library, not into what it serves.
#pragma once

namespace extmem::os {

/// The file whose function of this name is called instead of that of the library that this is linked into; null: none. The text
/// is the loader's, for the executable its argv[0].
[[nodiscard]] const char* file_called_instead(const char* name) noexcept;

}  // namespace extmem::os
