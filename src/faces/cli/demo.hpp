// The main job: every promise of extmem shown, and checked, on the memory that this machine really has.
//
// What it is: one object for one run. The steps are spread over demo*.cpp: memory (demo_memory.cpp), the load with a
// region that goes meanwhile (demo_run.cpp), processes that are killed (demo_sharing.cpp), checks (demo_checks.cpp), tables and files (demo_report.cpp).
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "extmem/domain.hpp"
#include "extmem/heap_map.hpp"
#include "faces/cli/console.hpp"
#include "faces/cli/demo_load.hpp"
#include "faces/cli/demo_machine.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/impossible.hpp"
#include "faces/cli/json.hpp"

namespace extmem::cli {

struct DemoOptions {
  double seconds = 4;
  unsigned threads = 0;  ///< 0: as many as there are processors, at least two
  std::string svg;       ///< "": out/extmem-demo.svg, or in the folder for temporary files
};

/// "ENOMEM: what was wrong and what to do".
std::string error_text(Error error);

/// Memory that the demo maps by itself and lends: what extmem calls external.
class LentMemory {
 public:
  LentMemory() = default;
  /// Maps `bytes`; with `access` readable, writable and present, else without any access right.
  static LentMemory map(std::uint64_t bytes, bool access);
  LentMemory(LentMemory&& other) noexcept;
  LentMemory& operator=(LentMemory&& other) noexcept;
  ~LentMemory();
  [[nodiscard]] std::byte* base() const { return base_; }
  [[nodiscard]] std::uint64_t length() const { return length_; }

 private:
  std::byte* base_ = nullptr;
  std::uint64_t length_ = 0;
};

struct Check {
  std::string name;
  bool ok = false;
  std::string detail;
};

struct Timing {
  std::string what;
  double seconds = 0;
  std::string note;
};

struct DemoRegion {
  RegionId id{};
  std::string heap;
  std::string what;  ///< "memfd, transparent hugepages"
  std::string iova;  ///< "physical", "identity", "given table"
  std::uint64_t length = 0;
  std::uint64_t os_page_size = 0;
  int numa_node = kAnyNode;
  std::uint64_t iova_runs = 0;
  std::uint64_t first_iova = 0;
  double added_in = 0;
};

class Demo {
 public:
  Demo(const DemoOptions& options, const Console& console);
  Demo(const Demo&) = delete;
  Demo& operator=(const Demo&) = delete;
  ~Demo();
  /// Returns an exit code. Throws Impossible.
  int run();
  /// The whole of it as JSON, after run().
  [[nodiscard]] Json report() const;

 private:
  // demo_memory.cpp
  void show_machine();
  void make_heaps();
  void add_memory();
  void add_huge(Heap heap);
  void add_file(Heap heap);
  void add_lent(Heap heap, std::size_t which, std::uint64_t bytes, const char* what);
  void add_device(Heap heap);
  void added(RegionId id, Heap heap, const std::string& what, const std::string& iova, double seconds);
  Result<RegionId> add_own(Heap heap, BackingSpec spec, const std::string& what);
  [[nodiscard]] IovaSource iova_source() const;
  void reserve_memzones();
  void reserve_memzone(Heap heap, const char* name, std::uint64_t length, const AllocOptions& options,
                       const std::string& asked);
  // demo_run.cpp
  void run_load();
  void wait_until(double seconds, const char* doing);
  void drain_and_remove();
  void measure();
  void grow_by_itself();
  // demo_sharing.cpp
  void share_with_processes();
  // demo_checks.cpp
  void check_contents();
  void check_accounting();
  void check_walks();
  void check_iovas();
  void check_refusals();
  void check_verify(const char* when);
  void free_everything();
  void remove_everything();
  // demo_report.cpp
  void show_regions();
  void show_memzones();
  void show_load();
  void show_heaps();
  void show_tags();
  void show_timings();
  void show_map();
  void open_outputs();
  void write_picture();
  int conclude();

  bool check(const std::string& name, bool ok, const std::string& detail = {});
  /// A check that an operation is refused with this errno.
  template <typename T>
  void check_refused(const std::string& name, const Result<T>& result, int code);
  void note(const std::string& text) { notes_.push_back(text); }
  void time(const std::string& what, double seconds, const std::string& note = {}) {
    timings_.push_back({what, seconds, note});
  }
  template <typename T>
  static T need(Result<T> result, const std::string& what) {
    if (!result) throw Impossible(what + ": " + error_text(result.error()));
    return std::move(result).value();
  }
  static void need(const Result<void>& result, const std::string& what) {
    if (!result) throw Impossible(what + ": " + error_text(result.error()));
  }
  static int on_region(const RegionEvent& event, void* arg);

  DemoOptions options_;
  Console console_;
  Machine machine_;
  std::uint64_t unit_ = 0;          ///< the largest region's length; the others are fractions of it
  std::array<LentMemory, 3> lent_;  ///< outlive the domain: declared before it
  Domain domain_;
  Heap packets_, storage_, control_, device_;
  Tag long_lived_{}, device_tag_{};
  std::vector<DemoRegion> regions_;
  RegionId spare_{};  ///< to be drained and removed under load
  RegionId large_{};  ///< the one of large pages
  void* pinned_in_spare_ = nullptr;
  std::vector<void*> device_objects_;
  std::vector<MemzoneInfo> memzones_;
  std::vector<std::string> memzone_asked_;
  std::unique_ptr<Load> load_;
  LoadTotals load_totals_{};
  Stopwatch load_watch_;
  double load_seconds_ = 0;
  std::string removal_report_;
  std::uint64_t regions_heard_ = 0, removals_heard_ = 0;
  bool veto_ = false;
  std::vector<LiveObject> live_;
  std::vector<Check> checks_;
  std::vector<Timing> timings_;
  std::vector<std::string> notes_;
  std::string picture_;
  std::uint64_t picture_bytes_ = 0;
  double total_seconds_ = 0;
};

template <typename T>
void Demo::check_refused(const std::string& name, const Result<T>& result, int code) {
  check(name, result.error().code() == code,
        result ? std::string("was not refused") : error_text(result.error()));
}

}  // namespace extmem::cli
