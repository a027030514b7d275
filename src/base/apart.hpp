// set_apart(): says that the compiler must take a value for another one from here on.
//
// Where an address is used two or three times, gcc works it out once, into a register; on the fast paths it costs less to have the
// processor add base and index in each instruction that uses them.
#pragma once

#include "base/always_inline.hpp"

namespace extmem::base {

template <typename T>
EXTMEM_ALWAYS_INLINE void set_apart(T& value) noexcept {
  __asm__("" : "+r"(value));
}

}  // namespace extmem::base
