#include <fmt/core.h>

#include "extmem/version.h"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"

namespace extmem::cli {

void add_version_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("version", "Print the version of extmem");
  command->callback([&exit_code] {
    fmt::print("extmem {}\n", EXTMEM_VERSION_STRING);
    exit_code = kPassed;
  });
}

}  // namespace extmem::cli
