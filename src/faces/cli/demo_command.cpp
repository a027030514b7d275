#include <memory>
#include <string>

#include "faces/cli/commands.hpp"
#include "faces/cli/console.hpp"
#include "faces/cli/demo.hpp"
#include "faces/cli/shell.hpp"

namespace extmem::cli {

void add_demo_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("demo", "Show extmem on this machine's memory, and check it");
  command->footer(
      "The demo creates heaps over hugepages (else what comes closest), plain memory, a file and lent "
      "memory, with\n"
      "IOVAs; runs a load of several threads; drains and removes a region meanwhile; verifies; draws the "
      "heap map.\n\n" +
      app.get_footer());
  auto options = std::make_shared<DemoOptions>();
  command->add_option("--seconds", options->seconds, "How long the load runs")
      ->type_name("N")
      ->check(CLI::Range(0.05, 86400.0))
      ->capture_default_str();
  command
      ->add_option("--threads", options->threads,
                   "Threads of the load; default: one for each processor, at least 2")
      ->type_name("N")
      ->check(CLI::Range(1u, 512u));
  command->add_option("--svg", options->svg, "Where the heap map goes; default: out/extmem-demo.svg")
      ->type_name("FILE");
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console& console) {
    Demo demo(*options, console);
    const int code = demo.run();
    if (shell->json) print_json(demo.report());
    return code;
  });
}

}  // namespace extmem::cli
