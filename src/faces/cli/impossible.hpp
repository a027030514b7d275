// Impossible: what was asked for cannot be done here. Ends a command with kImpossible and its text.
#pragma once

#include <stdexcept>

namespace extmem::cli {

class Impossible : public std::runtime_error {
  using std::runtime_error::runtime_error;
};

}  // namespace extmem::cli
