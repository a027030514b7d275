// The commands of `extmem`: one file each. A command adds its options to the app and sets a callback that stores
// the exit code.
#pragma once

#include <CLI/App.hpp>

namespace extmem::cli {

void add_version_command(CLI::App& app, int& exit_code);
void add_run_command(CLI::App& app, int& exit_code);
void add_record_command(CLI::App& app, int& exit_code);
void add_replay_command(CLI::App& app, int& exit_code);
void add_advise_command(CLI::App& app, int& exit_code);
void add_demo_command(CLI::App& app, int& exit_code);
void add_demo_worker_command(CLI::App& app, int& exit_code);

}  // namespace extmem::cli
