// `extmem zones`: the memzones of a domain.
#include <fmt/core.h>

#include <algorithm>
#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

int zones(const ShellOptions& shell, const std::string& name, const std::string& heap,
          const Console& console) {
  Inspector inspector = open_inspector(shell, name, console);
  DomainLook domain = look_at(inspector, name, {false, false, true, true});
  if (!heap.empty()) {
    const auto known = std::any_of(domain.heaps.begin(), domain.heaps.end(),
                                   [&](const HeapLook& h) { return heap == h.info.name; });
    if (!known)
      throw Failure(kImpossible, fmt::format("no heap \"{}\" in this domain: `extmem ls DOMAIN` lists them",
                                             shown(heap, console.unicode())));
    std::erase_if(domain.zones, [&](const MemzoneInfo& z) { return heap != domain.heap_name(z.heap_id); });
  }
  if (shell.json) {
    Json json = begin_json("zones");
    json.text("domain", name);
    add_zones(json, domain);
    print_json(json.end());
    return kPassed;
  }
  Table table({"zone", "heap", ">bytes", ">region", ">offset", "IOVA", "?>node", "?>OS page"});
  for (const MemzoneInfo& z : domain.zones)
    table.row({shown(z.name, console.unicode()), shown(domain.heap_name(z.heap_id), console.unicode()),
               bytes_text(z.length), std::to_string(z.ptr.slot()), hex_text(z.ptr.offset()),
               z.iova == kBadIova ? "-" : hex_text(static_cast<std::uint64_t>(z.iova)),
               z.numa_node == kAnyNode ? "-" : std::to_string(z.numa_node), bytes_text(z.os_page_size)});
  if (table.empty()) {
    console.line("There is no memzone here.");
  } else {
    table.print(console);
  }
  return kPassed;
}

}  // namespace

void add_zones_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("zones", "List the memzones of a domain");
  auto domain = std::make_shared<std::string>();
  auto heap = std::make_shared<std::string>();
  command->add_option("domain", *domain, "The domain")->required()->type_name("DOMAIN");
  command->add_option("--heap", *heap, "Only those of this heap")->type_name("HEAP");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell,
           [=](const Console& console) { return zones(*shell, *domain, *heap, console); });
}

}  // namespace extmem::cli
