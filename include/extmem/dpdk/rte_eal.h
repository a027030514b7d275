/* Starting and ending: rte_eal_init(), its options, and what can be asked about the process afterwards.
 *
 * Here DPDK's environment is small: memory, lcores, a log and a clock. There are no devices, buses or interrupts.
 * docs/dpdk.md lists every option and function, and where extmem differs.
 * Thread-safety: rte_eal_init() and rte_eal_cleanup() are for one thread; the rest any thread may call at any time.
 */
#ifndef EXTMEM_DPDK_RTE_EAL_H
#define EXTMEM_DPDK_RTE_EAL_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include <rte_compat.h>
#include <rte_config.h>
#include <rte_per_lcore.h>
#include <rte_uuid.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_MAGIC 19820526
#define RTE_MAX_THREAD_NAME_LEN 16

enum rte_proc_type_t {
  RTE_PROC_AUTO = -1, /* primary where there is none yet */
  RTE_PROC_PRIMARY = 0,
  RTE_PROC_SECONDARY,
  RTE_PROC_INVALID
};

/* RTE_PROC_PRIMARY or RTE_PROC_SECONDARY; before rte_eal_init() RTE_PROC_PRIMARY. */
enum rte_proc_type_t rte_eal_process_type(void);

/* Parses the options and starts: sockets, memory, log, and one pinned thread for each worker lcore. The caller
 * becomes the main lcore and is pinned to its processor.
 *
 * argv[0] is the program's name. Options end at the first "--" or at the first argument that is not an option, and
 * are moved to the front, as getopt_long() does; argv[return value] is set to the program's name, so that
 * `argc -= ret; argv += ret;` leaves the program its own arguments.
 *
 * Returns: how many arguments were taken (0 or more), or -1 with rte_errno:
 *   EINVAL    an option is unknown, malformed, or does not go with another (the usage is printed);
 *   EALREADY  it has run before in this process;
 *   EBUSY     a living process of this file prefix is primary already;
 *   ENOENT    secondary, and no primary was ever started with this file prefix;
 *   ENOMEM, EACCES, ...  memory that was asked for cannot be had, or the runtime directory not be used.
 */
int rte_eal_init(int argc, char** argv);

/* Ends what rte_eal_init() started: worker threads, memory. rte_eal_init() cannot run again in this process.
 * Returns: 0, or -1 with rte_errno: EBUSY a worker still runs a function (then nothing has changed);
 * E_RTE_NO_CONFIG rte_eal_init() has not run; EALREADY the second time.
 * A process may exit without it, at any time; a fork's child may call it for itself. */
int rte_eal_cleanup(void);

/* 1 where a living process is the primary one of this file prefix, else 0. `config_file_path` names its
 * configuration file; NULL: that of this process' own prefix. */
int rte_eal_primary_proc_alive(const char* config_file_path);

typedef void (*rte_usage_hook_t)(const char* prgname);

/* Sets the function that prints the program's own options after ours, NULL for none. Returns: the one before. */
rte_usage_hook_t rte_set_application_usage_hook(rte_usage_hook_t usage_func);

/* 1 unless --no-huge was given. */
int rte_eal_has_hugepages(void);
/* 0: there is no PCI here, with --no-pci or without. */
int rte_eal_has_pci(void);
/* 1 where --create-uio-dev was given; extmem makes no device. */
int rte_eal_create_uio_dev(void);
/* Needs I/O privileges, which memory does not. Returns: 0. */
int rte_eal_iopl_init(void);

enum rte_intr_mode { RTE_INTR_MODE_NONE = 0, RTE_INTR_MODE_LEGACY, RTE_INTR_MODE_MSI, RTE_INTR_MODE_MSIX };

/* What --vfio-intr said. */
enum rte_intr_mode rte_eal_vfio_intr_mode(void);
/* What --vfio-vf-token said; zeros without it. */
void rte_eal_vfio_get_vf_token(rte_uuid_t vf_token);

enum rte_iova_mode {
  RTE_IOVA_DC = 0, /* do not care */
  RTE_IOVA_PA = 1, /* the IOVAs of internal memory are physical addresses */
  RTE_IOVA_VA = 2  /* they are virtual addresses */
};

/* RTE_IOVA_VA, or RTE_IOVA_PA where --iova-mode=pa asked for it; before rte_eal_init() RTE_IOVA_DC. */
enum rte_iova_mode rte_eal_iova_mode(void);

/* What --base-virtaddr said, else the address where DPDK would begin to look: 0x100000000. */
uint64_t rte_eal_get_baseaddr(void);

/* What --mbuf-pool-ops-name said, or NULL. */
const char* rte_eal_mbuf_user_pool_ops(void);

/* The directory of this file prefix' runtime files; "" before rte_eal_init(). */
const char* rte_eal_get_runtime_dir(void);

/* Reads a mask of processors ("0xf0") into cores[RTE_MAX_LCORE]: the processor's place in the list, or -1.
 * Returns: 0, or -1 where the text is no mask or empty, or a bit is too high. */
int rte_eal_parse_coremask(const char* coremask, int* cores);

/* The kernel's id of the calling thread. */
int rte_sys_gettid(void);

RTE_DECLARE_PER_LCORE(int, _thread_id);

/* The same, remembered. */
static inline int rte_gettid(void) {
  if (RTE_PER_LCORE(_thread_id) == -1) RTE_PER_LCORE(_thread_id) = rte_sys_gettid();
  return RTE_PER_LCORE(_thread_id);
}

/* ---- messages between processes ----
 *
 * extmem's processes share heaps without messages, so there is no channel: what sends fails with ENOTSUP, as in DPDK
 * with --no-shconf. */

#define RTE_MP_MAX_FD_NUM 8
#define RTE_MP_MAX_NAME_LEN 64
#define RTE_MP_MAX_PARAM_LEN 256

struct rte_mp_msg {
  char name[RTE_MP_MAX_NAME_LEN];
  int len_param;
  int num_fds;
  uint8_t param[RTE_MP_MAX_PARAM_LEN];
  int fds[RTE_MP_MAX_FD_NUM];
};

struct rte_mp_reply {
  int nb_sent;
  int nb_received;
  struct rte_mp_msg* msgs; /* the caller frees it */
};

typedef int (*rte_mp_t)(const struct rte_mp_msg* msg, const void* peer);
typedef int (*rte_mp_async_reply_t)(const struct rte_mp_msg* request, const struct rte_mp_reply* reply);

/* True: it is off already. */
bool rte_mp_disable(void);

/* Each returns -1 with rte_errno: EINVAL for a NULL argument, an empty or unending name, or too much in the message;
 * else ENOTSUP. */
int rte_mp_action_register(const char* name, rte_mp_t action);
void rte_mp_action_unregister(const char* name);
int rte_mp_sendmsg(struct rte_mp_msg* msg);
int rte_mp_request_sync(struct rte_mp_msg* req, struct rte_mp_reply* reply, const struct timespec* ts);
int rte_mp_request_async(struct rte_mp_msg* req, const struct timespec* ts, rte_mp_async_reply_t clb);
int rte_mp_reply(struct rte_mp_msg* msg, const char* peer);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_EAL_H */
