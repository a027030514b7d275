// `extmem region add`: memory for a heap that outlives this command.
//
// A region's memory must not go with this process: it has a name that others can open (a file, a POSIX shm object, a file on
// a hugetlbfs, a DAX device, or a file that extmem makes in the domain's folder). A memfd lives as long as somebody has it
// open; private hugepages and lent memory are one process' anyway.
#include <fmt/core.h>
#include <limits.h>
#include <sys/stat.h>

#include <cstdlib>
#include <memory>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/region.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

struct Add {
  std::string domain;
  std::string heap;
  std::string backing = "anon";
  std::string size;
  std::string iova = "none";
  int node = kAnyNode;
  bool prefault = false;
  bool thp = false;
  bool no_create = false;
  bool unlink = false;
  bool unstable = false;
};

[[noreturn]] void refuse_backing(const std::string& text) {
  if (text.starts_with("memfd"))
    throw Failure(
        kUsage,
        "a memfd lives as long as a process has it open, and this command ends at once: use anon (a file "
        "in the domain's folder), shm:/NAME or file:PATH");
  if (text.starts_with("hugetlb"))
    throw Failure(
        kUsage,
        "hugepages without a name go with the process that maps them, and this command ends at once: make "
        "a file on a hugetlbfs (mount -t hugetlbfs none /mnt/huge) and give file:/mnt/huge/NAME");
  throw Failure(kUsage, fmt::format("--backing {}: give anon, shm:/NAME, file:PATH or dax:PATH", text));
}

/// The path in it points into `path`.
BackingSpec spec_of(const Add& o, std::string& path) {
  BackingSpec spec;
  const auto after = [&](const char* prefix) {
    if (!o.backing.starts_with(prefix)) return false;
    path = o.backing.substr(std::string_view(prefix).size());
    return true;
  };
  if (o.backing == "anon") {
    spec.kind = BackingKind::anonymous;
  } else if (after("shm:")) {
    spec.kind = BackingKind::shm;
  } else if (after("file:")) {
    spec.kind = BackingKind::file;
  } else if (after("dax:")) {
    spec.kind = BackingKind::dax;
  } else {
    refuse_backing(o.backing);
  }
  if (spec.kind != BackingKind::anonymous) {
    if (path.empty()) refuse_backing(o.backing);
    spec.path = path.c_str();
  } else if (o.unlink || o.no_create) {
    throw Failure(kUsage, "anon memory has no path: --unlink and --no-create are for file: and shm:");
  }
  spec.length = parse_bytes(o.size, "--size");
  spec.numa_node = o.node;
  spec.prefault = o.prefault;
  spec.thp = o.thp;
  spec.create = !o.no_create;
  spec.unlink_on_remove = o.unlink;
  spec.allow_unstable_iova = o.unstable;
  spec.iova_source = o.iova == "physical" ? IovaSource::physical : IovaSource::table;
  return spec;
}

/// Somebody's file is not made memory of, and so written over, because its name was given.
void keep_what_is_there(const BackingSpec& spec, const Console& console) {
  if (spec.path == nullptr || !spec.create) return;
  const std::string path = (spec.kind == BackingKind::shm ? "/dev/shm" : "") + std::string(spec.path);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) return;
  throw Failure(
      kImpossible,
      fmt::format("{} is there already and has {}, which would be written over: remove it, or say "
                  "--no-create to use it as memory all the same (EEXIST)",
                  shown(path, console.unicode()), bytes_text(static_cast<std::uint64_t>(status.st_size))),
      EEXIST);
}

int add(const ShellOptions& shell, const Add& o, const Console& console) {
  std::string path;
  BackingSpec spec = spec_of(o, path);
  Domain domain = open_domain(shell, o.domain, console);
  const Heap heap = find_heap(domain, o.heap, console);
  keep_what_is_there(spec, console);
  Result<RegionId> added{RegionId{}};
  {
    Progress bar(console);
    const Interrupts interrupts;
    const auto progress = [&](std::uint64_t done, std::uint64_t total) {
      bar.show(static_cast<double>(done) / static_cast<double>(total == 0 ? 1 : total),
               fmt::format("{} of {} brought in", bytes_text(done), bytes_text(total)));
      return Interrupts::seen();
    };
    spec.progress = progress;
    added = domain.add_backing(heap, spec);
  }
  if (!added && added.error().code() == ECANCELED)
    throw Failure(kImpossible, "interrupted; nothing was added");
  const RegionId id = need(std::move(added), "cannot add the region");
  const RegionInfo info = need(domain.region_info(id), "cannot look at the new region");
  if (shell.json) {
    Json json = begin_json("region add");
    json.text("domain", o.domain).text("heap", o.heap).integer("region", id.slot);
    json.integer("generation", id.generation).integer("bytes", info.length);
    json.integer("os_page_size", info.os_page_size).text("kind", preload::backing_word(info.kind));
    json.integer("node", info.numa_node).integer("iova_runs", info.iova_runs);
    print_json(json.end());
    return kPassed;
  }
  console.line(fmt::format("region {} added to {}: {}, OS pages {}", id.slot,
                           shown(o.heap, console.unicode()), bytes_text(info.length),
                           bytes_text(info.os_page_size)));
  return kPassed;
}

}  // namespace

void add_region_add_command(CLI::App& region, int& exit_code) {
  CLI::App* command = region.add_subcommand("add", "Give memory to a heap");
  command->footer(
      "The memory outlives this command, so it must have a name that programs can open:\n"
      "  anon        a file that extmem makes in the domain's folder, on its tmpfs, and removes with the "
      "region\n"
      "  shm:/NAME   a POSIX shm object\n"
      "  file:PATH   a file: on a hugetlbfs it is hugepages, on a tmpfs memory, else a file's page cache\n"
      "  dax:PATH    device DAX\n"
      "A memfd or hugepages without a name would be gone when this command ends: they are refused.");
  auto o = std::make_shared<Add>();
  command->add_option("domain", o->domain, "The domain")->required()->type_name("DOMAIN");
  command->add_option("heap", o->heap, "The heap")->required()->type_name("HEAP");
  command->add_option("--backing", o->backing, "anon, shm:/NAME, file:PATH or dax:PATH")
      ->type_name("KIND")
      ->capture_default_str();
  command->add_option("--size", o->size, "How much; rounded up to whole OS pages")
      ->required()
      ->type_name("SIZE");
  command->add_option("--node", o->node, "NUMA node to take the memory from")
      ->type_name("N")
      ->check(CLI::Range(0, 1023));
  command->add_flag("--prefault", o->prefault, "Bring every page in now");
  command->add_flag("--thp", o->thp, "Advise transparent hugepages");
  command->add_flag("--no-create", o->no_create, "The file must be there, and long enough");
  command->add_flag("--unlink", o->unlink, "Remove the file's name when the region is removed");
  command
      ->add_option("--iova", o->iova,
                   "Addresses for devices: none, or physical (by the kernel's pagemap: needs CAP_SYS_ADMIN)")
      ->check(CLI::IsMember({"none", "physical"}))
      ->capture_default_str();
  command->add_flag("--allow-unstable-iova", o->unstable,
                    "Physical addresses also of pages that the kernel may move");
  auto shell = add_shell_options(*command);
  set_work(*command, exit_code, shell, [=](const Console& console) { return add(*shell, *o, console); });
}

}  // namespace extmem::cli
