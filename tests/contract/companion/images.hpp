// What the companion turns itself or a child into, and the second copy of the library that it loads.
#pragma once

#include <istream>
#include <string>

namespace extmem::test {

/// exec direct|shell|subshell: this process becomes the companion anew, which answers and reads the commands that follow.
std::string become_anew(std::istream& in);
/// child fork|vfork|spawn: a child becomes a companion, which answers and reads the commands that follow; once it has ended, this
/// process answers, too.
std::string have_child(std::istream& in);
/// copy_open NAME DIRECTORY: opens the domain by the shared library, of which this program knows nothing.
std::string open_by_copy(std::istream& in);
/// copy_hold HEAP COUNT: allocates that many objects in that copy.
std::string hold_by_copy(std::istream& in);
std::string close_by_copy(std::istream& in);

}  // namespace extmem::test
