// EXTMEM_ALWAYS_INLINE: for the few functions of the fast paths, where a call would cost a third of the operation.
#pragma once

#define EXTMEM_ALWAYS_INLINE __attribute__((always_inline)) inline
