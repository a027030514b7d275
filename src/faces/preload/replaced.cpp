// What of this library the program has instead: a malloc that is linked into it, operators of its own. The loader finds those first.
#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include <cstring>

#include "faces/preload/process_heap.hpp"
#include "os/errno_keeper.hpp"

namespace extmem::preload {

namespace {

/// The file whose function of this name is called instead of ours; null: none.
const char* file_instead(const char* name) noexcept {
  void* const first = ::dlsym(RTLD_DEFAULT, name);
  Dl_info here{};
  Dl_info where{};
  const ElfW(Sym)* symbol = nullptr;
  if (first == nullptr || ::dladdr(&process, &here) == 0) return nullptr;
  if (::dladdr1(first, &where, const_cast<void**>(reinterpret_cast<const void**>(&symbol)), RTLD_DL_SYMENT) ==
      0)
    return nullptr;
  // An executable at fixed addresses that takes a function's address has a stub for it, and that is the address for everybody.
  if (where.dli_fbase == here.dli_fbase || (symbol != nullptr && symbol->st_shndx == SHN_UNDEF))
    return nullptr;
  return where.dli_fname;
}

/// Also where there is no C++ library, and nobody's, this says no.
template <std::size_t N>
bool any_instead(const char* const (&names)[N]) noexcept {
  for (const char* name : names) {
    if (file_instead(name) != nullptr) return true;
  }
  return false;
}

}  // namespace

void find_replaced() noexcept {
  const os::ErrnoKeeper keep;
  if (const char* file = file_instead("malloc"))
    std::strncat(process.other_malloc, file, sizeof process.other_malloc - 1);
  process.replaced_new = any_instead({"_Znwm", "_Znam", "_ZnwmRKSt9nothrow_t"});
  process.replaced_aligned_new =
      any_instead({"_ZnwmSt11align_val_t", "_ZnamSt11align_val_t", "_ZnwmSt11align_val_tRKSt9nothrow_t"});
  process.slow_new = process.settings.tags || process.replaced_new || process.other_malloc[0] != '\0';
}

}  // namespace extmem::preload
