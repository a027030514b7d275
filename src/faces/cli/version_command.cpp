#include <fmt/core.h>

#include "extmem/version.h"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/shell.hpp"

namespace extmem::cli {

void add_version_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("version", "Print the version of extmem");
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console& console) {
    if (!shell->json) {
      console.line(fmt::format("extmem {}", EXTMEM_VERSION_STRING));
      return kPassed;
    }
    Json json = begin_json("version");
    print_json(json.text("version", EXTMEM_VERSION_STRING).end());
    return kPassed;
  });
}

}  // namespace extmem::cli
