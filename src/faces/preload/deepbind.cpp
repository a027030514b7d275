// dlopen, without RTLD_DEEPBIND.
//
// With that flag a library finds the C library's functions before those of any library that is preloaded: its malloc would be another
// one than everybody else's, and to free what is the other's would crash (PHP loads all its extensions so).
// Everything else that the flag promises, that a library prefers its own symbols, is lost with it: extmem(1) says so.
// The C library's dlopen looks at its return address, for the caller's RUNPATH and namespace: so this one must leave the
// caller's on the stack, and jumps instead of calling.
#include <dlfcn.h>

#include "faces/preload/exported.hpp"

static_assert(RTLD_DEEPBIND == 8, "as below");

/// The C library's. Called from the assembly below only.
extern "C" [[gnu::used, gnu::visibility("hidden")]] void* extmem_preload_next_dlopen();
extern "C" void* extmem_preload_next_dlopen() { return ::dlsym(RTLD_NEXT, "dlopen"); }

EXTMEM_EXPORTED_C __attribute__((naked)) void* dlopen(const char*, int) {
  asm("pushq %rdi\n\t"
      ".cfi_adjust_cfa_offset 8\n\t"
      "pushq %rsi\n\t"
      ".cfi_adjust_cfa_offset 8\n\t"
      "subq $8, %rsp\n\t"
      ".cfi_adjust_cfa_offset 8\n\t"
      "call extmem_preload_next_dlopen\n\t"
      "addq $8, %rsp\n\t"
      ".cfi_adjust_cfa_offset -8\n\t"
      "popq %rsi\n\t"
      ".cfi_adjust_cfa_offset -8\n\t"
      "popq %rdi\n\t"
      ".cfi_adjust_cfa_offset -8\n\t"
      "andl $-9, %esi\n\t"
      "jmp *%rax");
}
