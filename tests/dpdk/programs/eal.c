/* rte_eal.h: before, during and after; and what needs no options: time, random numbers, paging, the locks of
 * rte_eal_memconfig.h. */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <rte_cycles.h>
#include <rte_debug.h>
#include <rte_eal.h>
#include <rte_eal_memconfig.h>
#include <rte_eal_paging.h>
#include <rte_errno.h>
#include <rte_lcore.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <rte_random.h>

#include "check.h"

static int usage_calls = 0;
static void usage(const char* name) { usage_calls += name != NULL; }

/* Before rte_eal_init() and after rte_eal_cleanup() there is no memory, and asking for some does no harm. */
static int without_memory(void) {
  static char page[2 * 4096];
  char* const start = RTE_PTR_ALIGN(&page[0], 4096);
  CHECK(rte_malloc(NULL, 64, 0) == NULL && rte_realloc(NULL, 64, 0) == NULL);
  rte_free(NULL);
  CHECK(rte_malloc_validate(page, NULL) == -1 && rte_malloc_virt2iova(page) == RTE_BAD_IOVA);
  CHECK(rte_malloc_heap_create("h") == -1 && rte_errno == E_RTE_NO_CONFIG);
  CHECK(rte_malloc_heap_destroy("h") == -1 && rte_errno == ENOENT);
  CHECK(rte_malloc_heap_memory_add("h", start, 4096, NULL, 0, 4096) == -1 && rte_errno == ENOENT);
  CHECK(rte_extmem_register(start, 4096, NULL, 0, 4096) == -1 && rte_errno == E_RTE_NO_CONFIG);
  CHECK(rte_extmem_unregister(start, 4096) == -1 && rte_errno == ENOENT);
  CHECK(rte_memzone_reserve("z", 64, SOCKET_ID_ANY, 0) == NULL && rte_errno == E_RTE_NO_CONFIG);
  CHECK(rte_memzone_lookup("z") == NULL && rte_mem_virt2memseg_list(page) == NULL);
  CHECK(rte_eal_get_physmem_size() == 0);
  return 0;
}

static int before(void) {
  CHECK(rte_eal_process_type() == RTE_PROC_PRIMARY);
  CHECK(rte_eal_iova_mode() == RTE_IOVA_DC);
  CHECK(strcmp(rte_eal_get_runtime_dir(), "") == 0);
  CHECK(rte_lcore_count() == 0 && rte_lcore_id() == LCORE_ID_ANY);
  CHECK(rte_thread_register() == -1 && rte_errno == EINVAL);
  CHECK(rte_eal_cleanup() == -1 && rte_errno == E_RTE_NO_CONFIG);
  return without_memory();
}

static int wrong_options(void) {
  char program[] = "program", option[] = "--no-such-option", end[] = "--";
  char* argv[] = {program, option, end, NULL};
  CHECK(rte_set_application_usage_hook(usage) == NULL);
  rte_errno = 0;
  CHECK(rte_eal_init(3, argv) == -1 && rte_errno == EINVAL && usage_calls == 1);
  CHECK(rte_set_application_usage_hook(NULL) == usage);
  return 0;
}

static int mp(void) {
  struct rte_mp_msg msg;
  struct rte_mp_reply reply;
  struct timespec wait = {1, 0};
  memset(&msg, 0, sizeof msg);
  CHECK(rte_mp_sendmsg(NULL) == -1 && rte_errno == EINVAL);
  CHECK(rte_mp_sendmsg(&msg) == -1 && rte_errno == EINVAL);
  strcpy(msg.name, "hello");
  CHECK(rte_mp_sendmsg(&msg) == -1 && rte_errno == ENOTSUP);
  CHECK(rte_mp_request_sync(&msg, &reply, &wait) == -1 && rte_errno == ENOTSUP && reply.nb_sent == 0);
  msg.num_fds = RTE_MP_MAX_FD_NUM + 1;
  CHECK(rte_mp_reply(&msg, "peer") == -1 && rte_errno == EINVAL);
  CHECK(rte_mp_action_register("hello", NULL) == -1 && rte_errno == EINVAL);
  CHECK(rte_mp_disable());
  return 0;
}

