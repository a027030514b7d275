// The command `extmem`. What it prints is for people; what scripts need is in exit codes and --json.
#include <fmt/core.h>

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <exception>
#include <iostream>
#include <string>

#include "extmem/version.h"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/shell.hpp"

namespace {

constexpr const char* kFooter =
    "Exit codes:\n"
    "  0  done, and every check passed\n"
    "  1  a check failed (doctor: something is lacking)\n"
    "  2  the command line makes no sense\n"
    "  3  it cannot be done: memory, a file or a domain that is not to be had, or somebody uses it\n"
    "\nNO_COLOR in the environment, or output that is no terminal, means no colours. See also: man extmem";

/// Whether --json is among the options: in front of a program's own, after "--".
bool json_wanted(int argc, char** argv) {
  for (int i = 1; i < argc && std::strcmp(argv[i], "--") != 0; ++i) {
    if (std::strcmp(argv[i], "--json") == 0) return true;
  }
  return false;
}

/// Says what is wrong with the command line, and where to read on.
int misread(const CLI::App& app, int argc, char** argv, std::string what) {
  const CLI::App* command = &app;
  while (!command->get_subcommands().empty()) command = command->get_subcommands().back();
  const std::string path = extmem::cli::path_of(*command);
  // CLI11 misses the command before it looks at the word that stands there instead.
  if (!command->get_subcommands([](const CLI::App*) { return true; }).empty()) {
    const int at = 1 + static_cast<int>(path.empty() ? 0 : 1 + std::count(path.begin(), path.end(), ' '));
    if (at < argc && argv[at][0] != '-')
      what = fmt::format("no such command: {}{}", path.empty() ? "" : path + " ", argv[at]);
    else if (at < argc)
      what = fmt::format("a command comes first, before {}", argv[at]);
  }
  const int code = extmem::cli::tell_failure(path, json_wanted(argc, argv),
                                             extmem::cli::Failure(extmem::cli::kUsage, what));
  fmt::print(stderr, "Try: extmem {}{}--help\n", path, path.empty() ? "" : " ");
  return code;
}

int run(int argc, char** argv) {
  int exit_code = extmem::cli::kPassed;
  CLI::App app("extmem: named heaps over memory you already own", "extmem");
  app.require_subcommand(1);
  app.footer(kFooter);
  app.set_version_flag("--version", "extmem " EXTMEM_VERSION_STRING, "Print the version");
  extmem::cli::add_demo_command(app, exit_code);
  extmem::cli::add_demo_worker_command(app, exit_code);
  extmem::cli::add_run_command(app, exit_code);
  extmem::cli::add_record_command(app, exit_code);
  extmem::cli::add_replay_command(app, exit_code);
  extmem::cli::add_advise_command(app, exit_code);
  extmem::cli::add_ls_command(app, exit_code);
  extmem::cli::add_stat_command(app, exit_code);
  extmem::cli::add_top_command(app, exit_code);
  extmem::cli::add_map_command(app, exit_code);
  extmem::cli::add_zones_command(app, exit_code);
  extmem::cli::add_verify_command(app, exit_code);
  extmem::cli::add_domain_command(app, exit_code);
  extmem::cli::add_heap_command(app, exit_code);
  extmem::cli::add_region_command(app, exit_code);
  extmem::cli::add_recover_command(app, exit_code);
  extmem::cli::add_doctor_command(app, exit_code);
  extmem::cli::add_version_command(app, exit_code);
  extmem::cli::add_completion_command(app, exit_code);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() != static_cast<int>(CLI::ExitCodes::Success))
      return misread(app, argc, argv, error.what());
    errno = 0;
    exit_code = app.exit(error);  // --help, --version
  }
  std::cout.flush();
  if (std::fflush(stdout) != 0 || !std::cout) {
    std::perror("extmem: cannot write to standard output");
    return extmem::cli::kImpossible;
  }
  return exit_code;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& error) {
    fmt::print(stderr, "extmem: {}\n", error.what());
    return extmem::cli::kImpossible;
  }
}
