// `extmem run`: any program on a named heap. It sets what the preload library reads (src/faces/preload/settings.hpp) and
// becomes the program.
#include <fmt/core.h>
#include <linux/mempolicy.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "extmem/domain.hpp"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/program.hpp"
#include "faces/cli/shell.hpp"
#include "faces/preload/settings.hpp"

namespace extmem::cli {

namespace {

struct RunOptions {
  std::string backing = "anon";
  std::string node;
  std::string size;
  std::string limit;
  std::string step;
  std::string heap = "malloc";
  std::string domain;
  std::string fallback = "none";
  std::string stats;
  std::string stats_file;
  bool prefault = false;
  bool lock = false;
  bool tags = false;
  bool quiet = false;
  std::vector<std::string> program;
};

/// Spreads the memory of this process, and so of what it becomes, over the NUMA nodes. Returns errno, 0 for success.
int interleave() {
  unsigned long nodes = 0;
  std::ifstream online("/sys/devices/system/node/online");
  std::string text;
  std::getline(online, text);
  for (std::istringstream parts(text); std::getline(parts, text, ',');) {
    unsigned first = 0;
    unsigned last = 0;
    const int n = std::sscanf(text.c_str(), "%u-%u", &first, &last);
    if (n < 1) continue;
    if (n == 1) last = first;
    for (unsigned node = first; node <= last && node < 64; ++node) nodes |= 1ul << node;
  }
  if (nodes == 0) return ENODEV;
  return ::syscall(SYS_set_mempolicy, MPOL_INTERLEAVE, &nodes, 65ul) == 0 ? 0 : errno;
}

/// A file that is not what an earlier run left, as long as this one's memory, is somebody's: it is not written over.
void keep_what_is_there(const preload::Settings& settings) {
  const BackingSpec& spec = settings.backing;
  if (spec.path == nullptr || spec.kind == BackingKind::dax) return;
  const std::string path = (spec.kind == BackingKind::shm ? "/dev/shm" : "") + std::string(spec.path);
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode) || status.st_size == 0) return;
  const auto bytes = static_cast<std::uint64_t>(status.st_size);
  const auto page = std::max(static_cast<std::uint64_t>(status.st_blksize), std::uint64_t{4096});
  if (bytes >= spec.length && bytes - spec.length < page) return;
  throw Failure(kImpossible,
                fmt::format("{} is there already and has {}, which would be written over: remove it, or give "
                            "another path, or its length as --size (EEXIST)",
                            clean(path), bytes_text(bytes)),
                EEXIST);
}

/// EXTMEM_STATS_FILE -> --stats-file
std::string option_of(std::string variable) {
  variable.replace(0, std::strlen("EXTMEM_"), "--");
  for (char& c : variable)
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return variable;
}

int run(const RunOptions& options, bool json) {
  Program program("run", options.program);
  if (options.node == "interleave") {
    if (const int failed = interleave(); failed != 0)
      throw Failure(kImpossible,
                    fmt::format("cannot interleave over the NUMA nodes: {}", std::strerror(failed)), failed);
  }
  set_variable("EXTMEM_BACKING", options.backing);
  set_variable("EXTMEM_NODE", options.node == "interleave" ? "" : options.node);
  set_variable("EXTMEM_SIZE", options.size);
  set_variable("EXTMEM_LIMIT", options.limit);
  set_variable("EXTMEM_STEP", options.step);
  set_variable("EXTMEM_HEAP", options.heap);
  set_variable("EXTMEM_DOMAIN", options.domain);
  set_variable("EXTMEM_FALLBACK", options.fallback);
  if (json && options.stats == "text") throw Failure(kUsage, "--json and --stats=text contradict each other");
  set_variable("EXTMEM_STATS", json                                                   ? "json"
                               : options.stats.empty() && !options.stats_file.empty() ? "text"
                                                                                      : options.stats);
  set_variable("EXTMEM_STATS_FILE", from_here(options.stats_file));
  set_variable("EXTMEM_PREFAULT", options.prefault ? "1" : "");
  set_variable("EXTMEM_LOCK", options.lock ? "1" : "");
  set_variable("EXTMEM_TAGS", options.tags ? "1" : "");
  set_variable("EXTMEM_REPORT", fmt::format("{}{}", options.quiet ? '-' : '+', ::getpid()));
  const char* variable = "";
  preload::Settings settings;
  if (const auto read = preload::read_settings(settings, &variable); !read) {
    throw Failure(kUsage, fmt::format("{}: {}", option_of(variable), read.error().message()),
                  read.error().code());
  }
  keep_what_is_there(settings);
  if (settings.stats_file[0] != '\0') check_writable(settings.stats_file, "the statistics", "--stats-file");
  program.preload("libextmem-preload.so");
  program.become();
}

}  // namespace

void add_run_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("run", "Run a program with all its memory on a heap");
  command->footer(
      "Everything that PROGRAM and its libraries allocate (malloc, operator new, ...) comes from one heap on "
      "the memory "
      "that\n--backing names. Children inherit that, each with a heap of its own. Private memory (anon, thp, "
      "hugetlb) is "
      "copied by\nfork as ever; other memory at once, while fork waits. With --domain fork fails, with the "
      "reason."
      "\n\nExit codes: the program's own; 2 the options make no sense, 3 the memory cannot be had,\n"
      "126 the program cannot be run so, 127 it was not found.\n");
  auto o = std::make_shared<RunOptions>();
  command
      ->add_option("--backing", o->backing,
                   "anon, thp, hugetlb[:2M|1G], memfd, shm:/NAME, file:PATH or dax:PATH")
      ->type_name("KIND")
      ->capture_default_str();
  command->add_option("--node", o->node, "NUMA node to take the memory from, or interleave")->type_name("N");
  command->add_option("--size", o->size, "Memory taken at the start (default: one step)")->type_name("SIZE");
  command->add_option("--limit", o->limit, "Most memory; beyond it malloc answers ENOMEM (default: none)")
      ->type_name("SIZE");
  command->add_option("--step", o->step, "Memory taken when the heap is full (default: 64M, hugepages 16M)")
      ->type_name("SIZE");
  command->add_flag("--prefault", o->prefault, "Bring every page in when memory is taken");
  command->add_flag("--lock", o->lock, "Lock the memory (mlock)");
  command->add_option("--heap", o->heap, "The heap's name")->type_name("HEAP")->capture_default_str();
  command
      ->add_option("--domain", o->domain, "Put the heap into this domain, where other processes can see it")
      ->type_name("DOMAIN");
  command->add_option("--fallback", o->fallback, "When hugepages cannot be had: none (fail), thp or anon")
      ->check(CLI::IsMember({"none", "thp", "anon"}))
      ->capture_default_str();
  command->add_flag("--stats{text}", o->stats, "Statistics at exit: --stats, or --stats=json")
      ->check(CLI::IsMember({"text", "json"}));
  command->add_option("--stats-file", o->stats_file, "Where the statistics go (default: standard error)")
      ->type_name("FILE");
  command->add_flag("--tags", o->tags, "Count memory by the library that allocates it (slower)");
  command->add_flag("--quiet", o->quiet, "Do not say at the start which memory was taken");
  command->add_option("program", o->program, "The program and its arguments, after --")
      ->type_name("PROGRAM ARGS...");
  command->positionals_at_end();
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console&) { return run(*o, shell->json); });
}

}  // namespace extmem::cli
