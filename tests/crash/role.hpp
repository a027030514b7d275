// Role: what a child does: a domain that it opened, and operations that write themselves into the log.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "crash/log.hpp"
#include "extmem/domain.hpp"

namespace extmem::crash {

/// How the domains of these tests are opened: small ones, as many of them are made.
inline OpenOptions small_domain(const std::string& directory) {
  OpenOptions options;
  options.directory = directory.c_str();
  options.sizes.max_regions = 16;
  options.sizes.max_heaps = 16;
  options.sizes.max_memzones = 16;
  options.sizes.max_tags = 16;
  options.sizes.max_threads = 32;
  options.sizes.small_metadata = 4u << 20;
  options.sizes.large_metadata = 4u << 20;
  return options;
}

/// The file of a region that goes with it, in the harness' folder.
inline constexpr const char* kFile = "made";

class Role {
 public:
  Role(Log& log, const char* directory, const char* name) : log_(log), directory_(directory), name_(name) {}

  /// Opens the domain, and finds its heaps.
  void open();
  void close();
  void prepare(const std::string& operation);
  void act(const std::string& operation);
  /// Loops for ever over everything, by chance.
  void run_at_random();

 private:
  [[noreturn]] void complain(const char* what, const Error& error);
  template <typename T>
  T must(Result<T> result, const char* what) {
    if (!result) complain(what, result.error());
    return std::move(*result);
  }
  void must(Result<void> result, const char* what) {
    if (!result) complain(what, result.error());
  }
  Entry* empty_entry();
  void note(Entry& entry, void* p, std::uint32_t size);
  Entry* allocate(Heap heap, std::uint32_t size, const AllocOptions& options = {});
  void free(Heap heap, Entry& entry);
  void free_lent(std::uint32_t most);
  void free_all(Heap heap);
  void reallocate(Heap heap, Entry& entry, std::uint32_t size);
  void hand_over(Entry& entry);
  void reserve(Heap heap, std::uint32_t zone, std::uint32_t length);
  void unreserve(std::uint32_t zone);
  RegionId add_backing(Heap heap, std::uint64_t length);
  RegionId add_external(std::uint64_t length);
  RegionId add_file(Heap heap, std::uint64_t length);
  void random_step(std::uint64_t random);
  Heap heap_of(const Entry& entry);

  Log& log_;
  std::string directory_;
  std::string name_;
  Domain domain_;
  Heap small_;  // binned
  Heap exact_;
  Heap kept_;  // OnDeath::keep
  Heap kept_exact_;
  Heap grown_;
  Heap own_;  // made by prepare()
  RegionId region_{};
  RegionId first_region_{};  // of two of own_
  Tag tag_{};
  bool patient_ = false;  // without memory it goes on with something else
  std::uint32_t next_entry_ = 0;
  std::uint32_t mine_heap_ = 0;  // where the object comes from that is noted next
  std::vector<Entry*> mine_;
};

/// All operations, but "recover" and "withhold" (of a cleaner) and "random".
const std::vector<std::string>& operations();
/// Those that take fast paths, so short that a death after each of their instructions can be tried.
inline bool is_fast(const std::string& operation) {
  return operation == "allocate_hit" || operation == "free_local" || operation == "free_shared" ||
         operation == "allocate_tagged" || operation.ends_with("exact_hit") ||
         operation.ends_with("exact_push");
}

}  // namespace extmem::crash
