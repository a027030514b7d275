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
void add_ls_command(CLI::App& app, int& exit_code);
void add_stat_command(CLI::App& app, int& exit_code);
void add_top_command(CLI::App& app, int& exit_code);
void add_map_command(CLI::App& app, int& exit_code);
void add_zones_command(CLI::App& app, int& exit_code);
void add_verify_command(CLI::App& app, int& exit_code);
void add_doctor_command(CLI::App& app, int& exit_code);
void add_domain_command(CLI::App& app, int& exit_code);
void add_heap_command(CLI::App& app, int& exit_code);
void add_region_command(CLI::App& app, int& exit_code);
void add_recover_command(CLI::App& app, int& exit_code);
/// After all others: it describes them.
void add_completion_command(CLI::App& app, int& exit_code);
void add_demo_command(CLI::App& app, int& exit_code);
void add_demo_worker_command(CLI::App& app, int& exit_code);

}  // namespace extmem::cli
