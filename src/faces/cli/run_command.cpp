// `extmem run`: any program on a named heap. It sets what the preload library reads (src/faces/preload/settings.hpp) and
// becomes the program.
#include <elf.h>
#include <fcntl.h>
#include <fmt/core.h>
#include <linux/mempolicy.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "extmem/domain.hpp"
#include "faces/cli/commands.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/preload/settings.hpp"

namespace extmem::cli {

namespace {

// As env(1) and the shells say it.
constexpr int kCannotExecute = 126;
constexpr int kNotFound = 127;

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

int complain(int code, const std::string& what) {
  fmt::print(stderr, "extmem run: {}\n", what);
  return code;
}

/// The library lies beside the command: in the build tree, and where both were installed.
std::string find_library() {
  if (const char* given = std::getenv("EXTMEM_PRELOAD_LIBRARY"); given != nullptr && *given != '\0')
    return given;
  std::error_code error;
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const auto prefix = self.parent_path().parent_path();
  for (const char* folder : {"lib", EXTMEM_LIBDIR}) {
    const auto library = prefix / folder / "libextmem-preload.so";
    if (std::filesystem::exists(library, error)) return library.string();
  }
  return {};
}

/// Where execvp would find the program, or empty.
std::string find_program(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  const char* path = std::getenv("PATH");
  std::istringstream folders(path != nullptr ? path : "/usr/bin:/bin");
  for (std::string folder; std::getline(folders, folder, ':');) {
    const std::string candidate = (folder.empty() ? "." : folder) + "/" + name;
    if (::access(candidate.c_str(), X_OK) == 0 && !std::filesystem::is_directory(candidate)) return candidate;
  }
  return {};
}

/// Why the loader would not preload anything into this program; empty: it would, or this is no ELF file (a script's
/// interpreter is looked at by nobody).
std::string why_not_preloaded(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) == 0 && (status.st_mode & (S_ISUID | S_ISGID)) != 0 && ::geteuid() != 0)
    return "it is set-user-ID: the loader preloads nothing into it";
  std::ifstream file(path, std::ios::binary);
  Elf64_Ehdr header{};
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return {};
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return {};
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64)
    return "it is of another architecture than this library";
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + std::uint64_t{i} * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return {};
    if (segment.p_type == PT_INTERP) return {};
  }
  return "it is statically linked: nothing can be preloaded into it";
}

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

void set(const char* name, const std::string& value) {
  if (value.empty()) {
    ::unsetenv(name);
  } else {
    ::setenv(name, value.c_str(), 1);
  }
}

/// EXTMEM_STATS_FILE -> --stats-file
std::string option_of(std::string variable) {
  variable.replace(0, std::strlen("EXTMEM_"), "--");
  for (char& c : variable)
    c = c == '_' ? '-' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return variable;
}

int run(const RunOptions& options) {
  if (options.program.empty())
    return complain(kUsage, "say which program: extmem run [options] -- PROGRAM ARGS...");
  const std::string library = find_library();
  if (library.empty()) {
    return complain(
        kImpossible,
        "libextmem-preload.so is not beside this command; set EXTMEM_PRELOAD_LIBRARY to where it is");
  }
  const std::string path = find_program(options.program[0]);
  if (path.empty()) return complain(kNotFound, options.program[0] + ": no such program in PATH");
  if (const std::string why = why_not_preloaded(path); !why.empty())
    return complain(kCannotExecute, path + ": " + why);
  if (options.node == "interleave") {
    if (const int failed = interleave(); failed != 0)
      return complain(kImpossible,
                      fmt::format("cannot interleave over the NUMA nodes: {}", std::strerror(failed)));
  }
  set("EXTMEM_BACKING", options.backing);
  set("EXTMEM_NODE", options.node == "interleave" ? "" : options.node);
  set("EXTMEM_SIZE", options.size);
  set("EXTMEM_LIMIT", options.limit);
  set("EXTMEM_STEP", options.step);
  set("EXTMEM_HEAP", options.heap);
  set("EXTMEM_DOMAIN", options.domain);
  set("EXTMEM_FALLBACK", options.fallback);
  set("EXTMEM_STATS", options.stats);
  set("EXTMEM_STATS_FILE", options.stats_file);
  set("EXTMEM_PREFAULT", options.prefault ? "1" : "");
  set("EXTMEM_LOCK", options.lock ? "1" : "");
  set("EXTMEM_TAGS", options.tags ? "1" : "");
  set("EXTMEM_REPORT", fmt::format("{}{}", options.quiet ? '-' : '+', ::getpid()));
  const char* variable = "";
  preload::Settings settings;
  if (const auto read = preload::read_settings(settings, &variable); !read) {
    return complain(kUsage, fmt::format("{}: {}", option_of(variable), read.error().message()));
  }
  const char* others = std::getenv("LD_PRELOAD");
  set("LD_PRELOAD", others != nullptr && *others != '\0' ? library + ":" + others : library);
  std::vector<char*> arguments;
  for (const std::string& argument : options.program)
    arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  const int failed = errno;
  return complain(failed == ENOENT ? kNotFound : kCannotExecute,
                  fmt::format("{}: {}", options.program[0], std::strerror(failed)));
}

}  // namespace

void add_run_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("run", "Run a program with all its memory on a heap");
  command->footer(
      "Everything that PROGRAM and its libraries allocate (malloc, operator new, ...) comes from one heap on "
      "the memory "
      "that\n--backing names. Children inherit that, each with a heap of its own. Private memory (anon, thp, "
      "hugetlb) is "
      "copied by\nfork as ever; with memfd, shm:, file:, dax: or --domain fork fails, with the reason: the "
      "child would "
      "share it.\n\nExit codes: the program's own; 2 the options make no sense, 3 the memory cannot be had,\n"
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
  command->add_option("--heap", o->heap, "The heap's name")->type_name("NAME")->capture_default_str();
  command
      ->add_option("--domain", o->domain, "Put the heap into this domain, where other processes can see it")
      ->type_name("NAME");
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
  command->callback([o, &exit_code] { exit_code = run(*o); });
}

}  // namespace extmem::cli
