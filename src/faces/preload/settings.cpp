#include "faces/preload/settings.hpp"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "base/bits.hpp"
#include "base/error.hpp"

namespace extmem::preload {

namespace {

constexpr std::uint64_t kDefaultStep = std::uint64_t{64} << 20;
constexpr std::uint64_t kHugeStep = std::uint64_t{16} << 20;  // hugepages are reserved when they are mapped
constexpr std::uint64_t kNoLimit = std::uint64_t{1} << 46;

/// What follows `prefix` in `text`, or null.
const char* after(const char* text, const char* prefix) noexcept {
  const std::size_t n = std::strlen(prefix);
  return std::strncmp(text, prefix, n) == 0 ? text + n : nullptr;
}

/// The value of a variable that is there and not empty, or null.
const char* value_of(const char* name) noexcept {
  const char* value = std::getenv(name);
  return value != nullptr && *value != '\0' ? value : nullptr;
}

Result<bool> flag(const char* name) noexcept {
  const char* value = value_of(name);
  if (value == nullptr || std::strcmp(value, "0") == 0) return false;
  if (std::strcmp(value, "1") == 0) return true;
  return EXTMEM_ERROR(EINVAL, "say 1 (on) or 0 (off)");
}

Result<std::uint64_t> size_of_variable(const char* name) noexcept {
  const char* value = value_of(name);
  if (value == nullptr) return std::uint64_t{0};
  return parse_size(value);
}

template <std::size_t N>
Result<void> copy(char (&to)[N], const char* text) noexcept {
  const std::size_t n = std::strlen(text);
  if (n >= N) return EXTMEM_ERROR(ENAMETOOLONG, "the text is too long");
  std::memcpy(to, text, n + 1);
  return {};
}

Result<void> read(Settings& s, const char*& which) noexcept {
  BackingSpec& b = s.backing;
  which = "EXTMEM_BACKING";
  if (const char* text = value_of(which)) EXTMEM_TRY_VOID(parse_backing(text, s));
  const bool has_path = b.path != nullptr;
  const bool huge = b.kind == BackingKind::hugetlb;
  which = "EXTMEM_STEP";
  EXTMEM_TRY(step, size_of_variable(which));
  s.step = step != 0 ? step : huge ? std::max(kHugeStep, std::uint64_t{b.os_page_size}) : kDefaultStep;
  which = "EXTMEM_SIZE";
  EXTMEM_TRY(size, size_of_variable(which));
  if (size == 0 && has_path)
    return EXTMEM_ERROR(EINVAL, "memory with a path does not grow: say how long it is");
  b.length = size != 0 ? size : s.step;
  s.sized = size != 0;
  which = "EXTMEM_LIMIT";
  EXTMEM_TRY(limit, size_of_variable(which));
  if (limit != 0 && size > limit) return EXTMEM_ERROR(EINVAL, "the limit is below the size at the start");
  s.limit = limit != 0 ? limit : kNoLimit;
  if (size == 0 && b.length > s.limit) b.length = s.limit;
  which = "EXTMEM_NODE";
  if (const char* text = value_of(which)) {
    int node = 0;
    const char* p = text;
    for (; *p >= '0' && *p <= '9' && node < 100000; ++p) node = node * 10 + (*p - '0');
    if (p == text || *p != '\0') return EXTMEM_ERROR(EINVAL, "say the number of a NUMA node");
    b.numa_node = node;
  }
  which = "EXTMEM_FALLBACK";
  if (const char* text = value_of(which)) {
    if (std::strcmp(text, "none") == 0) {
      b.fallback = Fallback::none;
    } else if (std::strcmp(text, "thp") == 0) {
      b.fallback = Fallback::thp;
    } else if (std::strcmp(text, "anon") == 0) {
      b.fallback = Fallback::anonymous;
    } else {
      return EXTMEM_ERROR(EINVAL, "say none, thp or anon");
    }
  }
  which = "EXTMEM_PREFAULT";
  EXTMEM_TRY(prefault, flag(which));
  b.prefault = prefault;
  which = "EXTMEM_LOCK";
  EXTMEM_TRY(lock, flag(which));
  b.lock = lock;
  which = "EXTMEM_TAGS";
  EXTMEM_TRY(tags, flag(which));
  s.tags = tags;
  which = "EXTMEM_STATS";
  if (const char* text = value_of(which)) {
    if (std::strcmp(text, "text") == 0) {
      s.stats = StatsFormat::text;
    } else if (std::strcmp(text, "json") == 0) {
      s.stats = StatsFormat::json;
    } else {
      return EXTMEM_ERROR(EINVAL, "say text or json");
    }
  }
  which = "EXTMEM_STATS_FILE";
  if (const char* text = value_of(which)) EXTMEM_TRY_VOID(copy(s.stats_file, text));
  which = "EXTMEM_HEAP";
  if (const char* text = value_of(which)) EXTMEM_TRY_VOID(copy(s.heap, text));
  which = "EXTMEM_DOMAIN";
  if (const char* text = value_of(which)) EXTMEM_TRY_VOID(copy(s.domain, text));
  which = "EXTMEM_REPORT";
  if (char* text = std::getenv(which); text != nullptr && (*text == '+' || *text == '-')) {
    s.told = *text == '-';
    s.report_pid = static_cast<std::uint32_t>(std::strtoul(text + 1, nullptr, 10));
  }
  return {};
}

}  // namespace

Result<void> parse_backing(const char* text, Settings& settings) noexcept {
  BackingSpec& spec = settings.backing;
  const char* path = nullptr;
  if (std::strcmp(text, "anon") == 0) {
    spec.kind = BackingKind::anonymous;
  } else if (std::strcmp(text, "thp") == 0) {
    spec.kind = BackingKind::anonymous;
    spec.thp = true;
  } else if (std::strcmp(text, "hugetlb") == 0) {
    spec.kind = BackingKind::hugetlb;
  } else if (const char* size = after(text, "hugetlb:")) {
    spec.kind = BackingKind::hugetlb;
    EXTMEM_TRY(bytes, parse_size(size));
    if (!base::is_power_of_two(bytes)) return EXTMEM_ERROR(EINVAL, "a hugepage's size is 2M or 1G");
    spec.os_page_size = bytes;
  } else if (std::strcmp(text, "memfd") == 0) {
    spec.kind = BackingKind::memfd;
  } else if ((path = after(text, "shm:")) != nullptr && *path != '\0') {
    spec.kind = BackingKind::shm;
  } else if ((path = after(text, "file:")) != nullptr && *path != '\0') {
    spec.kind = BackingKind::file;
  } else if ((path = after(text, "dax:")) != nullptr && *path != '\0') {
    spec.kind = BackingKind::dax;
  } else {
    return EXTMEM_ERROR(
        EINVAL, "say anon, thp, hugetlb, hugetlb:2M, hugetlb:1G, memfd, shm:/NAME, file:PATH or dax:PATH");
  }
  if (spec.kind == BackingKind::shm &&
      (path[0] != '/' || path[1] == '\0' || std::strchr(path + 1, '/') != nullptr))
    return EXTMEM_ERROR(EINVAL, "a shm's name is a slash and a file's name: shm:/NAME");
  if (path != nullptr) {
    EXTMEM_TRY_VOID(copy(settings.path, path));
    spec.path = settings.path;
  }
  return {};
}

Result<std::uint64_t> parse_size(const char* text) noexcept {
  std::uint64_t value = 0;
  const char* p = text;
  for (; *p >= '0' && *p <= '9'; ++p) {
    if (value > (kNoLimit << 4)) return EXTMEM_ERROR(EINVAL, "the size is too large");
    value = value * 10 + static_cast<std::uint64_t>(*p - '0');
  }
  if (p == text) return EXTMEM_ERROR(EINVAL, "say a size in bytes, or with K, M, G or T: 64M");
  unsigned shift = 0;
  switch (*p) {
    case 'k':
    case 'K':
      shift = 10;
      break;
    case 'm':
    case 'M':
      shift = 20;
      break;
    case 'g':
    case 'G':
      shift = 30;
      break;
    case 't':
    case 'T':
      shift = 40;
      break;
    default:
      break;
  }
  if (shift != 0) ++p;
  if (*p != '\0') return EXTMEM_ERROR(EINVAL, "say a size in bytes, or with K, M, G or T: 64M");
  if (value > (kNoLimit >> shift)) return EXTMEM_ERROR(EINVAL, "the size is too large");
  return value << shift;
}

Result<void> read_settings(Settings& settings, const char** which) noexcept {
  const char* name = "";
  const Result<void> done = read(settings, name);
  *which = name;
  return done;
}

void mark_told() noexcept {
  if (char* text = std::getenv("EXTMEM_REPORT"); text != nullptr && *text == '+') *text = '-';
}

}  // namespace extmem::preload
