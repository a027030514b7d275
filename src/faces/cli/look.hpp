// What the commands see of domains from outside, through extmem::Inspector: nobody in them notices, and nobody is waited for.
#pragma once

#include <string>
#include <vector>

#include "extmem/inspect.hpp"
#include "extmem/types.hpp"
#include "faces/cli/shell.hpp"

namespace extmem::cli {

struct HeapLook {
  HeapInfo info;
  HeapStats stats;
  std::vector<TagStats> tags;  ///< the untagged one first
  HolderReport holders;
  bool stable = true;  ///< false: the heap was changed while it was read, and its figures need not add up
};

struct DomainLook {
  std::string name;
  std::string trouble;  ///< why there is nothing else; empty: nothing wrong
  std::uint64_t metadata_bytes = 0;
  std::vector<ParticipantInfo> processes;
  std::vector<HeapLook> heaps;
  std::vector<RegionInfo> regions;
  std::vector<MemzoneInfo> zones;

  [[nodiscard]] const char* heap_name(std::uint32_t id) const;
  [[nodiscard]] std::size_t dead() const;
};

struct Wanted {
  bool stats = true;  ///< of heaps
  bool tags = false;  ///< ... and who holds what
  bool regions = true;
  bool zones = true;
};

/// The runtime directory, as Domain::open chooses it, and why.
struct RuntimeDirectory {
  std::string path;
  std::string because;
};
RuntimeDirectory runtime_directory(const std::string& given);

/// The names of the domains of a runtime directory, sorted; none where it does not exist. Takes no lock. Throws Failure.
std::vector<std::string> domain_names(const ShellOptions& options);

/// Throws Failure.
Inspector open_inspector(const ShellOptions& options, const std::string& name, const Console& console);
/// Reads what is wanted. Throws Failure.
DomainLook look_at(Inspector& inspector, const std::string& name, const Wanted& wanted);
/// The same for a domain by its name; what is wrong with it comes in DomainLook::trouble.
DomainLook look_at(const ShellOptions& options, const std::string& name, const Wanted& wanted,
                   const Console& console);

// ---- in JSON: members of an object that is open ---------------------------------------------------------------

void add_stats(Json& json, const HeapStats& stats);
void add_tags(Json& json, const std::vector<TagStats>& tags);
void add_processes(Json& json, const std::vector<ParticipantInfo>& processes);
void add_regions(Json& json, const DomainLook& domain);
void add_zones(Json& json, const DomainLook& domain);

}  // namespace extmem::cli
