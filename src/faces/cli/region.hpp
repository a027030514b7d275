// The parts of `extmem region`.
#pragma once

#include "faces/cli/shell.hpp"

namespace extmem::cli {

void add_region_add_command(CLI::App& region, int& exit_code);

}  // namespace extmem::cli
