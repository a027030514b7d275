// `extmem region add|drain|undrain|remove`.
#include "faces/cli/region.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Which {
  std::string domain;
  std::string region;
  std::string timeout = "30s";
  bool drain = false;
};

/// Requires: find_region took it.
unsigned long slot_of(const Which& o) { return std::strtoul(o.region.c_str(), nullptr, 10); }

/// The end of a command that could not be done because somebody uses the region.
int refuse(const ShellOptions& shell, const Console& console, const char* command, const Which& o,
           const std::string& why, const HolderReport& report) {
  console.complain(fmt::format("{}: {}", command, why));
  complain_holders(console, report);
  if (shell.json) {
    Json json = begin_json(command);
    json.text("domain", o.domain).integer("region", slot_of(o)).boolean("done", false);
    add_holders(json, report);
    print_json(json.end());
  }
  return kImpossible;
}

int done(const ShellOptions& shell, const Console& console, const char* command, const Which& o,
         const std::string& text) {
  if (!shell.json) {
    console.line(text);
    return kPassed;
  }
  Json json = begin_json(command);
  json.text("domain", o.domain).integer("region", slot_of(o)).boolean("done", true).array("holders").end();
  print_json(json.end());
  return kPassed;
}

/// Returns false when time is over, or the user has had enough; the region goes on draining.
bool drain_region(Domain& domain, RegionId region, double seconds, const Console& console,
                  HolderReport& report) {
  Progress bar(console);
  const Interrupts interrupts;
  const Stopwatch watch;
  std::uint64_t most = 0;
  for (;;) {
    const double left = seconds - watch.seconds();
    const auto step = std::chrono::nanoseconds(static_cast<std::int64_t>(std::clamp(left, 0.0, 0.25) * 1e9));
    const auto drained = domain.drain_region(region, step, &report);
    if (drained) return true;
    if (drained.error().code() != ETIMEDOUT) throw Failure("cannot drain the region", drained.error());
    if (left <= 0 || Interrupts::seen()) return false;
    most = std::max(most, report.total_bytes);
    const double share =
        most == 0 ? 1 : 1 - static_cast<double>(report.total_bytes) / static_cast<double>(most);
    bar.show(share, fmt::format("{} still held", bytes_text(report.total_bytes)));
  }
}

int drain(const ShellOptions& shell, const Which& o, const Console& console) {
  const double seconds = parse_seconds(o.timeout, "--timeout");
  Domain domain = open_domain(shell, o.domain, console);
  const RegionInfo region = find_region(domain, o.region);
  HolderReport report;
  if (drain_region(domain, region.id, seconds, console, report))
    return done(shell, console, "region drain", o,
                fmt::format("region {} is empty, and serves no allocations any more", o.region));
  return refuse(
      shell, console, "region drain", o,
      fmt::format("region {} is still in use; it goes on draining (`extmem region undrain` ends that)",
                  o.region),
      report);
}

int undrain(const ShellOptions& shell, const Which& o, const Console& console) {
  Domain domain = open_domain(shell, o.domain, console);
  const RegionInfo region = find_region(domain, o.region);
  need(domain.undrain_region(region.id), "cannot end the draining");
  return done(shell, console, "region undrain", o, fmt::format("region {} serves allocations", o.region));
}

int remove(const ShellOptions& shell, const Which& o, const Console& console) {
  const double seconds = parse_seconds(o.timeout, "--timeout");
  Domain domain = open_domain(shell, o.domain, console);
  const RegionInfo region = find_region(domain, o.region);
  HolderReport report;
  if (o.drain && !drain_region(domain, region.id, seconds, console, report))
    return refuse(
        shell, console, "region remove", o,
        fmt::format("region {} is still in use; it goes on draining (`extmem region undrain` ends that)",
                    o.region),
        report);
  if (const auto removed = domain.remove_region(region.id, &report); !removed) {
    if (removed.error().code() != EBUSY) throw Failure("cannot remove the region", removed.error());
    return refuse(
        shell, console, "region remove", o,
        fmt::format("region {} is in use, and was left as it is: end those who use it, or let them go "
                    "with --drain",
                    o.region),
        report);
  }
  return done(shell, console, "region remove", o, fmt::format("region {} removed", o.region));
}

std::shared_ptr<Which> add_names(CLI::App& command) {
  auto o = std::make_shared<Which>();
  command.add_option("domain", o->domain, "The domain")->required()->type_name("DOMAIN");
  command.add_option("region", o->region, "The region's number, as `extmem ls` shows it")
      ->required()
      ->type_name("REGION");
  return o;
}

}  // namespace

void add_region_command(CLI::App& app, int& exit_code) {
  CLI::App* region = app.add_subcommand("region", "Give memory to heaps of a named domain, and take it away");
  region->require_subcommand(1);
  add_region_add_command(*region, exit_code);

  CLI::App* drains =
      region->add_subcommand("drain", "Let nothing be allocated in a region, and wait until it is empty");
  drains->footer(
      "Processes that map it are asked to let go of it, which they do at their next call of extmem.");
  auto d = add_names(*drains);
  drains->add_option("--timeout", d->timeout, "How long to wait")->type_name("TIME")->capture_default_str();
  auto drain_shell = add_shell_options(*drains);
  set_work(*drains, exit_code, drain_shell, [=](const Console& c) { return drain(*drain_shell, *d, c); });

  CLI::App* undrains = region->add_subcommand("undrain", "Let allocations use a draining region again");
  auto u = add_names(*undrains);
  auto undrain_shell = add_shell_options(*undrains);
  set_work(*undrains, exit_code, undrain_shell,
           [=](const Console& c) { return undrain(*undrain_shell, *u, c); });

  CLI::App* removes = region->add_subcommand("remove", "Take a region away that nobody uses");
  auto r = add_names(*removes);
  removes->add_flag("--drain", r->drain, "Drain it first");
  removes->add_option("--timeout", r->timeout, "How long to drain")->type_name("TIME")->capture_default_str();
  auto remove_shell = add_shell_options(*removes);
  set_work(*removes, exit_code, remove_shell, [=](const Console& c) { return remove(*remove_shell, *r, c); });
}

}  // namespace extmem::cli
