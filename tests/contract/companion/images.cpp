#include "contract/companion/images.hpp"

#include <dlfcn.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "extmem/extmem.h"
#include "extmem/extmem_process.h"

extern char** environ;

namespace extmem::test {

namespace {

const char* const kSelf = EXTMEM_COMPANION;

std::string refused(int code) { return "error " + std::to_string(code) + " " + std::strerror(code); }

/// A function of the library that was loaded beside the one that is linked.
template <typename Function>
Function* of_copy(const char* name) {
  static void* const library = ::dlopen(EXTMEM_SHARED_LIBRARY, RTLD_NOW | RTLD_LOCAL);
  return library == nullptr ? nullptr : reinterpret_cast<Function*>(::dlsym(library, name));
}
#define OF_COPY(function) of_copy<decltype(function)>(#function)

extmem_domain_t* copys_domain = nullptr;

}  // namespace

std::string become_anew(std::istream& in) {
  std::string how;
  in >> how;
  if (how == "direct") ::execl(kSelf, kSelf, "anew", nullptr);
  if (how == "shell") ::execl("/bin/sh", "sh", "-c", "exec \"$0\" anew", kSelf, nullptr);
  if (how == "subshell") ::execl("/bin/sh", "sh", "-c", "\"$0\" anew; true", kSelf, nullptr);
  return refused(errno);
}

std::string have_child(std::istream& in) {
  std::string how;
  in >> how;
  pid_t child = -1;
  char* const arguments[] = {const_cast<char*>(kSelf), const_cast<char*>("anew"), nullptr};
  if (how == "spawn") {
    const int failed = ::posix_spawn(&child, kSelf, nullptr, nullptr, arguments, environ);
    if (failed != 0) return refused(failed);
  } else {
    child = how == "fork" ? ::fork() : ::vfork();
    if (child == 0) {
      ::execv(kSelf, arguments);
      ::_exit(127);
    }
  }
  int status = 0;
  if (child < 0 || ::waitpid(child, &status, 0) != child) return refused(errno);
  return "ok " + std::to_string(status);
}

std::string open_by_copy(std::istream& in) {
  std::string name, directory;
  in >> name >> directory;
  auto* const open = OF_COPY(extmem_domain_open);
  auto* const participant = OF_COPY(extmem_domain_get_participant);
  if (open == nullptr || participant == nullptr || open == &extmem_domain_open)
    return std::string("error 1 no second copy: ") + ::dlerror();
  extmem_open_options_t options{};
  options.struct_size = sizeof options;
  options.directory = directory.c_str();
  options.mode = EXTMEM_OPEN_EXISTING;
  if (const int failed = open(name.c_str(), &options, &copys_domain); failed < 0) return refused(-failed);
  std::uint32_t number = 0;
  if (const int failed = participant(copys_domain, &number); failed < 0) return refused(-failed);
  return "ok " + std::to_string(number);
}

std::string hold_by_copy(std::istream& in) {
  std::string name;
  std::size_t count = 0;
  in >> name >> count;
  extmem_heap_t heap{};
  if (const int failed = OF_COPY(extmem_heap_find)(copys_domain, name.c_str(), &heap); failed < 0)
    return refused(-failed);
  for (; count != 0; --count) {
    void* p = OF_COPY(extmem_malloc)(heap, 100);
    if (p == nullptr) return refused(ENOMEM);
  }
  return "ok";
}

std::string close_by_copy(std::istream&) {
  const int failed = OF_COPY(extmem_domain_close)(copys_domain);
  return failed < 0 ? refused(-failed) : "ok";
}

}  // namespace extmem::test
