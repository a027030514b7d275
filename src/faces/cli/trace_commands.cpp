// `extmem record`, `extmem replay`, `extmem advise`: a program's allocations, written down, done again, and weighed.
#include <dlfcn.h>
#include <fmt/core.h>
#include <unistd.h>

#include <CLI/App.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <memory>

#include "faces/cli/advise.hpp"
#include "faces/cli/chart.hpp"
#include "faces/cli/commands.hpp"
#include "faces/cli/console.hpp"
#include "faces/cli/demo_machine.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/program.hpp"
#include "faces/cli/replay.hpp"
#include "faces/cli/shell.hpp"
#include "faces/cli/text.hpp"
#include "faces/preload/settings.hpp"

namespace extmem::cli {

namespace {

void write_file(const std::string& path, const std::string& text) {
  errno = 0;
  std::ofstream file(path, std::ios::binary);
  file << text << '\n';
  file.flush();
  if (!file)
    throw Failure(kImpossible,
                  fmt::format("cannot write {}: {}", clean(path), std::strerror(errno == 0 ? EIO : errno)),
                  errno);
}

/// KIND=SIZE, KIND as for `extmem run --backing`.
RegionChoice parse_region(const std::string& text) {
  const auto equals = text.rfind('=');
  if (equals == std::string::npos)
    throw Failure(kUsage, fmt::format("--region {}: say KIND=SIZE, as in hugetlb:2M=256M", text));
  preload::Settings settings;
  RegionChoice choice;
  choice.text = text;
  if (auto read = preload::parse_backing(text.substr(0, equals).c_str(), settings); !read)
    throw Failure(fmt::format("--region {}", text), read.error());
  const auto size = preload::parse_size(text.substr(equals + 1).c_str());
  if (!size) throw Failure(fmt::format("--region {}", text), size.error());
  choice.spec = settings.backing;
  choice.path = settings.path;
  choice.spec.length = *size;
  return choice;
}

constexpr const char* kOpNames[] = {"free", "malloc", "calloc", "realloc", "memalign"};

struct ReplayChoices {
  std::string trace;
  std::string allocator = "heap";
  std::vector<std::string> regions;
  std::string style = "binned";
  std::string placement = "any";
  std::string contents = "full";
  std::string svg;
  std::string name;  // of the allocator, where it was preloaded
  ReplayOptions options;
  [[nodiscard]] const std::string& shown_allocator() const { return name.empty() ? allocator : name; }
};

/// What both replay and advise tell of it.
void add_trace(Json& json, const Trace& trace) {
  json.integer("trace_bytes", trace.file_bytes).boolean("complete", trace.complete);
  json.real("recorded_seconds", trace.seconds);
  json.integer("operations", trace.ops.size())
      .integer("objects", trace.objects)
      .integer("threads", trace.threads);
  json.integer("failed_allocations", trace.failed)
      .integer("unknown_frees", trace.unknown_frees)
      .integer("lost_frees", trace.lost_frees);
  json.integer("peak_live_bytes", trace.peak_bytes).integer("peak_live_objects", trace.peak_objects);
}

double not_in_one_piece(const ReplaySample& s) {
  return s.stats.free_bytes == 0
             ? 0
             : 1 - static_cast<double>(s.stats.largest_free) / static_cast<double>(s.stats.free_bytes);
}

Json replay_json(const ReplayChoices& choices, const Trace& trace, const ReplayResult& r) {
  Json json = begin_json("replay");
  json.text("trace", choices.trace)
      .text("program", trace.header.program)
      .text("allocator", choices.shown_allocator());
  add_trace(json, trace);
  json.integer("workers", r.workers).integer("failures", r.failures).integer("corruptions", r.corruptions);
  json.integer("breaches", r.breaches).real("seconds", r.seconds);
  json.array("times");
  for (std::size_t k = 0; k < r.times.size(); ++k) {
    if (r.times[k].count == 0) continue;
    json.object().text("operation", kOpNames[k]).integer("count", r.times[k].count);
    json.real("mean_ns",
              r.ns_per_tick * static_cast<double>(r.times[k].ticks) / static_cast<double>(r.times[k].count));
    json.real("median_ns", r.ns_per_tick * r.times[k].quantile(0.5));
    json.real("p99_ns", r.ns_per_tick * r.times[k].quantile(0.99)).end();
  }
  json.end().array("pass_seconds");
  for (const double seconds : r.pass_seconds) json.real({}, seconds);
  json.end().array("pages_at_peak");
  for (const PageCount& count : r.pages)
    json.object().integer("page_size", count.page_size).integer("pages", count.pages).end();
  json.end().array("samples");
  for (const ReplaySample& s : r.samples) {
    json.object().integer("operations", s.op).integer("live_bytes", s.live_bytes);
    json.integer("total_bytes", s.stats.total_bytes).integer("used_bytes", s.stats.used_bytes);
    json.integer("free_bytes", s.stats.free_bytes).integer("largest_free", s.stats.largest_free);
    json.real("fragmentation", not_in_one_piece(s)).end();
  }
  json.end().end();
  return json;
}

std::string replay_svg(const ReplayChoices& choices, const Trace& trace, const ReplayResult& r) {
  ChartLine live{"live, as asked for", {}, "#2563eb"};
  ChartLine used{"used, rounded", {}, "#16a34a"};
  ChartLine total{"taken from the system", {}, "#9ca3af"};
  ChartLine largest{"largest free run", {}, "#dc2626"};
  for (const ReplaySample& s : r.samples) {
    const auto x = static_cast<double>(s.op);
    live.points.emplace_back(x, static_cast<double>(s.live_bytes));
    used.points.emplace_back(x, static_cast<double>(s.stats.used_bytes));
    total.points.emplace_back(x, static_cast<double>(s.stats.total_bytes));
    largest.points.emplace_back(x, static_cast<double>(s.stats.largest_free));
  }
  std::vector<ChartLine> lines{live};
  if (!r.samples.empty() && r.samples.back().stats.total_bytes != 0) lines = {live, used, total, largest};
  return draw_chart(fmt::format("{} on {}", clean(trace.header.program), clean(choices.shown_allocator())),
                    fmt::format("operations, {} in all", count_text(trace.ops.size())), lines, [](double y) {
                      return bytes_text(y < 0x1p64 ? static_cast<std::uint64_t>(y) : ~std::uint64_t{0});
                    });
}

void show_trace(const Console& console, const Trace& trace) {
  console.item("trace", fmt::format("{} of {}: {} on {} objects by {}, {:.1f} bytes an operation",
                                    bytes_text(trace.file_bytes), clean(trace.header.program),
                                    plural(trace.ops.size(), "operation"), count_text(trace.objects),
                                    plural(trace.threads, "thread"),
                                    trace.ops.empty() ? 0.0
                                                      : static_cast<double>(trace.file_bytes) /
                                                            static_cast<double>(trace.ops.size())));
  if (!trace.complete)
    console.item("", "the process did not end in good order: what it had not written is missing", Tone::warn);
  if (trace.unknown_frees + trace.lost_frees + trace.failed != 0) {
    console.item(
        "", fmt::format("{} frees of what was allocated before, {} frees not seen, {} failed allocations",
                        trace.unknown_frees, trace.lost_frees, trace.failed));
  }
  console.item("peak", fmt::format("{} live in {} objects", bytes_text(trace.peak_bytes),
                                   count_text(trace.peak_objects)));
}

Trace read(const Console& console, const std::string& path) {
  const Busy busy(console, "reading " + shown(path, console.unicode()));
  return read_trace(path);
}

int run_replay(const ReplayChoices& choices, bool json, const Console& console) {
  HeapLayout layout;
  for (const std::string& text : choices.regions) layout.regions.push_back(parse_region(text));
  layout.style = choices.style == "exact" ? Style::exact : Style::binned;
  layout.placement = choices.placement == "low"    ? Placement::low
                     : choices.placement == "high" ? Placement::high
                                                   : Placement::any;
  const Trace trace = read(console, choices.trace);
  // A damaged trace, or one of a larger machine, must not take all that there is from everybody here.
  const std::uint64_t available = Machine::look().memory_available;
  if (choices.options.contents == Contents::full && layout.regions.empty() && available != 0 &&
      trace.peak_bytes > available)
    throw Failure(kImpossible,
                  fmt::format("{} are live at the trace's peak, and {} are available here: use --contents "
                              "touch, or --region KIND=SIZE for no more than that",
                              bytes_text(trace.peak_bytes), bytes_text(available)),
                  ENOMEM);
  const auto target = choices.allocator == "heap" ? heap_target(layout) : process_target();
  const ReplayResult result = [&] {
    const Busy busy(console, "replaying " + plural(trace.ops.size(), "operation"));
    return replay(trace, *target, choices.options);
  }();
  if (json) {
    print_json(replay_json(choices, trace, result));
  } else {
    console.heading("Replay");
    show_trace(console, trace);
    const OpTimes all = result.all();
    Table table({"OPERATION", ">COUNT", ">MEAN", ">MEDIAN", ">P99"});
    const auto row = [&](const std::string& name, const OpTimes& times) {
      if (times.count == 0) return;
      const double tick = result.ns_per_tick * 1e-9;
      table.row({name, count_text(times.count),
                 time_text(tick * static_cast<double>(times.ticks) / static_cast<double>(times.count)),
                 time_text(tick * times.quantile(0.5)), time_text(tick * times.quantile(0.99))});
    };
    for (std::size_t k = 0; k < result.times.size(); ++k) row(kOpNames[k], result.times[k]);
    row("all", all);
    if (result.pass_seconds.empty()) table.print(console);
    if (!result.pass_seconds.empty() && !trace.ops.empty()) {
      const double pass = result.median_pass();
      console.item("a pass", fmt::format("{} in the middle of {}: {} an operation", time_text(pass),
                                         plural(result.pass_seconds.size(), "pass", "passes"),
                                         time_text(pass / static_cast<double>(trace.ops.size()))));
    }
    for (const PageCount& count : result.pages)
      console.item("pages at peak",
                   fmt::format("{} of {}", count_text(count.pages), bytes_text(count.page_size)));
    if (!result.samples.empty()) {
      const auto most = std::max_element(
          result.samples.begin(), result.samples.end(),
          [](const auto& a, const auto& b) { return a.stats.used_bytes < b.stats.used_bytes; });
      if (most->stats.total_bytes != 0)
        console.item(
            "memory",
            fmt::format("at most {} used, of {} taken; of what was free then {} was not in one piece",
                        bytes_text(most->stats.used_bytes), bytes_text(most->stats.total_bytes),
                        share_text(not_in_one_piece(*most), 1)));
    }
    console.verdict(result.corruptions == 0, "contents",
                    fmt::format("{} objects were not as written", result.corruptions));
    console.verdict(result.breaches == 0, "invariants", fmt::format("{} breaches", result.breaches));
    if (result.failures != 0)
      console.item("failed", fmt::format("{} allocations found no memory", count_text(result.failures)),
                   Tone::warn);
  }
  if (!choices.svg.empty()) write_file(choices.svg, replay_svg(choices, trace, result));
  return result.corruptions == 0 && result.breaches == 0 ? kPassed : kCheckFailed;
}

/// Ends the command where the loader did not take the library, or found no malloc in it: the figures would be another allocator's.
void check_preloaded(const std::string& library) {
  Dl_info found{};
  Dl_info c_library{};
  if (::dladdr(::dlsym(RTLD_DEFAULT, "malloc"), &found) == 0 ||
      ::dladdr(::dlsym(RTLD_DEFAULT, "gnu_get_libc_version"), &c_library) == 0 ||
      found.dli_fbase != c_library.dli_fbase)
    return;
  throw Failure(kImpossible, fmt::format("--allocator {}: it cannot be loaded, or has no malloc", library),
                ENOEXEC);
}

/// A library's malloc can only be that of a whole process: the command begins anew with the library preloaded.
[[noreturn]] void run_replay_on(const ReplayChoices& choices, const ShellOptions& shell) {
  const std::string& library = choices.allocator;
  if (library.find('/') == std::string::npos)
    throw Failure(kUsage,
                  fmt::format("--allocator {}: it is heap, process, or the path of a library", library));
  if (::access(library.c_str(), R_OK) != 0)
    throw Failure(kImpossible, fmt::format("--allocator {}: {}", library, std::strerror(errno)), errno);
  std::vector<std::string> words{"/proc/self/exe",
                                 "replay",
                                 "--allocator=process",
                                 "--preloaded=" + library,
                                 "--contents=" + choices.contents,
                                 "--threads=" + std::to_string(choices.options.workers),
                                 "--samples=" + std::to_string(choices.options.samples)};
  if (choices.options.passes != 0) words.push_back("--passes=" + std::to_string(choices.options.passes));
  if (shell.json) words.emplace_back("--json");
  if (shell.no_color) words.emplace_back("--no-color");
  if (!choices.svg.empty()) words.push_back("--svg=" + choices.svg);
  words.insert(words.end(), {"--", choices.trace});
  Program program("replay", words);
  program.preload(library);
  program.become();
}

}  // namespace

void add_record_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("record", "Write down what a program allocates");
  command->footer(
      "The trace has every allocation and free: sizes, addresses, times, threads and the places of the "
      "calls, in about\n"
      "8 bytes each. The program's malloc stays the one it has. Children write traces of their own, "
      "FILE.PID.\n");
  struct Choices {
    std::string file = "extmem.trace";
    std::vector<std::string> program;
  };
  auto c = std::make_shared<Choices>();
  command->add_option("-o,--output", c->file, "Where the trace goes")
      ->type_name("FILE")
      ->capture_default_str();
  command->add_option("program", c->program, "The program and its arguments, after --")
      ->type_name("PROGRAM ARGS...");
  command->positionals_at_end();
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console&) -> int {
    if (c->file.empty()) throw Failure(kUsage, "--output is empty: say where the trace goes");
    check_writable(c->file, "the trace", "--output");
    set_variable("EXTMEM_TRACE", from_here(c->file));
    set_variable("EXTMEM_TRACE_PID", std::to_string(::getpid()));
    set_variable("EXTMEM_TRACE_REPORT", shell->json ? "json" : "");
    Program program("record", c->program);
    program.preload("libextmem-record.so");
    program.become();
  });
}

