// EXTMEM_EXPORTED: what a program finds in this library instead of in the C library.
#pragma once

#define EXTMEM_EXPORTED __attribute__((visibility("default")))
#define EXTMEM_EXPORTED_C extern "C" EXTMEM_EXPORTED
