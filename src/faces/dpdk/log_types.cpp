// The log's types: a table that only grows, their levels, and what was set for types yet to come.
//
// Invariant: entries below `count` never change but for their level, so reading a level needs no lock.
#include <fnmatch.h>
#include <regex.h>
#include <rte_log.h>
#include <strings.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstdint>
#include <cstring>
#include <mutex>
#include <new>
#include <string_view>

#include "faces/dpdk/log.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::size_t kMaxTypes = 1024;
constexpr std::size_t kNameSize = 64;

struct LogType {
  std::array<char, kNameSize> name{};              // "": a number that nobody uses
  std::atomic<std::uint32_t> level{RTE_LOG_INFO};  // relaxed: a level carries nothing else
};

// One call of rte_log_set_level_pattern or _regexp, kept for the types that are registered later.
struct Rule {
  bool is_regex = false;
  std::array<char, kNameSize> pattern{};
  regex_t regex{};
  std::uint32_t level = 0;
  Rule* next = nullptr;

  [[nodiscard]] bool fits(const char* name) const {
    if (is_regex) return ::regexec(&regex, name, 0, nullptr, 0) == 0;
    return ::fnmatch(pattern.data(), name, 0) == 0;
  }
};

struct LogTypes {
  std::mutex mutex;  // for registering and for rules
  std::array<LogType, kMaxTypes> types{};
  // Release after the entry was filled; acquire in every reader.
  std::atomic<std::uint32_t> count{0};
  std::atomic<std::uint32_t> global_level{RTE_LOG_DEBUG};  // relaxed, as the levels
  Rule* first_rule = nullptr;                              // in the order in which they were given
  Rule** last_rule = &first_rule;
};

constexpr std::array<const char*, RTE_LOGTYPE_FIRST_EXT_ID> kStandardTypes = {
    "lib.eal",   "lib.malloc",   "lib.ring", "lib.mempool",   "lib.timer", "pmd",          "lib.hash",
    "lib.lpm",   "lib.kni",      "lib.acl",  "lib.power",     "lib.meter", "lib.sched",    "lib.port",
    "lib.table", "lib.pipeline", "lib.mbuf", "lib.cryptodev", "lib.efd",   "lib.eventdev", "lib.gso",
    nullptr,     nullptr,        nullptr,    "user1",         "user2",     "user3",        "user4",
    "user5",     "user6",        "user7",    "user8"};

// Indexed by level; 0 is no level.
constexpr std::array<const char*, RTE_LOG_MAX + 1> kLevelNames = {
    "disabled", "emergency", "alert", "critical", "error", "warning", "notice", "info", "debug"};

void copy_name(std::array<char, kNameSize>& to, const char* from) {
  const std::size_t length = ::strnlen(from, to.size() - 1);
  std::memcpy(to.data(), from, length);
  to[length] = '\0';
}

// Made at the first use and never destroyed: constructors log before main(), destructors after it.
LogTypes& table() {
  alignas(LogTypes) static std::array<std::byte, sizeof(LogTypes)> storage;
  static LogTypes* const made = [] {
    auto* types = new (storage.data()) LogTypes;
    for (std::size_t i = 0; i < kStandardTypes.size(); ++i) {
      if (kStandardTypes[i] != nullptr) copy_name(types->types[i].name, kStandardTypes[i]);
    }
    types->count.store(kStandardTypes.size(), std::memory_order_release);
    return types;
  }();
  return *made;
}

const char* level_name(std::uint32_t level) {
  return level < kLevelNames.size() ? kLevelNames[level] : "unknown";
}

int register_type(const char* name, std::uint32_t level) {
  if (name == nullptr || std::strlen(name) >= kNameSize || level > RTE_LOG_MAX) return -EINVAL;
  LogTypes& t = table();
  const std::scoped_lock lock(t.mutex);
  const std::uint32_t count = t.count.load(std::memory_order_relaxed);  // only changed under the mutex
  for (std::uint32_t i = 0; i < count; ++i) {
    if (std::strcmp(t.types[i].name.data(), name) == 0 && name[0] != '\0') return static_cast<int>(i);
  }
  if (count == kMaxTypes) return -ENOMEM;
  LogType& type = t.types[count];
  copy_name(type.name, name);
  for (const Rule* rule = t.first_rule; rule != nullptr; rule = rule->next) {
    if (rule->fits(name)) level = rule->level;
  }
  type.level.store(level, std::memory_order_relaxed);
  t.count.store(count + 1, std::memory_order_release);
  return static_cast<int>(count);
}

