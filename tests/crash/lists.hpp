// Lists of unused records: that a death has lost none, and put none into a list twice.
#pragma once

#include <string>

#include "extmem/domain.hpp"

namespace extmem::crash {

/// What is wrong with the lists of a domain's tables, a line each; "": nothing. No other process may use the domain.
std::string wrong_lists(Domain& domain);

}  // namespace extmem::crash
