// What a companion does to its own surroundings: descriptors, limits, what is mounted. No other process notices.
#pragma once

#include <istream>
#include <string>

namespace extmem::test {

/// Closes every descriptor from 3 on, and opens `count` new files of a folder in their place.
std::string replace_descriptors(std::istream& in);
/// Bytes of all those files together.
std::string replaced_bytes(std::istream& in);
/// "files N" or "file_size N": sets that limit.
std::string limit(std::istream& in);
/// From now on there is an empty folder where /proc was.
std::string without_proc(std::istream& in);
/// From now on a folder has another path, and nothing that was made before has its old one.
std::string move_folder(std::istream& in);
std::string change_root(std::istream& in);

}  // namespace extmem::test