int add_rule(const char* pattern, std::uint32_t level, bool is_regex) {
  if (pattern == nullptr || level > RTE_LOG_MAX || std::strlen(pattern) >= kNameSize) return -1;
  auto* rule = new (std::nothrow) Rule;
  if (rule == nullptr) return -1;
  rule->is_regex = is_regex;
  rule->level = level;
  copy_name(rule->pattern, pattern);
  if (is_regex && ::regcomp(&rule->regex, pattern, REG_ICASE | REG_NOSUB) != 0) {
    delete rule;
    return -1;
  }
  LogTypes& t = table();
  const std::scoped_lock lock(t.mutex);
  const std::uint32_t count = t.count.load(std::memory_order_relaxed);
  for (std::uint32_t i = 0; i < count; ++i) {
    LogType& type = t.types[i];
    if (type.name[0] != '\0' && rule->fits(type.name.data())) {
      type.level.store(level, std::memory_order_relaxed);
    }
  }
  *t.last_rule = rule;
  t.last_rule = &rule->next;
  return 0;
}

// A number, or the beginning of one level's name only. Returns: the level, or -1.
int parse_level(std::string_view text) {
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error == std::errc{} && end == text.data() + text.size()) {
    return number <= RTE_LOG_MAX ? static_cast<int>(number) : -1;
  }
  if (text.empty()) return -1;
  if (text == "max") return static_cast<int>(RTE_LOG_MAX);
  int found = -1;
  for (std::uint32_t level = 1; level <= RTE_LOG_MAX; ++level) {
    if (::strncasecmp(kLevelNames[level], text.data(), text.size()) != 0) continue;
    if (found >= 0) return -1;
    found = static_cast<int>(level);
  }
  return found;
}

}  // namespace

bool set_log_level(const char* text) {
  const std::string_view all(text);
  const std::size_t cut = all.find_last_of(":,");
  const int level = parse_level(cut == std::string_view::npos ? all : all.substr(cut + 1));
  if (level < 0) return false;
  if (cut == std::string_view::npos) {
    rte_log_set_global_level(static_cast<std::uint32_t>(level));
    return true;
  }
  if (cut >= kNameSize) return false;
  std::array<char, kNameSize> pattern{};
  std::memcpy(pattern.data(), text, cut);
  return add_rule(pattern.data(), static_cast<std::uint32_t>(level), text[cut] == ',') == 0;
}

void print_log_help(std::FILE* out) {
  std::fputs("Types of lines, for PATTERN and EXPRESSION:\n", out);
  rte_log_list_types(out, "\t");
  std::fputs("Levels, by number or the beginning of the name:\n", out);
  for (std::uint32_t level = 1; level <= RTE_LOG_MAX; ++level)
    std::fprintf(out, "\t%u   %s\n", level, kLevelNames[level]);
  std::fputs("A line appears where both its type's level and the global one let it.\n", out);
}

}  // namespace extmem::dpdk

using extmem::dpdk::add_rule;
using extmem::dpdk::level_name;
using extmem::dpdk::register_type;
using extmem::dpdk::table;

extern "C" {

void rte_log_set_global_level(uint32_t level) {
  table().global_level.store(level, std::memory_order_relaxed);
}

uint32_t rte_log_get_global_level(void) { return table().global_level.load(std::memory_order_relaxed); }

int rte_log_get_level(uint32_t logtype) {
  auto& t = table();
  if (logtype >= t.count.load(std::memory_order_acquire)) return -1;
  return static_cast<int>(t.types[logtype].level.load(std::memory_order_relaxed));
}

bool rte_log_can_log(uint32_t logtype, uint32_t loglevel) {
  const int level = rte_log_get_level(logtype);
  return level >= 0 && loglevel <= static_cast<uint32_t>(level) && loglevel <= rte_log_get_global_level();
}

int rte_log_set_level(uint32_t logtype, uint32_t level) {
  if (rte_log_get_level(logtype) < 0 || level > RTE_LOG_MAX) return -1;
  table().types[logtype].level.store(level, std::memory_order_relaxed);
  return 0;
}

int rte_log_set_level_pattern(const char* pattern, uint32_t level) { return add_rule(pattern, level, false); }
int rte_log_set_level_regexp(const char* regex, uint32_t level) { return add_rule(regex, level, true); }

int rte_log_register(const char* name) { return register_type(name, RTE_LOG_INFO); }
int rte_log_register_type_and_pick_level(const char* name, uint32_t level_def) {
  return register_type(name, level_def);
}

void rte_log_list_types(FILE* out, const char* prefix) {
  auto& t = table();
  const uint32_t count = t.count.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < count; ++i) {
    if (t.types[i].name[0] != '\0') std::fprintf(out, "%s%s\n", prefix, t.types[i].name.data());
  }
}

void rte_log_dump(FILE* f) {
  auto& t = table();
  std::fprintf(f, "global log level is %s\n", level_name(rte_log_get_global_level()));
  const uint32_t count = t.count.load(std::memory_order_acquire);
  for (uint32_t i = 0; i < count; ++i) {
    if (t.types[i].name[0] == '\0') continue;
    std::fprintf(f, "id %u: %s, level is %s\n", i, t.types[i].name.data(),
                 level_name(static_cast<uint32_t>(rte_log_get_level(i))));
  }
}

}  // extern "C"
