// The memory lock, and its four functions of rte_eal_memconfig.h.
#include "faces/dpdk/memory_lock.hpp"

#include <pthread.h>
#include <rte_eal_memconfig.h>
#include <rte_log.h>

namespace extmem::dpdk {
namespace {

// Who wants to write comes before who only now wants to read, as in DPDK: else walks could keep memory for ever. A thread
// that reads already does not come here again.
pthread_rwlock_t lock = PTHREAD_RWLOCK_WRITER_NONRECURSIVE_INITIALIZER_NP;

thread_local int reads = 0;        // how often this thread reads; the lock is held by the first
thread_local int writes = 0;       // how often it writes
thread_local int callbacks = 0;    // how deep it is in callbacks
thread_local bool shared = false;  // the reads hold the lock

}  // namespace

void MemoryLock::read() noexcept {
  if (reads++ != 0 || writes != 0 || callbacks != 0) return;
  (void)::pthread_rwlock_rdlock(&lock);
  shared = true;
}

void MemoryLock::end_read() noexcept {
  if (reads == 0 || --reads != 0 || !shared) return;
  shared = false;
  (void)::pthread_rwlock_unlock(&lock);
}

bool MemoryLock::write() noexcept {
  if (writes == 0) {
    if (reads != 0 || callbacks != 0) return false;
    (void)::pthread_rwlock_wrlock(&lock);
  }
  ++writes;
  return true;
}

bool MemoryLock::try_write() noexcept {
  if (writes == 0 && (reads != 0 || ::pthread_rwlock_trywrlock(&lock) != 0)) return false;
  ++writes;
  return true;
}

void MemoryLock::end_write() noexcept {
  if (writes != 0 && --writes == 0) (void)::pthread_rwlock_unlock(&lock);
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
