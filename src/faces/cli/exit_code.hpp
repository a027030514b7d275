// How the command ends. Documented in --help and in extmem(1); scripts rely on it.
#pragma once

namespace extmem::cli {

enum ExitCode : int {
  kPassed = 0,  ///< done, and every check passed
  kCheckFailed =
      1,            ///< a check failed: extmem itself is at fault; doctor: something that it needs is lacking
  kUsage = 2,       ///< the command line makes no sense
  kImpossible = 3,  ///< memory, a file or a domain could not be had, or somebody is in the way
};

}  // namespace extmem::cli
