// `extmem top`: what changes in domains now. On a terminal live; with --once or --json, or into a pipe, as text.
#include <fmt/core.h>
#include <unistd.h>

#include <chrono>
#include <memory>
#include <thread>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/text.hpp"
#include "faces/cli/top_screen.hpp"

namespace extmem::cli {
namespace {

struct Options {
  std::vector<std::string> domains;
  std::string view = "heaps";
  std::string sort = "bytes";
  std::string delay = "1s";
  std::string filter;
  unsigned iterations = 1;
  bool once = false;
};

void print_text(const TopModel& model, const TopSettings& s, const Console& console) {
  std::vector<std::string> headings{"domain", "heap"};
  if (s.view == TopView::processes) headings.insert(headings.end(), {">pid", "process"});
  if (s.view == TopView::tags) headings.emplace_back("tag");
  headings.insert(headings.end(), {">held", ">change", ">objects"});
  if (s.view == TopView::heaps) headings.emplace_back("?>memory");
  Table table(headings);
  for (const TopRow& row : model.rows(s.sort, s.reversed, s.filter)) {
    std::vector<std::string> cells{shown(row.domain, console.unicode()), shown(row.heap, console.unicode())};
    if (s.view == TopView::processes) cells.push_back(row.pid == 0 ? "-" : std::to_string(row.pid));
    if (s.view != TopView::heaps) cells.push_back(shown(row.label, console.unicode()));
    cells.insert(cells.end(), {bytes_text(row.bytes), rate_text(row.byte_rate), count_text(row.count)});
    if (s.view == TopView::heaps) cells.push_back(bytes_text(row.total));
    table.row(std::move(cells));
  }
  if (table.empty()) {
    console.line("Nothing is held here.");
  } else {
    table.print(console);
  }
}

void print_document(const TopModel& model, const TopSettings& s) {
  Json json = begin_json("top");
  const TopSums& sums = model.sums();
  json.text("view", view_text(s.view)).integer("domains", sums.domains).integer("processes", sums.processes);
  json.integer("dead", sums.dead)
      .integer("total_bytes", sums.total)
      .integer("used_bytes", sums.held)
      .array("rows");
  for (const TopRow& row : model.rows(s.sort, s.reversed, s.filter)) {
    json.object().text("domain", row.domain).text("heap", row.heap).text("label", row.label);
    json.integer("pid", row.pid).integer("bytes", row.bytes).integer("count", row.count);
    json.integer("total_bytes", row.total).real("bytes_per_second", row.byte_rate);
    json.real("objects_per_second", row.count_rate).boolean("stable", row.stable).end();
  }
  print_json(json.end().end());
}

int top(const ShellOptions& shell, const Options& o, const Console& console) {
  TopSettings s;
  s.view = o.view == "tags" ? TopView::tags : o.view == "processes" ? TopView::processes : TopView::heaps;
  s.sort = o.sort == "change"    ? TopSort::rate
           : o.sort == "objects" ? TopSort::count
           : o.sort == "name"    ? TopSort::name
                                 : TopSort::bytes;
  s.filter = o.filter;
  s.delay = parse_seconds(o.delay, "--delay");
  if (s.delay < 0.05) throw Failure(kUsage, "--delay: at least 50ms");
  TopModel model(shell, o.domains, console);
  const bool live = !shell.json && !o.once && ::isatty(STDOUT_FILENO) == 1 && ::isatty(STDIN_FILENO) == 1;
  if (live) {
    model.look(s.view);  // an error before the screen is taken
    run_top_screen(model, s, console);
    return kPassed;
  }
  const Interrupts interrupts;
  model.look(s.view);
  for (unsigned i = 0; i < o.iterations && !Interrupts::seen(); ++i) {
    std::this_thread::sleep_for(std::chrono::duration<double>(s.delay));
    model.look(s.view);
    if (shell.json) {
      print_document(model, s);
    } else {
      if (i != 0) console.line();
      print_text(model, s, console);
    }
    (void)std::fflush(stdout);
  }
  for (const std::string& trouble : model.troubles()) console.complain("top: " + trouble);
  return model.troubles().empty() ? kPassed : kImpossible;
}

}  // namespace

void add_top_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("top", "Watch heaps, tags and processes live");
  command->footer(
      "Keys: h heaps, t tags, p processes, Tab the next of them; b, r, c, n sort by bytes held, change, "
      "objects, name; "
      "i inverts;\n/ filters by a part of a name; space pauses; + and - change the delay; arrows scroll; q "
      "ends.\n"
      "~ behind a line: the heap was changed while it was read, and its figures are of no one instant.");
  auto o = std::make_shared<Options>();
  command->add_option("domain", o->domains, "The domains; default: all that there are")->type_name("DOMAIN");
  command->add_option("--view", o->view, "heaps, tags or processes")
      ->check(CLI::IsMember({"heaps", "tags", "processes"}))
      ->capture_default_str();
  command->add_option("--sort", o->sort, "bytes, change, objects or name")
      ->check(CLI::IsMember({"bytes", "change", "objects", "name"}))
      ->capture_default_str();
  command->add_option("--filter", o->filter, "Only what has this in its names")->type_name("TEXT");
  command->add_option("--delay,-d", o->delay, "Time between two looks")
      ->type_name("TIME")
      ->capture_default_str();
  command->add_option("--iterations,-n", o->iterations, "Looks to print, where it is not live")
      ->type_name("N")
      ->check(CLI::Range(1u, 1000000000u))
      ->capture_default_str();
  command->add_flag("--once", o->once, "Print text, also on a terminal");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell, [=](const Console& console) { return top(*shell, *o, console); });
}

}  // namespace extmem::cli
