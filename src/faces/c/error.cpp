#include "faces/c/error.hpp"

#include "extmem/extmem.h"

namespace extmem::faces::c {
namespace {

struct LastError {
  int code;
  const char* message;
};
constinit thread_local LastError last_error{0, "no error"};

}  // namespace

int fail(int code, const char* message) noexcept {
  last_error = LastError{code, message};
  return -code;
}

}  // namespace extmem::faces::c

using extmem::faces::c::last_error;

const char* extmem_version(void) { return EXTMEM_VERSION_STRING; }
int extmem_last_error(void) { return -last_error.code; }
const char* extmem_last_error_message(void) { return last_error.message; }
