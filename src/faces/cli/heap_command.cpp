// `extmem heap create|destroy`.
#include <fmt/core.h>

#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/shell.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Create {
  std::string domain;
  std::string heap;
  std::string style = "binned";
  std::string on_death = "reclaim";
  std::string step;
  std::string limit;
  std::string backing = "anon";
};

HeapOptions options_of(const Create& o) {
  HeapOptions options;
  options.style = o.style == "exact" ? Style::exact : Style::binned;
  options.on_death = o.on_death == "keep" ? OnDeath::keep : OnDeath::reclaim;
  if (o.step.empty() != o.limit.empty())
    throw Failure(kUsage, "a heap that grows needs both --grow-step and --grow-limit");
  if (o.step.empty()) return options;
  options.growth.step = parse_bytes(o.step, "--grow-step");
  options.growth.limit = parse_bytes(o.limit, "--grow-limit");
  options.growth.backing.kind = o.backing == "memfd"     ? BackingKind::memfd
                                : o.backing == "hugetlb" ? BackingKind::hugetlb
                                                         : BackingKind::anonymous;
  options.growth.backing.thp = o.backing == "thp";
  return options;
}

int create(const ShellOptions& shell, const Create& o, const Console& console) {
  const HeapOptions options = options_of(o);
  Domain domain = open_domain(shell, o.domain, console);
  const std::string title = shown(o.heap, console.unicode());
  const Heap heap =
      need(domain.create_heap(o.heap, options), fmt::format("cannot create the heap \"{}\"", title));
  if (shell.json) {
    Json json = begin_json("heap create");
    json.text("domain", o.domain).text("heap", o.heap).integer("id", heap.id());
    print_json(json.end());
    return kPassed;
  }
  console.line(fmt::format("heap {} created, id {}", title, heap.id()));
  if (options.growth.step == 0) console.line("It has no memory yet: extmem region add");
  return kPassed;
}

int destroy(const ShellOptions& shell, const std::string& domain_name, const std::string& name,
            const Console& console) {
  Domain domain = open_domain(shell, domain_name, console);
  const Heap heap = find_heap(domain, name, console);
  const std::string title = shown(name, console.unicode());
  HolderReport report;
  if (const auto destroyed = domain.destroy_heap(heap, &report); !destroyed) {
    std::string regions;
    need(domain.walk_regions([&](const RegionInfo& info) {
      if (info.heap_id == heap.id()) regions += fmt::format(" {}", info.id.slot);
      return true;
    }),
         "cannot list the regions");
    const Failure failure(fmt::format("cannot destroy the heap \"{}\"", title), destroyed.error());
    if (destroyed.error().code() != EBUSY) throw failure;
    console.complain(fmt::format("heap destroy: {}; its regions:{}", failure.what(), regions));
    complain_holders(console, report);
    return kImpossible;
  }
  if (shell.json) {
    Json json = begin_json("heap destroy");
    print_json(json.text("domain", domain_name).text("heap", name).end());
    return kPassed;
  }
  console.line(fmt::format("heap {} destroyed", title));
  return kPassed;
}

}  // namespace

void add_heap_command(CLI::App& app, int& exit_code) {
  CLI::App* heap = app.add_subcommand("heap", "Create and destroy heaps of a named domain");
  heap->require_subcommand(1);

  CLI::App* made = heap->add_subcommand("create", "Create a heap");
  auto o = std::make_shared<Create>();
  made->add_option("domain", o->domain, "The domain")->required()->type_name("DOMAIN");
  made->add_option("heap", o->heap, "The heap's name")->required()->type_name("NAME");
  made->add_option("--style", o->style, "binned (fast) or exact (sizes to 64 bytes, growing in place)")
      ->check(CLI::IsMember({"binned", "exact"}))
      ->capture_default_str();
  made->add_option("--on-death", o->on_death, "What a dead process held: reclaim (free it) or keep")
      ->check(CLI::IsMember({"reclaim", "keep"}))
      ->capture_default_str();
  made->add_option("--grow-step", o->step, "Memory that a process of the domain adds when the heap is full")
      ->type_name("SIZE");
  made->add_option("--grow-limit", o->limit, "Most memory added so")->type_name("SIZE");
  made->add_option("--grow-backing", o->backing, "What it is: anon, thp, memfd or hugetlb")
      ->check(CLI::IsMember({"anon", "thp", "memfd", "hugetlb"}))
      ->capture_default_str();
  auto shell = add_shell_options(*made);
  set_work(*made, exit_code, shell, [=](const Console& console) { return create(*shell, *o, console); });

  CLI::App* gone = heap->add_subcommand("destroy", "Destroy a heap that has no region any more");
  auto names = std::make_shared<Create>();
  gone->add_option("domain", names->domain, "The domain")->required()->type_name("DOMAIN");
  gone->add_option("heap", names->heap, "The heap")->required()->type_name("HEAP");
  auto gone_shell = add_shell_options(*gone);
  set_work(*gone, exit_code, gone_shell,
           [=](const Console& console) { return destroy(*gone_shell, names->domain, names->heap, console); });
}

}  // namespace extmem::cli