void add_replay_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("replay", "Do a trace again, on a heap or another allocator");
  command->footer(
      "Times are of the allocator's calls alone. Each thread of the trace is a thread here, at most "
      "--threads; an\n"
      "operation waits for those before it on the same object. Exit code 1: contents were not as written.\n");
  auto c = std::make_shared<ReplayChoices>();
  command->add_option("trace", c->trace, "What extmem record wrote")->type_name("TRACE")->required();
  command
      ->add_option("--allocator", c->allocator,
                   "heap, process (the malloc of this command), or the path of a library to preload")
      ->type_name("WHAT")
      ->capture_default_str();
  command
      ->add_option("--region", c->regions,
                   "Memory of the heap, KIND=SIZE (again for more); default: anonymous memory that grows")
      ->type_name("KIND=SIZE")
      ->expected(1)
      ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll);
  command->add_option("--style", c->style, "Style of the heap")
      ->check(CLI::IsMember({"binned", "exact"}))
      ->capture_default_str();
  command->add_option("--placement", c->placement, "Which end to prefer")
      ->check(CLI::IsMember({"any", "low", "high"}))
      ->capture_default_str();
  command->add_option("--contents", c->contents, "How much of the objects is written and checked")
      ->check(CLI::IsMember({"full", "ends", "touch", "none"}))
      ->capture_default_str();
  command->add_option("--threads", c->options.workers, "Most threads")
      ->check(CLI::Range(1u, 512u))
      ->capture_default_str();
  command->add_option("--samples", c->options.samples, "How often memory is looked at")
      ->check(CLI::Range(std::size_t{1}, std::size_t{100000}))
      ->capture_default_str();
  command
      ->add_option("--passes", c->options.passes,
                   "Do the trace so often and time whole passes, no single operations")
      ->check(CLI::Range(1u, 1000000u));
  command->add_option("--svg", c->svg, "Draw memory over time")->type_name("FILE");
  command->add_option("--preloaded", c->name, "The library that this command was begun anew with")->group("");
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console& console) -> int {
    c->options.contents = c->contents == "full"    ? Contents::full
                          : c->contents == "ends"  ? Contents::ends
                          : c->contents == "touch" ? Contents::touch
                                                   : Contents::none;
    for (const char* option : {"--region", "--style", "--placement"}) {
      if (c->allocator != "heap" && command->count(option) != 0)
        throw Failure(kUsage, fmt::format("{} is for --allocator heap: {} has memory of its own", option,
                                          c->allocator == "process" ? "a process' malloc" : c->allocator));
    }
    if (!c->svg.empty()) check_writable(c->svg, "the picture", "--svg");
    if (c->allocator != "heap" && c->allocator != "process") run_replay_on(*c, *shell);
    if (!c->name.empty()) check_preloaded(c->name);
    return run_replay(*c, shell->json, console);
  });
}

void add_advise_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("advise", "Say how much memory a trace's program needs");
  command->footer(
      "The trace is done again on heaps of imaginary memory: the smallest one that serves it is what the "
      "program needs.\n");
  struct Choices {
    std::string trace;
    std::size_t top = 10;
  };
  auto c = std::make_shared<Choices>();
  command->add_option("trace", c->trace, "What extmem record wrote")->type_name("TRACE")->required();
  command->add_option("--top", c->top, "How many places of calls to list")->capture_default_str();
  auto shell = add_shell_options(*command, false);
  set_work(*command, exit_code, shell, [=](const Console& console) {
    const Trace trace = read(console, c->trace);
    const Advice advice = [&] {
      const Busy busy(console, "trying heaps");
      return advise(trace, c->top);
    }();
    if (shell->json) {
      Json json = begin_json("advise");
      json.text("trace", c->trace).text("program", trace.header.program);
      add_trace(json, trace);
      add_advice(json, advice);
      print_json(json.end());
    } else {
      console.heading("Trace");
      show_trace(console, trace);
      show_advice(console, trace, advice);
    }
    return kPassed;
  });
}

}  // namespace extmem::cli
