#include "os/interposed.hpp"

#include <dlfcn.h>
#include <elf.h>
#include <link.h>

#include "os/errno_keeper.hpp"

namespace extmem::os {

const char* file_called_instead(const char* name) noexcept {
  const ErrnoKeeper keeper;
  void* const first = ::dlsym(RTLD_DEFAULT, name);
  Dl_info here{};
  Dl_info where{};
  const void* symbol = nullptr;
  if (first == nullptr || ::dladdr(reinterpret_cast<void*>(&file_called_instead), &here) == 0) return nullptr;
  if (::dladdr1(first, &where, const_cast<void**>(&symbol), RTLD_DL_SYMENT) == 0) return nullptr;
  // An executable at fixed addresses that takes a function's address has a stub for it, and that is the address for everybody.
  const bool stub = symbol != nullptr && static_cast<const ElfW(Sym)*>(symbol)->st_shndx == SHN_UNDEF;
  return where.dli_fbase == here.dli_fbase || stub ? nullptr : where.dli_fname;
}

}  // namespace extmem::os
