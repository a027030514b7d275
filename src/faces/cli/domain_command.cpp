// `extmem domain create|rm`: named domains that programs then open.
#include <fmt/core.h>

#include <cerrno>
#include <memory>
#include <vector>

#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Create {
  std::string name;
  bool group = false;
  OpenOptions open{};
  std::string small_metadata;
  std::string large_metadata;
};

int create(const ShellOptions& shell, Create o, const Console& console) {
  o.open.mode = OpenMode::create_only;
  o.open.directory = shell.where();
  o.open.group = o.group;
  o.open.permanent =
      true;  // else a program that was told to remove what it leaves last would take the heaps away
  if (!o.small_metadata.empty())
    o.open.sizes.small_metadata = parse_bytes(o.small_metadata, "--small-metadata");
  if (!o.large_metadata.empty())
    o.open.sizes.large_metadata = parse_bytes(o.large_metadata, "--large-metadata");
  const std::string title = shown(o.name, console.unicode());
  const Domain domain =
      need(Domain::open(o.name, o.open), fmt::format("cannot create the domain \"{}\"", title));
  std::vector<std::string> heaps;
  need(domain.walk_heaps([&](const HeapInfo& info) {
    heaps.emplace_back(info.name);
    return true;
  }),
       "cannot list the heaps");
  if (shell.json) {
    Json json = begin_json("domain create");
    json.text("domain", o.name).array("heaps");
    for (const std::string& heap : heaps) json.text({}, heap);
    print_json(json.end().end());
    return kPassed;
  }
  console.line(fmt::format("domain {} created, with {}", title,
                           plural(heaps.size(), "heap") + " for the machine's NUMA nodes"));
  return kPassed;
}

int remove(const ShellOptions& shell, const std::string& name, const Console& console) {
  const std::string title = shown(name, console.unicode());
  auto removed = Domain::remove(name, shell.where());
  if (!removed && removed.error().code() == ENOENT)
    throw Failure(kImpossible,
                  fmt::format("no domain \"{}\" here: `extmem ls` lists those that there are", title));
  if (!removed && removed.error().code() == EBUSY) {
    console.complain(fmt::format(
        "domain rm: cannot remove the domain \"{}\": living processes use it; end them first", title));
    for (const ParticipantInfo& p : look_at(shell, name, {false, false, false, false}, console).processes) {
      if (!p.dead)
        console.complain(fmt::format("  process {} ({})", p.pid, shown(p.name, console.unicode())));
    }
    return kImpossible;
  }
  need(removed, fmt::format("cannot remove the domain \"{}\"", title));
  if (shell.json) {
    Json json = begin_json("domain rm");
    print_json(json.text("domain", name).end());
    return kPassed;
  }
  console.line(fmt::format("domain {} removed", title));
  return kPassed;
}

}  // namespace

void add_domain_command(CLI::App& app, int& exit_code) {
  CLI::App* domain = app.add_subcommand("domain", "Create and remove named domains");
  domain->require_subcommand(1);

  CLI::App* made = domain->add_subcommand("create", "Create a domain");
  made->footer(
      "It has one empty heap for each NUMA node, \"node0\" and so on. It stays until `extmem domain rm`, "
      "also "
      "where a program\nthat uses it was told to remove what it leaves last.");
  auto o = std::make_shared<Create>();
  made->add_option("domain", o->name, "Its name")->required()->type_name("NAME");
  made->add_flag("--group", o->group, "Members of your group may use it");
  DomainOptions& sizes = o->open.sizes;
  made->add_option("--max-regions", sizes.max_regions, "Most regions")->type_name("N")->capture_default_str();
  made->add_option("--max-heaps", sizes.max_heaps, "Most heaps")->type_name("N")->capture_default_str();
  made->add_option("--max-memzones", sizes.max_memzones, "Most memzones")
      ->type_name("N")
      ->capture_default_str();
  made->add_option("--max-tags", sizes.max_tags, "Most tags")->type_name("N")->capture_default_str();
  made->add_option("--max-threads", sizes.max_threads, "Most threads at a time, of all processes")
      ->type_name("N")
      ->capture_default_str();
  made->add_option("--small-metadata", o->small_metadata, "Address space for the states of objects (4G)")
      ->type_name("SIZE");
  made->add_option("--large-metadata", o->large_metadata, "Address space for page maps and IOVA tables (64G)")
      ->type_name("SIZE");
  auto shell = add_shell_options(*made);
  set_work(*made, exit_code, shell, [=](const Console& console) { return create(*shell, *o, console); });

  CLI::App* rm = domain->add_subcommand("rm", "Remove a domain that no living process uses");
  rm->footer(
      "Its heaps and the memory in its folder go with it. Files that regions were made of (file:, shm:) "
      "stay, but "
      "those of\n`region add --unlink`.");
  auto name = std::make_shared<std::string>();
  rm->add_option("domain", *name, "Its name")->required()->type_name("DOMAIN");
  auto rm_shell = add_shell_options(*rm);
  set_work(*rm, exit_code, rm_shell,
           [=](const Console& console) { return remove(*rm_shell, *name, console); });
}

}  // namespace extmem::cli
