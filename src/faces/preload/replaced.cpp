// What of this library the program has instead: a malloc that is linked into it, operators of its own. The loader finds those first.
#include <cstdlib>
#include <cstring>

#include "faces/preload/process_heap.hpp"
#include "os/interposed.hpp"

namespace extmem::preload {

namespace {

/// Also where there is no C++ library, and nobody's, this says no.
template <std::size_t N>
bool any_instead(const char* const (&names)[N]) noexcept {
  for (const char* name : names) {
    if (os::file_called_instead(name) != nullptr) return true;
  }
  return false;
}

}  // namespace

void find_replaced() noexcept {
  if (const char* file = os::file_called_instead("malloc"))
    std::strncat(process.other_malloc, file, sizeof process.other_malloc - 1);
  process.malloc_in_front = process.other_malloc[0] != '\0';
  process.replaced_new = any_instead({"_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t"});
  process.replaced_aligned_new =
      any_instead({"_ZnwmSt11align_val_t", "_ZnamSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t"});
  if (!process.settings.tags) process.quick = process.heap;
  if (!process.replaced_new && !process.malloc_in_front) process.quick_new = process.quick;
}

void forget_forwarding_malloc() noexcept {
  if (!process.malloc_in_front) return;
  void* p = ::malloc(1);
  if (process.heap.usable_size(p)) process.other_malloc[0] = '\0';
  ::free(p);
}

}  // namespace extmem::preload
