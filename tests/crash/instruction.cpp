#include "crash/instruction.hpp"

#include <sys/ptrace.h>
#include <sys/user.h>

#include <cerrno>
#include <cstddef>
#include <cstring>

namespace extmem::crash {

// The opcode maps of "Intel 64 and IA-32 Architectures Software Developer's Manual", volume 2, appendix A: those that compilers
// write most, by what they may write to.
bool stores_nothing(const unsigned char (&code)[16]) noexcept {
  std::size_t at = 0;
  while (at < 4 && (code[at] == 0x66 || code[at] == 0xf2 || code[at] == 0xf3)) ++at;
  if ((code[at] & 0xf0) == 0x40) ++at;  // REX
  const unsigned op = code[at];
  const unsigned next = code[at + 1];  // ModRM, mostly
  const bool to_register = next >= 0xc0;
  const unsigned extension = next >> 3 & 7;
  if (op == 0x0f) {
    const unsigned modrm = code[at + 2];
    if ((next & 0xf0) == 0x80 || (next & 0xf0) == 0x40) return true;  // conditional jumps and moves
    if ((next & 0xf0) == 0x90) return modrm >= 0xc0;                  // setcc
    switch (next) {
      case 0x10:  // loads of vectors
      case 0x28:
      case 0x6e:
      case 0x6f:
      case 0x1e:  // endbr64, nop
      case 0x1f:
      case 0x57:  // xorps, pxor
      case 0xef:
      case 0xa3:  // bt
      case 0xaf:  // imul
      case 0xb6:  // movzx, movsx
      case 0xb7:
      case 0xbe:
      case 0xbf:
      case 0xb8:  // popcnt
      case 0xbc:  // bsf, bsr
      case 0xbd:
        return true;
      default:
        return false;
    }
  }
  if (op < 0x40) {  // add, or, adc, sbb, and, sub, xor, cmp
    if ((op & 7) > 5) return false;
    return op >= 0x38 || (op & 7) >= 2 || to_register;
  }
  if (op >= 0x50 && op < 0x60) return true;  // push, pop
  if (op >= 0x70 && op < 0x80) return true;  // conditional jumps
  if (op >= 0xb0 && op < 0xc0) return true;  // constants to registers
  switch (op) {
    case 0x63:  // movsxd
    case 0x68:  // push
    case 0x6a:
    case 0x69:  // imul
    case 0x6b:
    case 0x84:  // test
    case 0x85:
    case 0xa8:
    case 0xa9:
    case 0x8a:  // mov to a register
    case 0x8b:
    case 0x8d:  // lea
    case 0x90:  // nop
    case 0x98:  // sign extension
    case 0x99:
    case 0xc3:  // ret, leave, call, jmp
    case 0xc9:
    case 0xe8:
    case 0xe9:
    case 0xeb:
      return true;
    case 0x80:
    case 0x81:
    case 0x83:
      return to_register || extension == 7;  // cmp
    case 0x88:
    case 0x89:
    case 0xc0:
    case 0xc1:
    case 0xc6:
    case 0xc7:
    case 0xd0:
    case 0xd1:
    case 0xd2:
    case 0xd3:
      return to_register;
    case 0xf6:
    case 0xf7:
      return to_register || extension == 0;  // test
    case 0xff:
      return to_register || extension == 2 || extension == 4 || extension == 6;  // call, jmp, push
    default:
      return false;
  }
}

bool NextInstruction::stores_nothing_in(pid_t pid) {
#if defined(__x86_64__)
  const std::size_t where = offsetof(user, regs) + offsetof(user_regs_struct, rip);
  errno = 0;
  const auto address = static_cast<std::uint64_t>(::ptrace(PTRACE_PEEKUSER, pid, where, nullptr));
  if (errno != 0) return false;
  if (const auto found = known_.find(address); found != known_.end()) return found->second;
  unsigned char code[16];
  for (std::size_t i = 0; i < 2; ++i) {
    errno = 0;
    const long word = ::ptrace(PTRACE_PEEKTEXT, pid, address + i * 8, nullptr);
    if (errno != 0) return false;
    std::memcpy(code + i * 8, &word, 8);
  }
  const bool nothing = stores_nothing(code);
  known_.emplace(address, nothing);
  return nothing;
#else
  (void)pid;
  return false;
#endif
}

}  // namespace extmem::crash
