// The options of rte_eal_init(): the table, and one function that takes them in turn.
#include "faces/dpdk/options.hpp"

#include <getopt.h>
#include <rte_log.h>
#include <rte_uuid.h>
#include <strings.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>

#include "faces/dpdk/log.hpp"

namespace extmem::dpdk {
namespace {

// Long options count from here, short ones are their letters.
enum Option : int {
  kFirst = 256,
  kBaseVirtaddr,
  kCreateUioDev,
  kFilePrefix,
  kHugeDir,
  kHugeUnlink,
  kHugeWorkerStack,
  kInMemory,
  kIovaMode,
  kLcores,
  kLegacyMem,
  kLogLevel,
  kMainLcore,
  kMatchAllocations,
  kMbufPoolOps,
  kNoHuge,
  kNoShconf,
  kProcType,
  kSingleFileSegments,
  kSocketLimit,
  kSocketMem,
  kSyslog,
  kTraceBufsz,
  kTraceMode,
  kVdev,
  kVfioIntr,
  kVfioVfToken,
  kSimdBitwidth,
  kNoMeaning,  // taken, with its value if it has one, and nothing more
};

constexpr const char* kShortOptions = "a:b:c:d:hl:m:n:r:s:S:v";

constexpr option kLongOptions[] = {
    {"allow", required_argument, nullptr, 'a'},
    {"base-virtaddr", required_argument, nullptr, kBaseVirtaddr},
    {"block", required_argument, nullptr, 'b'},
    {"create-uio-dev", no_argument, nullptr, kCreateUioDev},
    {"file-prefix", required_argument, nullptr, kFilePrefix},
    {"force-max-simd-bitwidth", required_argument, nullptr, kSimdBitwidth},
    {"help", no_argument, nullptr, 'h'},
    {"huge-dir", required_argument, nullptr, kHugeDir},
    {"huge-unlink", optional_argument, nullptr, kHugeUnlink},
    {"huge-worker-stack", optional_argument, nullptr, kHugeWorkerStack},
    {"in-memory", no_argument, nullptr, kInMemory},
    {"iova-mode", required_argument, nullptr, kIovaMode},
    {"lcores", required_argument, nullptr, kLcores},
    {"legacy-mem", no_argument, nullptr, kLegacyMem},
    {"log-level", required_argument, nullptr, kLogLevel},
    {"main-lcore", required_argument, nullptr, kMainLcore},
    {"match-allocations", no_argument, nullptr, kMatchAllocations},
    {"mbuf-pool-ops-name", required_argument, nullptr, kMbufPoolOps},
    {"no-hpet", no_argument, nullptr, kNoMeaning},
    {"no-huge", no_argument, nullptr, kNoHuge},
    {"no-pci", no_argument, nullptr, kNoMeaning},
    {"no-shconf", no_argument, nullptr, kNoShconf},
    {"no-telemetry", no_argument, nullptr, kNoMeaning},
    {"proc-type", required_argument, nullptr, kProcType},
    {"single-file-segments", no_argument, nullptr, kSingleFileSegments},
    {"socket-limit", required_argument, nullptr, kSocketLimit},
    {"socket-mem", required_argument, nullptr, kSocketMem},
    {"syslog", required_argument, nullptr, kSyslog},
    {"telemetry", no_argument, nullptr, kNoMeaning},
    {"trace", required_argument, nullptr, kNoMeaning},
    {"trace-bufsz", required_argument, nullptr, kTraceBufsz},
    {"trace-dir", required_argument, nullptr, kNoMeaning},
    {"trace-mode", required_argument, nullptr, kTraceMode},
    {"vdev", required_argument, nullptr, kVdev},
    {"vfio-intr", required_argument, nullptr, kVfioIntr},
    {"vfio-vf-token", required_argument, nullptr, kVfioVfToken},
    {"vmware-tsc-map", no_argument, nullptr, kNoMeaning},
    {nullptr, 0, nullptr, 0},
};

constexpr std::uint64_t kMebibyte = 1u << 20;

constexpr const char* kSyslogFacilities[] = {
    "auth", "cron",   "daemon", "ftp",    "kern",   "lpr",    "mail",   "news",   "syslog", "user",
    "uucp", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"};

bool one_of(const char* text, std::span<const char* const> texts) noexcept {
  for (const char* other : texts) {
    if (std::strcmp(text, other) == 0) return true;
  }
  return false;
}

// Copies a value that must be there and fit.
template <std::size_t N>
bool copy_text(std::array<char, N>& to, const char* from) noexcept {
  const std::size_t length = std::strlen(from);
  if (length == 0 || length >= N) return false;
  std::memcpy(to.data(), from, length + 1);
  return true;
}

class Parser {
 public:
  explicit Parser(CommandLine& line) noexcept : line_(line) {}

  // Takes one option. Returns: what is wrong with its value, or null.
  const char* take(int option, const char* value) noexcept {
    switch (option) {
      case 'a':
        allowed_ = true;
        return take_device(value);
      case 'b':
        blocked_ = true;
        return take_device(value);
      case 'h':
        line_.help = true;
        return nullptr;
      case 'v':
        line_.version = true;
        return nullptr;
      case 'd':
      case kNoMeaning:
        return nullptr;
      case 'c':
      case 'l':
      case 'S':
      case 's':
      case kLcores:
      case kMainLcore:
        return take_lcores(option, value);
      case 'm':
      case 'n':
      case 'r':
      case kSocketMem:
      case kSocketLimit:
      case kBaseVirtaddr:
      case kHugeUnlink:
      case kHugeDir:
        return take_memory(option, value);
      default:
        return is_flag(option) ? nullptr : take_word(option, value);
    }
  }

  [[nodiscard]] bool mem_given() const noexcept { return mem_given_; }
  [[nodiscard]] bool unlink_never() const noexcept { return unlink_never_; }

 private:
  [[nodiscard]] const char* take_device(const char* value) const noexcept {
    if (allowed_ && blocked_) return "-a (--allow) and -b (--block) do not go together";
    return is_device(value) ? nullptr : "not the address or name of a device";
  }

  bool is_flag(int option) noexcept {
    EalOptions& eal = line_.eal;
    switch (option) {
      case kNoHuge:
        return eal.no_huge = true;
      case kNoShconf:
        return eal.no_shconf = true;
      case kInMemory:
        return eal.in_memory = true;
      case kLegacyMem:
        return eal.legacy_mem = true;
      case kSingleFileSegments:
        return eal.single_file_segments = true;
      case kMatchAllocations:
        return eal.match_allocations = true;
      case kCreateUioDev:
        return eal.create_uio_dev = true;
      default:
        return false;
    }
  }

  const char* take_lcores(int option, const char* value) noexcept {
    LcoreOptions& lcores = line_.lcores;
    std::array<bool, kMaxLcores> bits{};
    if (option == kMainLcore) {
      const auto id = parse_number(value, 0);
      if (!id || *id >= kMaxLcores) return "no lcore has that number";
      lcores.main = static_cast<unsigned>(*id);
      return nullptr;
    }
    if (option == 's' || option == 'S') {
      const bool good = option == 's' ? parse_mask(value, bits) : parse_list(value, bits);
      lcores.service = bits;
      return good ? nullptr : "not a mask (-s 0xf) or list (-S 0-3) of lcores";
    }
    if (lcores.named) return "only one of -c, -l and --lcores can be given, once";
    lcores.named = true;
    if (option == kLcores) {
      return parse_lcore_map(value, lcores) ? nullptr : "not a map of lcores, such as 0-3,(4,5)@0";
    }
    if (option == 'c' ? !parse_mask(value, bits) : !parse_list(value, bits)) {
      return "not a mask (-c 0xf) or list (-l 0-3) of processors, or a number is too high";
    }
    for (unsigned id = 0; id < kMaxLcores; ++id) {
      if (!bits[id]) continue;
      lcores.wanted[id] = true;
      CPU_ZERO(&lcores.cpus[id]);
      CPU_SET(id, &lcores.cpus[id]);
    }
    return nullptr;
  }

  const char* take_memory(int option, const char* value) noexcept {
    EalOptions& eal = line_.eal;
    switch (option) {
      case 'm': {
        const auto size = parse_number(value);
        if (!size || *size > UINT64_MAX / kMebibyte) return "not a number of MiB";
        eal.memory = *size * kMebibyte;
        mem_given_ = true;
        return nullptr;
      }
      case 'n': {
        const auto number = parse_number(value);
        if (!number || *number == 0 || *number > 1024) return "not a number of memory channels";
        eal.channels = static_cast<unsigned>(*number);
        return nullptr;
      }
      case 'r': {
        const auto number = parse_number(value);
        if (!number || *number == 0 || *number > 16) return "not a number of memory ranks, 1 to 16";
        eal.ranks = static_cast<unsigned>(*number);
        return nullptr;
      }
      case kSocketMem:
        eal.has_socket_mem = true;
        return parse_socket_sizes(value, eal.socket_mem) ? nullptr : "not a list of MiB, one for each socket";
      case kSocketLimit:
        eal.has_socket_limit = true;
        return parse_socket_sizes(value, eal.socket_limit) ? nullptr
                                                           : "not a list of MiB, one for each socket";
      case kBaseVirtaddr: {
        const auto address = parse_number(std::strncmp(value, "0x", 2) == 0 ? value + 2 : value, 16);
        if (!address) return "not an address";
        eal.base_virtaddr = *address;
        return nullptr;
      }
      case kHugeUnlink:
        eal.huge_unlink = value == nullptr || std::strcmp(value, "always") == 0;
        unlink_never_ = value != nullptr && std::strcmp(value, "never") == 0;
        if (eal.huge_unlink || unlink_never_ || std::strcmp(value, "existing") == 0) return nullptr;
        return "existing, always or never is what it takes";
      default:
        return copy_text(eal.huge_dir, value) ? nullptr : "not the path of a folder";
    }
  }

  const char* take_word(int option, const char* value) noexcept {
    EalOptions& eal = line_.eal;
    const std::string_view text(value == nullptr ? "" : value);
    switch (option) {
      case kFilePrefix:
        // The name of a domain is "dpdk-" and this, and has 63 bytes at most.
        if (text.size() > 58) return "the prefix is longer than 58 bytes";
        if (text.find_first_of("%/") != std::string_view::npos) return "a prefix holds no % and no /";
        return copy_text(eal.file_prefix, value) ? nullptr : "the prefix is empty";
      case kProcType:
        eal.process = ::strcasecmp(value, "primary") == 0     ? RTE_PROC_PRIMARY
                      : ::strcasecmp(value, "secondary") == 0 ? RTE_PROC_SECONDARY
                      : ::strcasecmp(value, "auto") == 0      ? RTE_PROC_AUTO
                                                              : RTE_PROC_INVALID;
        return eal.process != RTE_PROC_INVALID ? nullptr : "primary, secondary or auto is what it takes";
      case kIovaMode:
        if (text != "pa" && text != "va") return "pa or va is what it takes";
        eal.iova_mode = text == "pa" ? RTE_IOVA_PA : RTE_IOVA_VA;
        return nullptr;
      case kLogLevel:
        line_.log_help |= text == "help";
        if (text == "help") return nullptr;
        return set_log_level(value) ? nullptr : "LEVEL, PATTERN:LEVEL or EXPRESSION,LEVEL is what it takes";
      case kMbufPoolOps:
        return copy_text(eal.mbuf_pool_ops, value) ? nullptr : "a name has 1 to 31 bytes";
      case kSyslog:
        return one_of(value, kSyslogFacilities) ? nullptr : "not a facility of syslog";
      case kTraceMode:
        return text.starts_with('o') || text.starts_with('d') ? nullptr
                                                              : "overwrite or discard is what it takes";
      case kTraceBufsz:
        return text.find_first_of("123456789") != text.npos &&
                       text.find_first_not_of("0123456789BKM") == text.npos
                   ? nullptr
                   : "not a size, such as 1M";
      case kVdev:
        return is_software_device(text) ? nullptr : "no driver of a software device has that name";
      case kVfioIntr:
        eal.vfio_intr = text == "legacy" ? RTE_INTR_MODE_LEGACY
                        : text == "msi"  ? RTE_INTR_MODE_MSI
                        : text == "msix" ? RTE_INTR_MODE_MSIX
                                         : RTE_INTR_MODE_NONE;
        return eal.vfio_intr != RTE_INTR_MODE_NONE ? nullptr : "legacy, msi or msix is what it takes";
      case kVfioVfToken:
        return rte_uuid_parse(value, eal.vfio_vf_token) == 0 ? nullptr : "not a UUID";
      case kSimdBitwidth: {
        const auto number = parse_number(text, 0);
        return number && *number <= 32768 && (*number & (*number - 1)) == 0 ? nullptr : "not a power of two";
      }
      default:  // kHugeWorkerStack: a size in KiB, or none
        return value == nullptr || parse_number(text).value_or(0) != 0 ? nullptr : "not a number of KiB";
    }
  }

  CommandLine& line_;
  bool allowed_ = false;
  bool blocked_ = false;
  bool mem_given_ = false;
  bool unlink_never_ = false;
};

}  // namespace

bool parse_command_line(int argc, char** argv, const ProcessCpus& cpus, CommandLine& line) {
  // getopt's state is the program's, too: it may parse its own arguments before and after.
  struct Getopt {
    int index = ::optind;
    int letter = ::optopt;
    char* argument = ::optarg;
    ~Getopt() {
      ::optind = index;
      ::optopt = letter;
      ::optarg = argument;
    }
  } const before;
  ::optind = 0;  // glibc: begin anew
  char* const program = argv[0];
  Parser parser(line);
  int option = 0;
  while ((option = ::getopt_long(argc, argv, kShortOptions, kLongOptions, nullptr)) != -1) {
    if (option == '?') return false;  // getopt has said which
    if (const char* wrong = parser.take(option, ::optarg); wrong != nullptr) {
      const char* name = nullptr;
      for (const ::option& known : kLongOptions) {
        if (known.name != nullptr && known.val == option && option != kNoMeaning) name = known.name;
      }
      if (option < kFirst) {
        RTE_LOG(ERR, EAL, "-%c %s: %s\n", option, ::optarg != nullptr ? ::optarg : "", wrong);
      } else {
        RTE_LOG(ERR, EAL, "--%s=%s: %s\n", name, ::optarg != nullptr ? ::optarg : "", wrong);
      }
      return false;
    }
  }
  line.taken = ::optind > 0 ? ::optind - 1 : 0;
  if (argc > 0) argv[line.taken] = program;
  if (line.help) return true;
  return check_options(line, cpus, parser.mem_given(), parser.unlink_never());
}

}  // namespace extmem::dpdk
