// Whether the loader would preload a library of ours into a program.
#pragma once

#include <string>

namespace extmem::cli {

/// Why the loader would preload nothing into this program, or into the interpreter of this script; empty: it would, or execve
/// itself will say what is wrong.
std::string why_not_preloaded(const std::string& path);

}  // namespace extmem::cli
