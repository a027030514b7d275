// Which instructions change no shared memory: a sweep need not look for a change after them.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <unordered_map>

namespace extmem::crash {

/// Whether an instruction is known to store nowhere but on its stack. `code`: its bytes, and what follows. In doubt false; so of any
/// other processor than x86-64.
bool stores_nothing(const unsigned char (&code)[16]) noexcept;

/// The same of the next instruction of stopped, traced processes, which run code that does not change.
class NextInstruction {
 public:
  [[nodiscard]] bool stores_nothing_in(pid_t pid);

 private:
  std::unordered_map<std::uint64_t, bool> known_;  // by its address
};

}  // namespace extmem::crash
