// The locks of rte_eal_memconfig.h: this process' own. That of memory is in memory_lock.cpp.
#include <pthread.h>
#include <rte_eal_memconfig.h>

namespace {

// glibc's default prefers readers, so a reader may read-lock again while a writer waits.
pthread_rwlock_t tailq = PTHREAD_RWLOCK_INITIALIZER;
pthread_rwlock_t mempool = PTHREAD_RWLOCK_INITIALIZER;
pthread_mutex_t timer = PTHREAD_MUTEX_INITIALIZER;

void read_lock(pthread_rwlock_t& lock) { (void)::pthread_rwlock_rdlock(&lock); }
void write_lock(pthread_rwlock_t& lock) { (void)::pthread_rwlock_wrlock(&lock); }
void unlock(pthread_rwlock_t& lock) { (void)::pthread_rwlock_unlock(&lock); }

}  // namespace

extern "C" {

void rte_mcfg_tailq_read_lock(void) { read_lock(tailq); }
void rte_mcfg_tailq_read_unlock(void) { unlock(tailq); }
void rte_mcfg_tailq_write_lock(void) { write_lock(tailq); }
void rte_mcfg_tailq_write_unlock(void) { unlock(tailq); }
void rte_mcfg_mempool_read_lock(void) { read_lock(mempool); }
void rte_mcfg_mempool_read_unlock(void) { unlock(mempool); }
void rte_mcfg_mempool_write_lock(void) { write_lock(mempool); }
void rte_mcfg_mempool_write_unlock(void) { unlock(mempool); }
void rte_mcfg_timer_lock(void) { (void)::pthread_mutex_lock(&timer); }
void rte_mcfg_timer_unlock(void) { (void)::pthread_mutex_unlock(&timer); }

}  // extern "C"
