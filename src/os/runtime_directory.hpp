// Which folder named domains are in where nobody says: $EXTMEM_RUNTIME_DIR, else $XDG_RUNTIME_DIR/extmem if
// $XDG_RUNTIME_DIR is a folder on a tmpfs (in containers and under sudo it often is none), else /dev/shm/extmem-UID.
#pragma once

#include <sys/vfs.h>

#include "os/kernel_text.hpp"

namespace extmem::os {

/// Whether that is a file system in memory.
bool is_tmpfs(const struct statfs& status) noexcept;
/// The path, which need not exist; not ok() where it is too long. The environment of a setuid program does not count.
Path default_runtime_directory() noexcept;

}  // namespace extmem::os
