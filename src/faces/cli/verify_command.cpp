// `extmem verify`: checks every invariant of domains from outside, while their processes go on, or stand still.
#include <fmt/core.h>

#include <chrono>
#include <memory>
#include <thread>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

constexpr std::size_t kMostBreaches = 100;

struct Verdict {
  std::string domain;
  std::string trouble;
  std::vector<Breach> breaches;  ///< the first ones
  std::size_t count = 0;
  std::size_t unstable = 0;  ///< parts that could not be judged
};

/// One look at it. A part that changes all the time is looked at again, for up to a second.
Verdict verify(const ShellOptions& shell, const std::string& name, const Console& console) {
  Verdict verdict;
  verdict.domain = name;
  try {
    Inspector inspector = open_inspector(shell, name, console);
    const Stopwatch watch;
    for (;;) {
      verdict.breaches.clear();
      const auto collect = [&](const Breach& breach) {
        if (verdict.breaches.size() < kMostBreaches) verdict.breaches.push_back(breach);
      };
      verdict.count = need(inspector.verify(collect, &verdict.unstable), "cannot verify the domain");
      if (verdict.count != 0 || verdict.unstable == 0 || watch.seconds() > 1) return verdict;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      if (auto fresh = inspector.refresh(); !fresh && fresh.error().code() != EAGAIN)
        throw Failure("cannot verify the domain", fresh.error());
    }
  } catch (const Failure& failure) {
    verdict.trouble = failure.what();
    return verdict;
  }
}

void print(const Verdict& v, const Console& console) {
  const std::string title = shown(v.domain, console.unicode());
  if (!v.trouble.empty()) return;
  if (v.count == 0 && v.unstable == 0) {
    console.verdict(true, title, "every invariant holds");
  } else if (v.count == 0) {
    console.line(
        fmt::format("  ? {}: no breach found, but {} could not be judged: changed all the time, or in the "
                    "hands of a process that is stopped or dead",
                    title, plural(v.unstable, "part")));
  } else {
    console.verdict(false, title, plural(v.count, "breach", "breaches"));
  }
  for (const Breach& b : v.breaches)
    console.line(fmt::format("      heap {}, region {}, at {}: {} (expected {}, found {})", b.heap_id,
                             b.region_slot, b.where, b.what, b.expected, b.found));
  if (v.count > v.breaches.size())
    console.line(fmt::format("      and {} more", v.count - v.breaches.size()));
}

int run(const ShellOptions& shell, const std::vector<std::string>& domains, bool all,
        const Console& console) {
  if (domains.empty() != all) throw Failure(kUsage, "name the domains, or say --all");
  const std::vector<std::string> names = all ? domain_names(shell) : domains;
  std::vector<Verdict> verdicts;
  {
    const Busy busy(console, fmt::format("verifying {}", plural(names.size(), "domain")));
    for (const std::string& name : names) verdicts.push_back(verify(shell, name, console));
  }
  int code = kPassed;
  for (const Verdict& v : verdicts) {
    if (!v.trouble.empty()) console.complain("verify: " + v.trouble);
    if (code == kPassed && (!v.trouble.empty() || v.unstable != 0)) code = kImpossible;
    if (v.count != 0) code = kCheckFailed;
  }
  if (!shell.json) {
    for (const Verdict& v : verdicts) print(v, console);
    if (names.empty()) console.line("There is no domain here.");
    return code;
  }
  Json json = begin_json("verify");
  json.array("domains");
  for (const Verdict& v : verdicts) {
    json.object().text("domain", v.domain).text("trouble", v.trouble);
    json.boolean("sound", v.trouble.empty() && v.count == 0 && v.unstable == 0);
    json.integer("breach_count", v.count).integer("not_judged", v.unstable).array("breaches");
    for (const Breach& b : v.breaches) {
      json.object().text("what", b.what).integer("heap_id", b.heap_id).integer("region", b.region_slot);
      json.integer("where", b.where).integer("expected", b.expected).integer("found", b.found).end();
    }
    json.end().end();
  }
  print_json(json.end().end());
  return code;
}

}  // namespace

void add_verify_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("verify", "Check every invariant of domains");
  command->footer(
      "From outside: nothing is locked or changed, and processes go on meanwhile, or may be stopped. Exit "
      "code 1: a "
      "breach;\n3: a part could not be judged, because it changed all the time or a stopped or dead process "
      "had begun to "
      "change it.");
  auto domains = std::make_shared<std::vector<std::string>>();
  auto all = std::make_shared<bool>(false);
  command->add_option("domain", *domains, "The domains")->type_name("DOMAIN");
  command->add_flag("--all,-a", *all, "All domains of the runtime directory");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell,
           [=](const Console& console) { return run(*shell, *domains, *all, console); });
}

}  // namespace extmem::cli
