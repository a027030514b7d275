// The memory lock, and its four functions of rte_eal_memconfig.h.
#include "faces/dpdk/memory_lock.hpp"

#include <rte_eal_memconfig.h>
#include <rte_log.h>

#include <shared_mutex>

namespace extmem::dpdk {
namespace {

std::shared_mutex lock;

thread_local int reads = 0;        // how often this thread reads; the lock is held by the first
thread_local int writes = 0;       // how often it writes
thread_local int callbacks = 0;    // how deep it is in callbacks
thread_local bool shared = false;  // the reads hold the lock

}  // namespace

void MemoryLock::read() noexcept {
  if (reads++ != 0 || writes != 0 || callbacks != 0) return;
  lock.lock_shared();
  shared = true;
}

void MemoryLock::end_read() noexcept {
  if (reads == 0 || --reads != 0 || !shared) return;
  shared = false;
  lock.unlock_shared();
}

bool MemoryLock::write() noexcept {
  if (writes == 0) {
    if (reads != 0 || callbacks != 0) return false;
    lock.lock();
  }
  ++writes;
  return true;
}

bool MemoryLock::try_write() noexcept {
  if (writes == 0 && (reads != 0 || !lock.try_lock())) return false;
  ++writes;
  return true;
}

void MemoryLock::end_write() noexcept {
  if (writes != 0 && --writes == 0) lock.unlock();
}

bool in_callback() noexcept { return callbacks != 0; }

InCallback::InCallback() noexcept { ++callbacks; }
InCallback::~InCallback() { --callbacks; }

}  // namespace extmem::dpdk

using extmem::dpdk::MemoryLock;

extern "C" {

void rte_mcfg_mem_read_lock(void) { MemoryLock::read(); }
void rte_mcfg_mem_read_unlock(void) { MemoryLock::end_read(); }
void rte_mcfg_mem_write_lock(void) {
  if (!MemoryLock::write())
    RTE_LOG(ERR, EAL,
            "rte_mcfg_mem_write_lock(): not inside a walk, a read lock or a memory event callback; the lock "
            "is not held\n");
}
void rte_mcfg_mem_write_unlock(void) { MemoryLock::end_write(); }

}  // extern "C"
