// `extmem doctor`: what this machine offers, and the command that fixes each lack.
#include <fmt/core.h>

#include <algorithm>

#include "faces/cli/commands.hpp"
#include "faces/cli/doctor.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/shell.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

using doctor::State;

const char* state_text(State state) {
  switch (state) {
    case State::ok:
      return "ok";
    case State::limited:
      return "limited";
    case State::lacking:
      return "lacking";
    case State::unknown:
      return "unknown";
  }
  return "unknown";
}

void print(const doctor::Checks& checks, const Console& console) {
  std::string group;
  for (const doctor::Check& check : checks) {
    if (check.group != group) console.heading(group = check.group);
    const std::string mark = check.state == State::ok ? console.paint(Tone::good, console.either("✓", "+"))
                             : check.state == State::lacking
                                 ? console.paint(Tone::bad, console.either("✗", "x"))
                             : check.state == State::limited ? console.paint(Tone::warn, "!")
                                                             : "?";
    console.line(fmt::format("  {} {}: {}", mark, console.paint(Tone::bold, check.name),
                             shown(check.found, console.unicode())));
    if (!check.matters.empty())
      console.line(fmt::format("      for {}", console.paint(Tone::dim, check.matters)));
    if (!check.fix.empty())
      console.line(
          fmt::format("      {} {}", console.either("→", "->"), console.paint(Tone::accent, check.fix)));
  }
}

int examine(const ShellOptions& shell, const Console& console) {
  doctor::Checks checks;
  doctor::check_kernel(checks);
  doctor::check_memory(checks);
  doctor::check_limits(checks);
  doctor::check_devices(checks);
  doctor::check_runtime_directory(checks, shell.directory);
  const auto count = [&](State state) {
    return static_cast<std::uint64_t>(std::count_if(
        checks.begin(), checks.end(), [&](const doctor::Check& c) { return c.state == state; }));
  };
  const std::uint64_t lacking = count(State::lacking);
  const int code = lacking == 0 ? kPassed : kCheckFailed;
  if (shell.json) {
    Json json = begin_json("doctor");
    json.boolean("works", lacking == 0).array("checks");
    for (const doctor::Check& c : checks) {
      json.object().text("group", c.group).text("name", c.name).text("state", state_text(c.state));
      json.text("found", c.found).text("matters", c.matters).text("fix", c.fix).end();
    }
    print_json(json.end().end());
    return code;
  }
  print(checks, console);
  console.line();
  if (lacking != 0) {
    console.line(console.paint(
        Tone::bad, fmt::format("extmem does not work as it should: {} lacking.", plural(lacking, "thing"))));
  } else if (const std::uint64_t limited = count(State::limited); limited != 0) {
    console.line(fmt::format("extmem works here. {} that some programs want {} limited.",
                             plural(limited, "thing"), limited == 1 ? "is" : "are"));
  } else {
    console.line("extmem works here, with everything that it can use.");
  }
  return code;
}

}  // namespace

void add_doctor_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("doctor", "Say what this machine offers, and what fixes each lack");
  command->footer("Nothing is changed. Exit code 1: something that extmem cannot do without is lacking.");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell, [=](const Console& console) { return examine(*shell, console); });
}

}  // namespace extmem::cli
