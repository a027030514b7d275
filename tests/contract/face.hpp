// Face: the same operations through the C++ interface or through the C one, so that one test proves both.
//
// Every function returns 0 or -errno; message() is what the last failing one said. Options and reports are the
// C++ structs: CFace translates them, and so tests the C structs as well.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "extmem/domain.hpp"

namespace extmem::test {

class Face {
 public:
  virtual ~Face() = default;

  virtual int create(const DomainOptions& options) = 0;
  virtual int open(const char* name, const OpenOptions& options) = 0;
  virtual void close() = 0;
  [[nodiscard]] virtual std::string message() const = 0;

  virtual int create_heap(const char* name, const HeapOptions& options, Heap& heap) = 0;
  virtual int find_heap(const char* name, Heap& heap) = 0;
  virtual int heap_by_id(std::uint32_t id, Heap& heap) = 0;
  virtual int heap_of_node(int node, Heap& heap) = 0;
  virtual int destroy_heap(Heap heap, HolderReport* users) = 0;
  virtual int heap_info(Heap heap, HeapInfo& info) = 0;
  virtual int list_heaps(std::vector<HeapInfo>& heaps) = 0;

  virtual int add_region(Heap heap, const RegionSpec& spec, RegionId& region) = 0;
  virtual int add_backing(Heap heap, const BackingSpec& spec, RegionId& region) = 0;
  virtual int remove_region(RegionId region, HolderReport* holders) = 0;
  virtual int drain_region(RegionId region, std::chrono::nanoseconds timeout, HolderReport* holders) = 0;
  virtual int undrain_region(RegionId region) = 0;
  virtual int region_info(RegionId region, RegionInfo& info) = 0;
  virtual int region_file(RegionId region, RegionFile& file) = 0;
  virtual int region_of(const void* p, RegionId& region) = 0;
  /// Stays registered until the domain is closed.
  virtual int add_listener(RegionListener listener, void* arg) = 0;
  virtual int list_regions(std::vector<RegionInfo>& regions) = 0;
  virtual int list_iova_runs(RegionId region, std::vector<IovaRun>& runs) = 0;

  virtual int iova_of(const void* p, Iova& iova) = 0;
  virtual int address_of(Iova iova, void*& p) = 0;
  virtual int iova_contiguous(const void* p, std::size_t n, bool& contiguous) = 0;
  virtual int iova_runs(const void* p, std::size_t n, std::span<IovaRun> runs, std::size_t& count) = 0;
  virtual int to_region_ptr(const void* p, RegionPtr& ptr) = 0;
  virtual int from_region_ptr(RegionPtr ptr, void*& p) = 0;

  virtual int allocate(Heap heap, std::size_t size, const AllocOptions& options, void*& p) = 0;
  virtual int zalloc(Heap heap, std::size_t size, const AllocOptions& options, void*& p) = 0;
  virtual int calloc(Heap heap, std::size_t count, std::size_t size, const AllocOptions& options,
                     void*& p) = 0;
  virtual int reallocate(Heap heap, std::size_t size, const AllocOptions& options, void*& p) = 0;
  virtual int deallocate(Heap heap, void* p) = 0;
  virtual int deallocate(void* p) = 0;
  virtual int allocate_batch(Heap heap, std::size_t size, std::span<void*> out,
                             const AllocOptions& options) = 0;
  virtual int deallocate_batch(Heap heap, std::span<void* const> pointers, std::size_t* first_bad) = 0;
  virtual int usable_size(Heap heap, const void* p, std::size_t& size) = 0;
  virtual int usable_size(const void* p, std::size_t& size) = 0;
  virtual int owner_of(Heap heap, const void* p, ObjectInfo& info) = 0;
  virtual int owner_of(const void* p, ObjectInfo& info) = 0;

  virtual int stats(Heap heap, HeapStats& stats) = 0;
  virtual int tag_stats(Heap heap, std::vector<TagStats>& stats) = 0;
  virtual int walk(Heap heap, bool objects, std::vector<WalkEntry>& entries) = 0;
  virtual int verify(std::vector<Breach>& breaches) = 0;
  virtual int flush(Heap heap) = 0;

  virtual int intern_tag(const char* name, Tag& tag) = 0;
  virtual int tag_name(Tag tag, std::string& name) = 0;

  virtual int reserve_memzone(Heap heap, const char* name, std::size_t length, const AllocOptions& options,
                              MemzoneInfo& info) = 0;
  virtual int find_memzone(const char* name, MemzoneInfo& info) = 0;
  virtual int free_memzone(const char* name) = 0;
  virtual int list_memzones(std::vector<MemzoneInfo>& memzones) = 0;
  virtual int memzone_count(std::size_t& count) = 0;

  // Named domains. remove and list need no open one.
  virtual int remove(const char* name, const char* directory) = 0;
  virtual int list(const char* directory, std::vector<DomainInfo>& domains) = 0;
  virtual int is_named(bool& named) = 0;
  virtual int participant(std::uint32_t& id) = 0;
  virtual int list_participants(std::vector<ParticipantInfo>& participants) = 0;
  virtual int recover(RecoveryReport& report) = 0;
  virtual int poll() = 0;
  virtual int hand_over(const void* p, std::uint32_t participant) = 0;
  virtual int attach_region(RegionId region, void* base) = 0;
  virtual int attach_region_file(RegionId region, int fd, std::uint64_t offset) = 0;
  virtual int detach_region(RegionId region) = 0;
  virtual int place_backings(std::uint64_t lowest) = 0;

  // Shorthands.
  int create_heap(const char* name, Heap& heap) { return create_heap(name, HeapOptions{}, heap); }
  int allocate(Heap heap, std::size_t size, void*& p) { return allocate(heap, size, AllocOptions{}, p); }
};

enum class FaceKind { cpp, c };
std::unique_ptr<Face> make_face(FaceKind kind);
inline const char* name_of(FaceKind kind) { return kind == FaceKind::cpp ? "Cpp" : "C"; }

}  // namespace extmem::test