static int during(int argc, char** argv) {
  int cores[RTE_MAX_LCORE];
  rte_uuid_t token;
  CHECK(rte_eal_init(argc, argv) == -1 && rte_errno == EALREADY);
  CHECK(rte_eal_process_type() == RTE_PROC_PRIMARY);
  CHECK(rte_eal_has_hugepages() == 0 && rte_eal_has_pci() == 0 && rte_eal_create_uio_dev() == 0);
  CHECK(rte_eal_iova_mode() == RTE_IOVA_VA);
  CHECK(rte_eal_vfio_intr_mode() == RTE_INTR_MODE_NONE && rte_eal_mbuf_user_pool_ops() == NULL);
  rte_eal_vfio_get_vf_token(token);
  CHECK(rte_uuid_is_null(token));
  CHECK(rte_eal_get_baseaddr() != 0 && rte_eal_iopl_init() == 0);
  CHECK(strstr(rte_eal_get_runtime_dir(), "/rte") != NULL);
  CHECK(rte_eal_primary_proc_alive(NULL) == 0); /* nothing is shared */
  CHECK(rte_eal_primary_proc_alive("/nowhere/config") == 0);
  CHECK(rte_sys_gettid() == (int)getpid() && rte_gettid() == (int)getpid());
  CHECK(rte_eal_parse_coremask("0xa1", cores) == 0);
  CHECK(cores[0] == 0 && cores[1] == -1 && cores[5] == 1 && cores[7] == 2 && cores[8] == -1);
  CHECK(rte_eal_parse_coremask("0", cores) == -1 && rte_eal_parse_coremask("x", cores) == -1);
  CHECK(rte_eal_parse_coremask("", cores) == -1 && rte_eal_parse_coremask(NULL, cores) == -1);
  CHECK(rte_mcfg_get_single_file_segments() == false);
  rte_mcfg_mem_read_lock();
  rte_mcfg_mem_read_lock();
  rte_mcfg_mem_read_unlock();
  rte_mcfg_mem_read_unlock();
  rte_mcfg_mem_write_lock();
  rte_mcfg_mem_write_unlock();
  rte_mcfg_timer_lock();
  rte_mcfg_timer_unlock();
  return mp();
}

static unsigned delayed = 0;
static void count_delay(unsigned us) { delayed += us; }

static int timing(void) {
  uint64_t start, took, hz = rte_get_tsc_hz();
  struct timespec a, b;
  double seconds;
  CHECK(hz > 1000000 && rte_get_timer_hz() == hz && eal_timer_source == EAL_TIMER_TSC);
  clock_gettime(CLOCK_MONOTONIC, &a);
  start = rte_get_tsc_cycles();
  rte_delay_us_sleep(100000);
  took = rte_rdtsc_precise() - start;
  clock_gettime(CLOCK_MONOTONIC, &b);
  seconds = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) / NS_PER_S;
  CHECK((double)took / (double)hz > 0.099 && (double)took / (double)hz < seconds * 1.02 + 0.001);
  start = rte_get_timer_cycles();
  rte_delay_us(2000);
  rte_delay_ms(1);
  CHECK(rte_get_timer_cycles() - start >= hz / 1000 * 29 / 10);
  rte_delay_us_callback_register(count_delay);
  rte_delay_us(5);
  rte_delay_ms(2);
  CHECK(delayed == 2005);
  rte_delay_us_callback_register(rte_delay_us_block);
  CHECK(MS_PER_S == 1000 && US_PER_S == 1000000 && NS_PER_S == 1000000000);
  return 0;
}

static uint64_t of_other_thread[2];
static void* other_thread(void* arg) {
  (void)arg;
  of_other_thread[0] = rte_rand();
  of_other_thread[1] = rte_rand();
  return NULL;
}

