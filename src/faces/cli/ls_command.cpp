// `extmem ls`: domains, and what is in them.
#include <fmt/core.h>

#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Options {
  std::vector<std::string> domains;
  bool all = false;
};

/// "4 GiB", and "12 MiB" of it: over all heaps.
std::uint64_t total_of(const DomainLook& d, std::uint64_t HeapStats::*what) {
  std::uint64_t sum = 0;
  for (const HeapLook& heap : d.heaps) sum += heap.stats.*what;
  return sum;
}

void print_summary(const std::vector<DomainLook>& looks, const Console& console) {
  Table table(
      {"domain", ">processes", ">dead", ">heaps", ">regions", ">zones", ">memory", ">held", "?>metadata"});
  for (const DomainLook& d : looks) {
    if (!d.trouble.empty()) continue;
    table.row({shown(d.name, console.unicode()), std::to_string(d.processes.size() - d.dead()),
               std::to_string(d.dead()), std::to_string(d.heaps.size()), std::to_string(d.regions.size()),
               std::to_string(d.zones.size()), bytes_text(total_of(d, &HeapStats::total_bytes)),
               bytes_text(total_of(d, &HeapStats::used_bytes)), bytes_text(d.metadata_bytes)});
  }
  if (!table.empty()) table.print(console);
}

void print_heaps(const DomainLook& d, const Console& console) {
  Table table(
      {">id", "heap", "style", ">regions", ">memory", ">held", ">objects", "?>cached", "?>largest free"});
  for (const HeapLook& heap : d.heaps) {
    const HeapStats& s = heap.stats;
    table.row({std::to_string(heap.info.id), shown(heap.info.name, console.unicode()),
               heap.info.style == Style::exact ? "exact" : "binned", std::to_string(heap.info.regions),
               bytes_text(s.total_bytes), bytes_text(s.used_bytes), count_text(s.used_count),
               bytes_text(s.cached_bytes), bytes_text(s.largest_free)});
  }
  console.heading("Heaps");
  table.print(console);
}

void print_regions(const DomainLook& d, const Console& console) {
  if (d.regions.empty()) return;
  Table table({">region", "heap", "memory", ">bytes", ">free", "?>largest free", "?>OS page", "?>node",
               "?>IOVA runs", "state"});
  for (const RegionInfo& r : d.regions) {
    std::string state = r.draining ? "draining" : "";
    if (r.grown) state += state.empty() ? "grown" : ", grown";
    if (!r.cpu_accessible) state += state.empty() ? "device" : ", device";
    table.row({std::to_string(r.id.slot), shown(d.heap_name(r.heap_id), console.unicode()),
               preload::backing_word(r.kind), bytes_text(r.length), bytes_text(r.free_bytes),
               bytes_text(r.largest_free), bytes_text(r.os_page_size),
               r.numa_node == kAnyNode ? "-" : std::to_string(r.numa_node), count_text(r.iova_runs), state});
  }
  console.heading("Regions");
  table.print(console);
}

void print_processes(const DomainLook& d, const Console& console) {
  if (d.processes.empty()) return;
  Table table({">id", ">pid", "process", "state"});
  for (const ParticipantInfo& p : d.processes)
    table.row({std::to_string(p.id), std::to_string(p.pid), shown(p.name, console.unicode()),
               p.dead ? "dead: extmem recover" : "alive"});
  console.heading("Processes");
  table.print(console);
}

void print_zones(const DomainLook& d, const Console& console) {
  if (d.zones.empty()) return;
  Table table({"zone", "heap", ">bytes", ">region", ">offset", "?>IOVA"});
  constexpr std::size_t kMost = 50;
  for (std::size_t i = 0; i < d.zones.size() && i < kMost; ++i) {
    const MemzoneInfo& z = d.zones[i];
    table.row({shown(z.name, console.unicode()), shown(d.heap_name(z.heap_id), console.unicode()),
               bytes_text(z.length), std::to_string(z.ptr.slot()), hex_text(z.ptr.offset()),
               z.iova == kBadIova ? "-" : hex_text(static_cast<std::uint64_t>(z.iova))});
  }
  console.heading("Memzones");
  table.print(console);
  if (d.zones.size() > kMost)
    console.line(fmt::format("  and {} more: extmem zones", count_text(d.zones.size() - kMost)));
}

void print_domain(const DomainLook& d, const Console& console) {
  std::string about = fmt::format(", metadata {}", bytes_text(d.metadata_bytes));
  for (const HeapLook& heap : d.heaps) {
    if (heap.stable) continue;
    about += ", figures are of no one instant: it is being changed";
    break;
  }
  console.line(console.paint(Tone::bold, "domain " + shown(d.name, console.unicode())) + about);
  print_heaps(d, console);
  print_regions(d, console);
  print_processes(d, console);
  print_zones(d, console);
}

void print_json(const ShellOptions& shell, const std::vector<DomainLook>& looks) {
  Json json = begin_json("ls");
  json.text("directory", runtime_directory(shell.directory).path).array("domains");
  for (const DomainLook& d : looks) {
    json.object()
        .text("domain", d.name)
        .text("trouble", d.trouble)
        .integer("metadata_bytes", d.metadata_bytes);
    json.array("heaps");
    for (const HeapLook& heap : d.heaps) {
      json.object().integer("id", heap.info.id).text("heap", heap.info.name);
      json.text("style", heap.info.style == Style::exact ? "exact" : "binned");
      json.integer("regions", heap.info.regions).integer("total_bytes", heap.stats.total_bytes);
      json.integer("used_bytes", heap.stats.used_bytes).boolean("stable", heap.stable).end();
    }
    json.end();
    add_regions(json, d);
    add_processes(json, d.processes);
    add_zones(json, d);
    json.end();
  }
  print_json(json.end().end());
}

int list(const ShellOptions& shell, const Options& o, const Console& console) {
  const bool named = !o.domains.empty();
  const std::vector<std::string> names = named ? o.domains : domain_names(shell);
  std::vector<DomainLook> looks;
  int code = kPassed;
  {
    const Busy busy(console, fmt::format("looking at {}", plural(names.size(), "domain")));
    for (const std::string& name : names) looks.push_back(look_at(shell, name, {}, console));
  }
  for (const DomainLook& d : looks) {
    if (d.trouble.empty()) continue;
    console.complain("ls: " + d.trouble);
    code = kImpossible;
  }
  if (shell.json) {
    print_json(shell, looks);
    return code;
  }
  if (!named && !o.all) {
    print_summary(looks, console);
    if (looks.empty())
      console.line(fmt::format("There is no domain in {}.",
                               shown(runtime_directory(shell.directory).path, console.unicode())));
    return code;
  }
  bool first = true;
  for (const DomainLook& d : looks) {
    if (!d.trouble.empty()) continue;
    if (!first) console.line();
    first = false;
    print_domain(d, console);
  }
  return code;
}

}  // namespace

void add_ls_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("ls", "List domains, their heaps, regions, processes and memzones");
  command->footer("Looking disturbs nobody: nothing is locked, mapped or waited for.");
  auto o = std::make_shared<Options>();
  command
      ->add_option("domain", o->domains, "What is in these domains; default: one line for each that there is")
      ->type_name("DOMAIN");
  command->add_flag("--all,-a", o->all, "What is in all domains");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell, [=](const Console& console) { return list(*shell, *o, console); });
}

}  // namespace extmem::cli
