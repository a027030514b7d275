// Memory event callbacks and allocation validators, and the listener that calls them.
//
// Both lists are of this process. A call works on a snapshot of its list, so that callbacks may register and unregister;
// who unregisters from outside waits until the calls that were under way have ended.
#include "faces/dpdk/memory_events.hpp"

#include <rte_log.h>
#include <rte_memory.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <string>
#include <vector>

#include "faces/dpdk/memory_domain.hpp"
#include "faces/dpdk/memory_heaps.hpp"
#include "faces/dpdk/memory_lock.hpp"
#include "faces/dpdk/memory_mask.hpp"
#include "faces/dpdk/memory_ranges.hpp"

namespace extmem::dpdk {
namespace {

struct EventCallback {
  std::string name;
  void* key;  // the argument
  rte_mem_event_callback_t call;
};
struct Validator {
  std::string name;
  int key;  // the socket
  rte_mem_alloc_validator_t call;
  std::size_t limit;
};

template <typename Entry>
class Registry {
 public:
  using List = std::vector<Entry>;

  int add(Entry entry) {
    const std::lock_guard guard(lock_);
    for (const Entry& old : *list_) {
      if (old.name == entry.name && old.key == entry.key) return fail(EEXIST);
    }
    auto next = std::make_shared<List>(*list_);
    next->push_back(std::move(entry));
    list_ = std::move(next);
    return 0;
  }

  template <typename Key>
  int remove(const char* name, Key key) {
    {
      const std::lock_guard guard(lock_);
      auto next = std::make_shared<List>();
      for (const Entry& old : *list_) {
        if (old.name != name || old.key != key) next->push_back(old);
      }
      if (next->size() == list_->size()) return fail(ENOENT);
      list_ = std::move(next);
    }
    if (!in_callback()) const std::unique_lock all_calls_have_ended(running_);
    return 0;
  }

  /// Calls visit(entry) for each, in the order of registration.
  template <typename Visit>
  void call(Visit&& visit) {
    const std::shared_ptr<const List> list = [&] {
      const std::lock_guard guard(lock_);
      return list_;
    }();
    if (list->empty()) return;
    std::shared_lock running(running_, std::defer_lock);
    if (!in_callback()) running.lock();
    const InCallback inside;
    for (const Entry& entry : *list) {
      if (is_there(entry)) visit(entry);
    }
  }

  void clear() {
    const std::lock_guard guard(lock_);
    list_ = std::make_shared<List>();
  }

 private:
  /// A callback may have unregistered one that comes later.
  bool is_there(const Entry& entry) {
    const std::lock_guard guard(lock_);
    for (const Entry& now : *list_) {
      if (now.name == entry.name && now.key == entry.key) return true;
    }
    return false;
  }

  std::mutex lock_;
  std::shared_ptr<const List> list_ = std::make_shared<List>();
  std::shared_mutex running_;
};

// Never destroyed: memory may come and go at the program's very end.
Registry<EventCallback>& callbacks() {
  static auto* const all = new Registry<EventCallback>;
  return *all;
}
Registry<Validator>& validators() {
  static auto* const all = new Registry<Validator>;
  return *all;
}

/// Returns: 0, or -1 with rte_errno.
int check_name(const char* name, std::size_t size) noexcept {
  const std::size_t length = name == nullptr ? 0 : ::strnlen(name, size);
  if (length == 0) return fail(EINVAL);
  return length == size ? fail(ENAMETOOLONG) : 0;
}

bool validated(int socket, std::uint64_t more) noexcept {
  const std::uint64_t wanted = ranges::internal_bytes(socket) + more;
  bool allowed = true;
  validators().call([&](const Validator& validator) {
    if (validator.key != socket || validator.limit > wanted) return;
    if (validator.call(socket, validator.limit, wanted) < 0) {
      RTE_LOG(DEBUG, EAL, "validator '%s' does not let the heap of socket %d grow to %zu bytes\n",
              validator.name.c_str(), socket, static_cast<std::size_t>(wanted));
      allowed = false;
    }
  });
  return allowed;
}

void tell(rte_mem_event what, const RegionInfo& info) noexcept {
  callbacks().call(
      [&](const EventCallback& callback) { callback.call(what, info.base, info.length, callback.key); });
}

bool is_known(HeapKind kind) noexcept { return kind != HeapKind::none && kind != HeapKind::state; }

int added(const RegionInfo& info, HeapRole role, bool foreign) noexcept {
  if (role.kind == HeapKind::internal && info.grown && !foreign && !validated(role.socket, info.length))
    return ENOMEM;
  if (!foreign && !mask_allows(info)) return EINVAL;
  ranges::add(std::make_shared<Range>(info, role));
  if (role.is_heap()) tell(RTE_MEM_EVENT_ALLOC, info);
  return 0;
}

int removing(const RegionInfo& info, HeapRole role) noexcept {
  const WriteMemory alone(WriteMemory::How::try_once);
  if (!alone.held()) return EBUSY;
  if (info.grown) {
    const RangePtr range = ranges::at(info.base);
    if (range != nullptr && range->kept()) return EBUSY;
  }
  if (role.is_heap()) tell(RTE_MEM_EVENT_FREE, info);
  ranges::remove(reinterpret_cast<std::uintptr_t>(info.base));
  return 0;
}

}  // namespace

int on_region(const RegionEvent& event, void*) noexcept {
  const HeapRole role = role_of(event.info.heap_id);
  if (!is_known(role.kind)) return 0;
  return event.kind == RegionEventKind::added ? added(event.info, role, event.foreign)
                                              : removing(event.info, role);
}

Result<void> learn_regions() noexcept {
  return domain().walk_regions([](const RegionInfo& info) {
    const HeapRole role = role_of(info.heap_id);
    if (info.base != nullptr && is_known(role.kind) && ranges::at(info.base) == nullptr)
      ranges::add(std::make_shared<Range>(info, role));
    return true;
  });
}

void forget_callbacks() noexcept {
  callbacks().clear();
  validators().clear();
}

}  // namespace extmem::dpdk

using namespace extmem::dpdk;

int rte_mem_event_callback_register(const char* name, rte_mem_event_callback_t clb, void* arg) {
  if (clb == nullptr) return fail(EINVAL);
  if (check_name(name, RTE_MEM_EVENT_CALLBACK_NAME_LEN) != 0) return -1;
  return callbacks().add({name, arg, clb});
}

int rte_mem_event_callback_unregister(const char* name, void* arg) {
  if (check_name(name, RTE_MEM_EVENT_CALLBACK_NAME_LEN) != 0) return -1;
  return callbacks().remove(name, arg);
}

int rte_mem_alloc_validator_register(const char* name, rte_mem_alloc_validator_t clb, int socket_id,
                                     size_t limit) {
  if (clb == nullptr || socket_id < 0) return fail(EINVAL);
  if (check_name(name, RTE_MEM_ALLOC_VALIDATOR_NAME_LEN) != 0) return -1;
  return validators().add({name, socket_id, clb, limit});
}

int rte_mem_alloc_validator_unregister(const char* name, int socket_id) {
  if (socket_id < 0) return fail(EINVAL);
  if (check_name(name, RTE_MEM_ALLOC_VALIDATOR_NAME_LEN) != 0) return -1;
  return validators().remove(name, socket_id);
}
