#include "faces/cli/shell.hpp"

#include <fmt/core.h>

#include <cerrno>
#include <charconv>
#include <chrono>
#include <csignal>
#include <cstring>
#include <new>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/impossible.hpp"
#include "faces/cli/text.hpp"
#include "faces/preload/settings.hpp"

namespace extmem::cli {
namespace {

volatile std::sig_atomic_t interrupted = 0;
struct sigaction before_int;
struct sigaction before_term;

extern "C" void extmem_cli_interrupt(int) { interrupted = 1; }

int exit_code_of(Error error) {
  return error.code() == EINVAL || error.code() == ENAMETOOLONG ? kUsage : kImpossible;
}

}  // namespace

std::string reason(Error error) {
  const char* name = ::strerrorname_np(error.code());
  return fmt::format("{} ({})", error.message(), name != nullptr ? name : std::to_string(error.code()));
}

Failure::Failure(const std::string& doing, Error error)
    : Failure(exit_code_of(error), doing + ": " + reason(error), error.code()) {}

int tell_failure(const std::string& command, bool json, const Failure& failure) {
  std::fflush(stdout);
  fmt::print(stderr, "extmem: {}{}{}\n", command, command.empty() ? "" : ": ", failure.what());
  if (!json) return failure.code();
  const char* name = ::strerrorname_np(failure.error_number());
  Json document = begin_json(command);
  document.object("error")
      .text("message", failure.what())
      .text("errno", failure.error_number() == 0 || name == nullptr ? "" : name)
      .integer("exit_code", failure.code())
      .end();
  std::FILE* to = command == "run" || command == "record" ? stderr : stdout;
  fmt::print(to, "{}", document.end().document());
  return failure.code();
}

std::shared_ptr<ShellOptions> add_shell_options(CLI::App& command, bool domains) {
  auto options = std::make_shared<ShellOptions>();
  if (domains) {
    command
        .add_option("--directory", options->directory,
                    "Runtime directory of the domains (default: as programs find it)")
        ->type_name("DIR");
  }
  command.add_flag("--json", options->json, "Print JSON (docs/cli-json.md)");
  command.add_flag("--no-color", options->no_color, "No colours");
  return options;
}

std::string path_of(const CLI::App& command) {
  std::string name = command.get_parent() != nullptr ? command.get_name() : "";
  for (const CLI::App* up = command.get_parent(); up != nullptr && up->get_parent() != nullptr;
       up = up->get_parent())
    name = up->get_name() + " " + name;
  return name;
}

void set_work(CLI::App& command, int& exit_code, std::shared_ptr<ShellOptions> options,
              std::function<int(const Console&)> work) {
  command.callback(
      [options = std::move(options), work = std::move(work), name = path_of(command), &exit_code] {
        Console console = Console::create(options->no_color);
        if (options->json) console.hush();
        const auto fail = [&](const Failure& failure) {
          console.progress_done();
          exit_code = tell_failure(name, options->json, failure);
        };
        try {
          exit_code = work(console);
        } catch (const Failure& failure) {
          fail(failure);
        } catch (const Impossible& impossible) {
          fail(Failure(kImpossible, impossible.what()));
        } catch (const std::bad_alloc&) {
          fail(Failure(kImpossible, "out of memory: see `ulimit -v`, or what else uses it", ENOMEM));
        }
      });
}

Json begin_json(const std::string& command) {
  Json json;
  json.object().text("command", command).integer("schema", 1);
  return json;
}

void print_json(const Json& json) { fmt::print("{}", json.document()); }

Domain open_domain(const ShellOptions& options, const std::string& name, const Console& console) {
  OpenOptions open;
  open.mode = OpenMode::open_only;
  open.directory = options.where();
  auto domain = Domain::open(name, open);
  if (domain) return std::move(*domain);
  const std::string title = shown(name, console.unicode());
  if (domain.error().code() == ENOENT)
    throw Failure(kImpossible,
                  fmt::format("no domain \"{}\" here: `extmem ls` lists those that there are", title));
  throw Failure(fmt::format("cannot open the domain \"{}\"", title), domain.error());
}

Heap find_heap(const Domain& domain, const std::string& name, const Console& console) {
  auto heap = domain.find_heap(name);
  if (heap) return *heap;
  std::string names;
  need(domain.walk_heaps([&](const HeapInfo& info) {
    names += (names.empty() ? "" : ", ") + shown(info.name, console.unicode());
    return names.size() < 400;
  }),
       "cannot list the heaps");
  throw Failure(kImpossible, fmt::format("no heap \"{}\" in this domain; there are: {}",
                                         shown(name, console.unicode()), names));
}

RegionInfo find_region(const Domain& domain, const std::string& number) {
  std::uint32_t slot = 0;
  std::uint32_t generation = 0;
  const char* const end = number.data() + number.size();
  auto read = std::from_chars(number.data(), end, slot);
  if (read.ec == std::errc() && read.ptr != end && *read.ptr == '.')
    read = std::from_chars(read.ptr + 1, end, generation);
  if (read.ec != std::errc() || read.ptr != end)
    throw Failure(kUsage, "a region is named by its number, as `extmem ls` shows it: 3, or 3.1");
  RegionInfo found;
  need(domain.walk_regions([&](const RegionInfo& info) {
    if (info.id.slot == slot) found = info;
    return !found.id;
  }),
       "cannot list the regions");
  if (!found.id)
    throw Failure(kImpossible,
                  fmt::format("no region {} in this domain: `extmem ls` lists those that there are", slot));
  if (generation != 0 && generation != found.id.generation)
    throw Failure(kImpossible, fmt::format("region {} is gone: {}.{} is another one that has its number now",
                                           number, slot, found.id.generation));
  return found;
}

std::uint64_t parse_bytes(const std::string& text, const char* option) {
  auto bytes = preload::parse_size(text.c_str());
  if (!bytes) throw Failure(kUsage, fmt::format("{}: {}", option, bytes.error().message()));
  return *bytes;
}

double parse_seconds(const std::string& text, const char* option) {
  double value = 0;
  const char* const end = text.data() + text.size();
  const auto read = std::from_chars(text.data(), end, value);
  const std::string_view unit(read.ptr, static_cast<std::size_t>(end - read.ptr));
  const double scale = unit == "ms" ? 1e-3 : unit.empty() || unit == "s" ? 1 : unit == "m" ? 60 : -1;
  if (read.ec != std::errc() || scale < 0 || !(value >= 0) || value * scale > 86400.0 * 365)
    throw Failure(kUsage,
                  fmt::format("{}: a time is a number of seconds, or has ms, s or m behind it", option));
  return value * scale;
}

void complain_holders(const Console& console, const HolderReport& report) {
  for (std::size_t i = 0; i < report.count; ++i) {
    const Holder& h = report.holders[i];
    const std::string who = h.pid != 0 ? fmt::format("process {}", h.pid) : "nobody that lives";
    if (h.mapping) {
      console.complain(fmt::format("  {} maps it; it lets go at its next call of extmem", who));
    } else if (h.memzone) {
      console.complain(fmt::format("  memzones: {} in {}", bytes_text(h.bytes), plural(h.count, "piece")));
    } else {
      console.complain(fmt::format(
          "  {} holds {} in {}{}", who, bytes_text(h.bytes), plural(h.count, "object"),
          h.tag[0] == '\0' ? std::string(", untagged") : ", tag " + shown(h.tag, console.unicode())));
    }
  }
  if (report.more != 0) console.complain(fmt::format("  and {} more", report.more));
}

void add_holders(Json& json, const HolderReport& report) {
  json.array("holders");
  for (std::size_t i = 0; i < report.count; ++i) {
    const Holder& h = report.holders[i];
    json.object().integer("pid", h.pid).text("tag", h.tag).boolean("memzone", h.memzone);
    json.boolean("mapping", h.mapping).integer("count", h.count).integer("bytes", h.bytes).end();
  }
  json.end();
}

double Progress::now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

Progress::~Progress() {
  if (shown_ >= 0) console_.progress_done();
}

void Progress::show(double share, const std::string& text) {
  const double at = now();
  if (at - started_ < 1 || at - shown_ < 0.1) return;
  shown_ = at;
  console_.progress(share, text);
}

Busy::Busy(const Console& console, std::string what) : console_(console), what_(std::move(what)) {
  thread_ = std::thread([this] {
    std::unique_lock lock(mutex_);
    for (unsigned seconds = 1; !changed_.wait_for(lock, std::chrono::seconds(1), [this] { return over_; });
         ++seconds) {
      console_.busy(fmt::format("{}, {} s", what_, seconds));
      shown_ = true;
    }
  });
}

Busy::~Busy() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_one();
  thread_.join();
  if (shown_) console_.progress_done();
}

Interrupts::Interrupts() {
  interrupted = 0;
  struct sigaction action {};
  action.sa_handler = extmem_cli_interrupt;
  (void)::sigaction(SIGINT, &action, &before_int);
  (void)::sigaction(SIGTERM, &action, &before_term);
}

Interrupts::~Interrupts() {
  (void)::sigaction(SIGINT, &before_int, nullptr);
  (void)::sigaction(SIGTERM, &before_term, nullptr);
}

bool Interrupts::seen() { return interrupted != 0; }

}  // namespace extmem::cli
