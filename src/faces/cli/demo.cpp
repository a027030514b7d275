#include "faces/cli/demo.hpp"

#include <fmt/core.h>
#include <string.h>

#include <algorithm>

#include "extmem/version.h"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"

namespace extmem::cli {

std::string error_text(Error error) {
  const char* name = strerrorname_np(error.code());
  return fmt::format("{}: {}", name != nullptr ? name : "error", error.message());
}

Demo::Demo(const DemoOptions& options, const Console& console) : options_(options), console_(console) {
  if (options_.threads == 0) options_.threads = std::clamp(std::thread::hardware_concurrency(), 2u, 64u);
}

Demo::~Demo() { load_.reset(); }  // its threads use the domain

int Demo::run() {
  const Stopwatch watch;
  open_outputs();
  console_.line(console_.paint(Tone::bold, fmt::format("extmem {}", EXTMEM_VERSION_STRING)) +
                ": named heaps over memory you already own");
  show_machine();
  make_heaps();
  add_memory();
  show_regions();
  reserve_memzones();
  show_memzones();
  check_verify("before the load");

  run_load();
  show_load();
  check_contents();
  check_verify("after the load");
  check_accounting();
  check_walks();
  check_iovas();
  check_refusals();
  measure();
  check_verify("after the refusals");
  show_heaps();
  show_tags();
  show_map();
  write_picture();

  share_with_processes();
  grow_by_itself();
  free_everything();
  check_verify("when all is free");
  remove_everything();
  show_timings();
  total_seconds_ = watch.seconds();
  return conclude();
}

int Demo::conclude() {
  console_.heading("Checks");
  for (const Check& c : checks_) console_.verdict(c.ok, c.name, c.detail);
  if (!notes_.empty()) console_.heading("Notes");
  for (std::size_t i = 0; i < notes_.size(); ++i) console_.item(fmt::format("{}", i + 1), notes_[i]);
  console_.heading("Result");
  console_.item("heap map", fmt::format("{} ({})", clean(picture_), bytes_text(picture_bytes_)));
  const auto failed = static_cast<std::uint64_t>(
      std::count_if(checks_.begin(), checks_.end(), [](const Check& c) { return !c.ok; }));
  if (failed == 0) {
    console_.item("checks",
                  fmt::format("all {} passed, {} in all", checks_.size(), time_text(total_seconds_)),
                  Tone::good);
    return kPassed;
  }
  console_.item("checks", fmt::format("{} of {} failed", failed, checks_.size()), Tone::bad);
  console_.complain(
      fmt::format("{} of {} checks failed; please report this with the lines above", failed, checks_.size()));
  return kCheckFailed;
}

}  // namespace extmem::cli
