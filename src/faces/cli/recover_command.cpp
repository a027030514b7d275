// `extmem recover`: cleans up after processes that died. Nobody has to call it: whoever meets what a dead one left does so too.
#include <fmt/core.h>

#include <memory>
#include <vector>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Recovered {
  std::string domain;
  RecoveryReport report;
};

void tell(const Recovered& one, const Console& console) {
  const RecoveryReport& r = one.report;
  const std::string title = shown(one.domain, console.unicode());
  if (r.participants == 0) {
    console.line(fmt::format("{}: nothing to recover", title));
  } else {
    console.line(fmt::format("{}: {} with {} recovered in {}", title,
                             plural(r.participants, "dead process", "dead processes"),
                             plural(r.threads, "thread"),
                             console.plain_text(time_text(static_cast<double>(r.nanoseconds) * 1e-9))));
    console.item("freed",
                 fmt::format("{} in {}", bytes_text(r.freed_bytes), plural(r.freed_objects, "object")));
    if (r.kept_objects != 0)
      console.item("kept", fmt::format("{} in {}: nobody's now", bytes_text(r.kept_bytes),
                                       plural(r.kept_objects, "object")));
    if (r.unfinished != 0) console.item("undone", plural(r.unfinished, "unfinished change"));
    if (r.regions != 0) console.item("regions", plural(r.regions, "half-added or half-removed region"));
  }
  if (r.withheld_objects != 0)
    console.item("withheld", fmt::format("{} in {}: a listener says that DMA may go on",
                                         bytes_text(r.withheld_bytes), plural(r.withheld_objects, "object")));
}

int recover(const ShellOptions& shell, const std::string& name, bool all, const Console& console) {
  if (name.empty() != all) throw Failure(kUsage, "name one domain, or say --all");
  std::vector<std::string> names = all ? domain_names(shell) : std::vector<std::string>{name};
  std::vector<Recovered> done;
  int code = kPassed;
  std::vector<std::string> troubles;
  {
    const Busy busy(console, fmt::format("recovering {}", plural(names.size(), "domain")));
    for (const std::string& one : names) {
      try {
        Domain domain = open_domain(shell, one, console);
        done.push_back({one, need(domain.recover(), "cannot recover the domain")});
      } catch (const Failure& failure) {
        if (!all) throw;
        troubles.emplace_back(failure.what());
        code = failure.code();
      }
    }
  }
  for (const std::string& trouble : troubles) console.complain("recover: " + trouble);
  if (!shell.json) {
    for (const Recovered& one : done) tell(one, console);
    if (names.empty()) console.line("There is no domain here.");
    return code;
  }
  Json json = begin_json("recover");
  json.array("domains");
  for (const Recovered& one : done) {
    const RecoveryReport& r = one.report;
    json.object().text("domain", one.domain).integer("participants", r.participants);
    json.integer("threads", r.threads).integer("unfinished", r.unfinished).integer("regions", r.regions);
    json.integer("freed_objects", r.freed_objects).integer("freed_bytes", r.freed_bytes);
    json.integer("kept_objects", r.kept_objects).integer("kept_bytes", r.kept_bytes);
    json.integer("withheld_objects", r.withheld_objects).integer("withheld_bytes", r.withheld_bytes);
    json.real("seconds", static_cast<double>(r.nanoseconds) * 1e-9).end();
  }
  print_json(json.end().end());
  return code;
}

}  // namespace

void add_recover_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("recover", "Clean up after processes that died");
  command->footer(
      "Undoes what they had in flight and frees what they held, but in heaps that keep it. Nobody has to "
      "call "
      "this: every\nprocess does so that meets what a dead one left, and who opens the domain. A device may "
      "still "
      "write into memory of a\nprocess that died: where that can be, let the program recover that drives the "
      "device.");
  auto name = std::make_shared<std::string>();
  auto all = std::make_shared<bool>(false);
  command->add_option("domain", *name, "The domain")->type_name("DOMAIN");
  command->add_flag("--all", *all, "All domains of the runtime directory");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell,
           [=](const Console& console) { return recover(*shell, *name, *all, console); });
}

}  // namespace extmem::cli