static int randomness(void) {
  uint64_t first[4], seen = 0;
  pthread_t thread;
  int i;
  rte_srand(42);
  for (i = 0; i < 4; i++) first[i] = rte_rand();
  rte_srand(42);
  for (i = 0; i < 4; i++) CHECK(rte_rand() == first[i]);
  rte_srand(43);
  CHECK(rte_rand() != first[0]);
  CHECK(first[0] != first[1] && first[1] != first[2]);
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0 && pthread_join(thread, NULL) == 0);
  CHECK(of_other_thread[0] != of_other_thread[1]);
  CHECK(rte_rand_max(0) == 0 && rte_rand_max(1) == 0);
  for (i = 0; i < 1000; i++) {
    uint64_t number = rte_rand_max(5);
    double real = rte_drand();
    CHECK(number < 5 && real >= 0.0 && real < 1.0);
    seen |= (uint64_t)1 << number;
  }
  CHECK(seen == 31);
  CHECK(rte_rand_max(UINT64_MAX) != rte_rand_max(UINT64_MAX));
  return 0;
}

static int paging(void) {
  size_t page = rte_mem_page_size();
  char* p = (char*)rte_mem_map(NULL, 4 * page, RTE_PROT_READ | RTE_PROT_WRITE,
                               RTE_MAP_PRIVATE | RTE_MAP_ANONYMOUS, -1, 0);
  CHECK(page == (size_t)sysconf(_SC_PAGESIZE) && p != NULL);
  p[0] = 1;
  CHECK(rte_mem_map(p + page, page, RTE_PROT_READ, RTE_MAP_SHARED | RTE_MAP_ANONYMOUS | RTE_MAP_FORCE_ADDRESS,
                    -1, 0) == p + page);
  CHECK(p[0] == 1 && p[page] == 0);
  CHECK(rte_mem_lock(p, page) == 0 || rte_errno == ENOMEM || rte_errno == EPERM);
  CHECK(rte_mem_unmap(p, 4 * page) == 0);
  CHECK(rte_mem_unmap((char*)1, page) == -1 && rte_errno == EINVAL);
  CHECK(rte_mem_map(NULL, 0, RTE_PROT_READ, RTE_MAP_PRIVATE | RTE_MAP_ANONYMOUS, -1, 0) == NULL &&
        rte_errno == EINVAL);
  CHECK(rte_mem_map(NULL, page, RTE_PROT_READ, RTE_MAP_SHARED, -1, 0) == NULL && rte_errno == EBADF);
  return 0;
}

/* How a child ends that gives up. */
static int giving_up(void) {
  int status, i;
  for (i = 0; i < 3; i++) {
    pid_t child = fork();
    CHECK(child >= 0);
    if (child == 0) {
      if (i == 0) rte_panic("no way to go on: %d\n", 5);
      if (i == 1) RTE_VERIFY(i == 2);
      RTE_VERIFY(i == 2);
      RTE_ASSERT(i == 3); /* off without RTE_ENABLE_ASSERT */
      _exit(3);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(i == 2 ? WIFEXITED(status) && WEXITSTATUS(status) == 3
                 : WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
  }
  rte_dump_stack();
  return 0;
}

int main(int argc, char** argv) {
  int taken, status;
  pid_t child;
  if (before() || wrong_options()) return 1;
  child = fork();
  CHECK(child >= 0);
  if (child == 0) {
    if (rte_eal_init(argc, argv) < 0) _exit(1);
    rte_exit(7, "enough of %s\n", "this");
  }
  CHECK(waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 7);

  taken = rte_eal_init(argc, argv);
  CHECK(taken == argc - 1 && argv[taken] == argv[0]);
  if (during(argc, argv) || timing() || randomness() || paging() || giving_up()) return 1;
  CHECK(rte_eal_cleanup() == 0);
  CHECK(rte_eal_cleanup() == -1 && rte_errno == EALREADY);
  CHECK(rte_lcore_count() == 0 && rte_eal_iova_mode() == RTE_IOVA_DC);
  CHECK(without_memory() == 0);
  CHECK(rte_eal_init(argc, argv) == -1 && rte_errno == EALREADY);
  return 0;
}
