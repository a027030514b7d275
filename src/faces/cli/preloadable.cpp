// What the loader looks at: the file is dynamically linked, of this architecture, and execve gives the process no rights that
// its caller has not (then AT_SECURE is set, and LD_PRELOAD ignored).
#include "faces/cli/preloadable.hpp"

#include <elf.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

namespace extmem::cli {

namespace {

/// The interpreter of a script; empty: it is none.
std::string interpreter_of(const std::string& path) {
  constexpr std::size_t kMostOfLine = 256;  // BINPRM_BUF_SIZE
  std::ifstream file(path, std::ios::binary);
  std::string line(kMostOfLine, '\0');
  file.read(line.data(), static_cast<std::streamsize>(line.size()));
  line.resize(static_cast<std::size_t>(file.gcount()));
  if (line.compare(0, 2, "#!") != 0) return {};
  line.resize(std::min(line.size(), line.find('\n')));
  const auto begin = line.find_first_not_of(" \t", 2);
  if (begin == std::string::npos) return {};
  return line.substr(begin, line.find_first_of(" \t", begin) - begin);
}

/// As the kernel sees it in execve: whether the file gives rights, and is heeded.
std::string why_secure(const std::string& path) {
  struct stat status {};
  struct statvfs mount {};
  if (::stat(path.c_str(), &status) != 0 || ::statvfs(path.c_str(), &mount) != 0) return {};
  if ((mount.f_flag & ST_NOSUID) != 0 || ::prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) == 1) return {};
  if ((status.st_mode & S_ISUID) != 0 && status.st_uid != ::getuid())
    return "it is set-user-ID: the loader preloads nothing into it";
  constexpr mode_t kGroup = S_ISGID | S_IXGRP;
  if ((status.st_mode & kGroup) == kGroup && status.st_gid != ::getgid())
    return "it is set-group-ID: the loader preloads nothing into it";
  vfs_ns_cap_data capabilities{};
  if (::getuid() != 0 &&
      ::getxattr(path.c_str(), "security.capability", &capabilities, sizeof capabilities) > 0)
    return "it has file capabilities: the loader preloads nothing into it";
  return {};
}

}  // namespace

std::string why_not_preloaded(const std::string& path) {
  constexpr int kMostInterpreters = 5;  // an interpreter may be a script; beyond this execve answers ELOOP
  std::string binary = path;
  for (int i = 0; i < kMostInterpreters; ++i) {
    std::string interpreter = interpreter_of(binary);
    if (interpreter.empty()) break;
    binary = std::move(interpreter);
  }
  const std::string of = binary == path ? "" : "its interpreter " + binary + ": ";
  if (const std::string why = why_secure(binary); !why.empty()) return of + why;
  std::ifstream file(binary, std::ios::binary);
  Elf64_Ehdr header{};
  if (!file.read(reinterpret_cast<char*>(&header), sizeof header)) return {};
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0) return {};
  if (header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_machine != EM_X86_64)
    return of + "it is of another architecture than this library";
  for (unsigned i = 0; i < header.e_phnum; ++i) {
    Elf64_Phdr segment{};
    file.seekg(static_cast<std::streamoff>(header.e_phoff + std::uint64_t{i} * header.e_phentsize));
    if (!file.read(reinterpret_cast<char*>(&segment), sizeof segment)) return {};
    if (segment.p_type == PT_INTERP) return {};
  }
  return of + "it is statically linked: nothing can be preloaded into it";
}

}  // namespace extmem::cli
