#include "os/runtime_directory.hpp"

#include <linux/magic.h>
#include <unistd.h>

#include <cstdlib>

namespace extmem::os {

bool is_tmpfs(const struct statfs& status) noexcept {
  return status.f_type == TMPFS_MAGIC || status.f_type == RAMFS_MAGIC;
}

Path default_runtime_directory() noexcept {
  const auto from_environment = [](const char* name) {
    const char* value = ::secure_getenv(name);
    return value != nullptr && value[0] != '\0' ? value : nullptr;
  };
  Path path;
  struct statfs status {};
  if (const char* own = from_environment("EXTMEM_RUNTIME_DIR"); own != nullptr) {
    path.add(own);
  } else if (const char* xdg = from_environment("XDG_RUNTIME_DIR");
             xdg != nullptr && ::statfs(xdg, &status) == 0 && is_tmpfs(status)) {
    path.add(xdg).add("/extmem");
  } else {
    path.add("/dev/shm/extmem-").add(std::uint64_t{::geteuid()});
  }
  return path;
}

}  // namespace extmem::os
