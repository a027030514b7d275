#include "faces/cli/program.hpp"

#include <fcntl.h>
#include <fmt/core.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <sstream>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/preloadable.hpp"
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

void check_writable(const std::string& path, const char* what, const char* option) {
  constexpr int kFlags = O_WRONLY | O_CLOEXEC | O_NONBLOCK;
  int fd = ::open(path.c_str(), kFlags | O_CREAT | O_EXCL, 0644);
  if (fd >= 0) {
    ::unlink(path.c_str());
  } else if (errno == EEXIST) {
    fd = ::open(path.c_str(), kFlags);
  }
  if (fd < 0)
    throw Failure(kImpossible,
                  fmt::format("cannot write {} to {}: {}; say where it goes with {} FILE", what, clean(path),
                              std::strerror(errno), option),
                  errno);
  ::close(fd);
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
    if (library.find_first_of(" :") != std::string::npos) {
      throw Failure(
          kImpossible,
          clean(library) +
              ": LD_PRELOAD cannot name a path with a space or a colon in it; set EXTMEM_LIBRARY_PATH to a "
              "link to its folder whose path has none");
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
