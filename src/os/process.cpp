#include "os/process.hpp"

#include <linux/capability.h>
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <optional>
#include <string_view>

#include "base/error.hpp"
#include "base/siphash.hpp"
#include "os/descriptor.hpp"
#include "os/errno_keeper.hpp"
#include "os/kernel_text.hpp"

namespace extmem::os {
namespace {

constexpr int kStartTimeField = 22;  // of /proc/PID/stat, counted from 1
constexpr int kFieldAfterName = 3;

bool has_capability(unsigned capability) noexcept {
  const ErrnoKeeper keeper;
  __user_cap_header_struct header{_LINUX_CAPABILITY_VERSION_3, 0};
  std::array<__user_cap_data_struct, _LINUX_CAPABILITY_U32S_3> data{};
  if (::syscall(SYS_capget, &header, data.data()) != 0) return false;
  return (data[capability / 32].effective >> (capability % 32) & 1U) != 0;
}

std::optional<std::uint8_t> hex_digit(char c) noexcept {
  if (c >= '0' && c <= '9') return static_cast<std::uint8_t>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<std::uint8_t>(c - 'a' + 10);
  return std::nullopt;
}

}  // namespace

bool has_cap_sys_admin() noexcept { return has_capability(CAP_SYS_ADMIN); }

bool has_cap_ipc_lock() noexcept { return has_capability(CAP_IPC_LOCK); }

Result<BootId> boot_id() noexcept {
  std::array<char, 64> buffer;
  const auto text = read_text("/proc/sys/kernel/random/boot_id", buffer);
  if (!text) {
    return EXTMEM_SYS_ERROR(errno, "cannot read /proc/sys/kernel/random/boot_id: mount /proc");
  }
  BootId id{};
  std::size_t digits = 0;
  for (const char c : *text) {
    const auto digit = hex_digit(c);
    if (!digit) continue;  // dashes, the end of the line
    if (digits == 2 * id.size()) {
      ++digits;
      break;
    }
    id[digits / 2] = static_cast<std::uint8_t>(id[digits / 2] << 4 | *digit);
    ++digits;
  }
  if (digits != 2 * id.size()) {
    return EXTMEM_ERROR(EIO, "/proc/sys/kernel/random/boot_id does not hold 32 hexadecimal digits");
  }
  return id;
}

std::uint64_t random_number() noexcept {
  const ErrnoKeeper keeper;
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof number, GRND_NONBLOCK) == sizeof number) return number;
  std::timespec now{};  // a machine that is just booting
  (void)::clock_gettime(CLOCK_MONOTONIC, &now);
  const auto ns =
      static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 + static_cast<std::uint64_t>(now.tv_nsec);
  return (ns << 20 ^ static_cast<std::uint64_t>(::getpid())) * 0x9e3779b97f4a7c15u;
}

Result<std::uint64_t> process_start_time(std::uint32_t pid) noexcept {
  std::array<char, 1024> buffer;
  const auto text = read_text(Path("/proc/").add(std::uint64_t{pid}).add("/stat").c_str(), buffer);
  if (!text) {
    if (errno == ENOENT || errno == ESRCH) {
      return EXTMEM_ERROR(ESRCH, "no process has that number (or /proc is not mounted, or hides it)");
    }
    return EXTMEM_SYS_ERROR(errno, "cannot read the start time of a process from /proc");
  }
  // The second field is the program's name in brackets, and may hold blanks and brackets itself.
  std::string_view rest = *text;
  const std::size_t name_end = rest.rfind(')');
  if (name_end == std::string_view::npos) return EXTMEM_ERROR(EIO, "/proc/PID/stat is not as expected");
  rest.remove_prefix(name_end + 1);
  for (int field = kFieldAfterName; field <= kStartTimeField; ++field) {
    const std::size_t start = rest.find_first_not_of(' ');
    if (start == std::string_view::npos) break;
    rest.remove_prefix(start);
    if (field == kStartTimeField) {
      if (const auto ticks = take_number(rest)) return *ticks;
      break;
    }
    const std::size_t end = rest.find(' ');
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end);
  }
  return EXTMEM_ERROR(EIO, "/proc/PID/stat is not as expected");
}

