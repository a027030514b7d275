// How the command ends. Documented in --help and in extmem(1); scripts rely on it.
#pragma once

namespace extmem::cli {

enum ExitCode : int {
  kPassed = 0,       ///< done, and every check passed
  kCheckFailed = 1,  ///< a check failed: extmem itself is at fault
  kUsage = 2,        ///< the command line makes no sense
  kImpossible = 3,   ///< memory could not be had, or a file could not be written
};

}  // namespace extmem::cli
