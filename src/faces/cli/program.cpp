#include "faces/cli/program.hpp"

#include <elf.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/shell.hpp"

namespace extmem::cli {

namespace {

// As env(1) and the shells say it.
constexpr int kCannotExecute = 126;
constexpr int kNotFound = 127;

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

}  // namespace

void set_variable(const char* name, const std::string& value) {
  if (value.empty()) {
    ::unsetenv(name);
  } else {
    ::setenv(name, value.c_str(), 1);
  }
}

std::string from_here(const std::string& path) {
  std::error_code error;
  if (path.empty() || path.front() == '/') return path;
  const auto folder = std::filesystem::current_path(error);
  return error ? path : (folder / path).string();
}

std::string find_library(const std::string& name) {
  std::error_code error;
  if (const char* folder = std::getenv("EXTMEM_LIBRARY_PATH"); folder != nullptr && *folder != '\0') {
    const auto library = std::filesystem::path(folder) / name;
    return std::filesystem::exists(library, error) ? library.string() : std::string();
  }
  const auto self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) return {};
  const auto prefix = self.parent_path().parent_path();
  for (const char* folder : {"lib", EXTMEM_LIBDIR}) {
    const auto library = prefix / folder / name;
    if (std::filesystem::exists(library, error)) return library.string();
  }
  return {};
}

void Program::become() const {
  if (words_.empty())
    throw Failure(kUsage, fmt::format("say which program: extmem {} [options] -- PROGRAM ARGS...", command_));
  std::string preload;
  for (const std::string& name : libraries_) {
    const std::string library = name.find('/') != std::string::npos ? name : find_library(name);
    if (library.empty()) {
      throw Failure(kImpossible,
                    name + " is not beside this command; set EXTMEM_LIBRARY_PATH to the folder where it is");
    }
    preload += (preload.empty() ? "" : ":") + library;
  }
  const std::string path = find_program(words_[0]);
  if (path.empty()) throw Failure(kNotFound, words_[0] + ": no such program in PATH", ENOENT);
  if (const std::string why = why_not_preloaded(path); !why.empty())
    throw Failure(kCannotExecute, path + ": " + why);
  if (const char* others = std::getenv("LD_PRELOAD"); others != nullptr && *others != '\0')
    preload += std::string(preload.empty() ? "" : ":") + others;
  set_variable("LD_PRELOAD", preload);
  std::vector<char*> arguments;
  for (const std::string& word : words_) arguments.push_back(const_cast<char*>(word.c_str()));
  arguments.push_back(nullptr);
  ::execvp(arguments[0], arguments.data());
  const int failed = errno;
  throw Failure(failed == ENOENT ? kNotFound : kCannotExecute,
                fmt::format("{}: {}", words_[0], std::strerror(failed)), failed);
}

}  // namespace extmem::cli