std::uint64_t program_image() noexcept {
  const ErrnoKeeper keeper;
  // 16 random bytes, which the kernel makes anew at each exec. The C library makes its secrets of them (the stack's guard), and
  // what we return is read by others: so a hash of which they are the key.
  const auto* bytes = reinterpret_cast<const void*>(::getauxval(AT_RANDOM));
  if (bytes == nullptr) return 0;
  std::array<std::uint64_t, 2> key;
  std::memcpy(key.data(), bytes, sizeof key);
  if (key[0] == 0 && key[1] == 0) return 0;
  return base::siphash(key[0], key[1], 0x6567616d69'6d7865u);  // "exmimage"
}

std::uint32_t pid_namespace() noexcept {
  const ErrnoKeeper keeper;
  struct stat status {};
  if (::stat("/proc/self/ns/pid", &status) != 0) return 0;
  return static_cast<std::uint32_t>(status.st_ino ^ status.st_ino >> 32);
}

void process_name(char (&name)[16]) noexcept {
  const ErrnoKeeper keeper;
  if (::prctl(PR_GET_NAME, &name) != 0) name[0] = '\0';
}

bool process_is_zombie(std::uint32_t pid) noexcept {
  const ErrnoKeeper keeper;
  std::array<char, 1024> buffer;
  const auto text = read_text(Path("/proc/").add(std::uint64_t{pid}).add("/stat").c_str(), buffer);
  if (!text) return false;
  const std::size_t name_end = text->rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 >= text->size()) return false;
  const char state = (*text)[name_end + 2];
  return state == 'Z' || state == 'X';
}

bool process_is_gone(std::uint32_t pid) noexcept {
  const ErrnoKeeper keeper;
  return static_cast<pid_t>(pid) <= 0 || (::kill(static_cast<pid_t>(pid), 0) != 0 && errno == ESRCH);
}

bool process_maps_file(std::uint32_t pid, std::uint64_t device, std::uint64_t inode) noexcept {
  const ErrnoKeeper keeper;
  const Descriptor maps =
      Descriptor::open_to_read(Path("/proc/").add(std::uint64_t{pid}).add("/maps").c_str());
  if (!maps.is_open()) return errno != ENOENT && errno != ESRCH;
  // "address perms offset dev inode path": the fourth and fifth field of each line.
  std::array<char, 4096> buffer;
  std::uint64_t device_major = 0, device_minor = 0, number = 0;
  int field = 0;
  bool second_half = false;
  bool empty = true;
  for (;;) {
    const ssize_t got = ::read(maps.get(), buffer.data(), buffer.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno != ESRCH;
    if (got == 0) return empty;
    empty = false;
    for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(got))) {
      if (c == '\n') {
        if (number == inode && device_major == major(device) && device_minor == minor(device)) return true;
        field = 0;
        device_major = device_minor = number = 0;
        second_half = false;
      } else if (c == ' ') {
        ++field;
      } else if (field == 3) {
        if (c == ':') {
          second_half = true;
        } else if (const auto digit = hex_digit(c); digit) {
          std::uint64_t& part = second_half ? device_minor : device_major;
          part = part << 4 | *digit;
        }
      } else if (field == 4 && c >= '0' && c <= '9') {
        number = number * 10 + static_cast<std::uint64_t>(c - '0');
      }
    }
  }
}

ThreadActivity thread_activity(std::uint32_t pid, std::uint32_t thread) noexcept {
  const ErrnoKeeper keeper;
  ThreadActivity activity;
  std::array<char, 4096> buffer;
  const auto text = read_text(
      Path("/proc/").add(std::uint64_t{pid}).add("/task/").add(std::uint64_t{thread}).add("/status").c_str(),
      buffer);
  if (!text) {
    activity.gone = errno == ENOENT || errno == ESRCH;
    activity.known = activity.gone;
    return activity;
  }
  constexpr std::string_view kState = "\nState:\t";
  const std::size_t at = text->find(kState);
  const auto voluntary = number_after(*text, "voluntary_ctxt_switches:");
  const auto forced = number_after(*text, "nonvoluntary_ctxt_switches:");
  if (at == std::string_view::npos || at + kState.size() >= text->size() || !voluntary || !forced)
    return activity;
  const char state = (*text)[at + kState.size()];
  activity.known = true;
  activity.gone = state == 'Z' || state == 'X';
  activity.asleep = state == 'S' || state == 'D' || state == 'T' || state == 't';
  activity.switches = *voluntary + *forced;
  return activity;
}

}  // namespace extmem::os
