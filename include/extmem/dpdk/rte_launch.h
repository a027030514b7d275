/* Running functions on worker lcores.
 *
 * Thread-safety: launching on one lcore and waiting for it are for one thread at a time, usually the main lcore's.
 */
#ifndef EXTMEM_DPDK_RTE_LAUNCH_H
#define EXTMEM_DPDK_RTE_LAUNCH_H

#ifdef __cplusplus
extern "C" {
#endif

enum rte_lcore_state_t {
  WAIT,   /* for a function to run */
  RUNNING /* a function */
};

typedef int(lcore_function_t)(void*);

/* Starts f(arg) on a worker lcore. What was written before is seen there.
 * Returns: 0; -EBUSY where the lcore still runs a function; -EINVAL for a NULL function, the main lcore, or no lcore. */
int rte_eal_remote_launch(lcore_function_t* f, void* arg, unsigned worker_id);

enum rte_rmt_call_main_t {
  SKIP_MAIN = 0, /* workers only */
  CALL_MAIN      /* the caller, after it has started the workers */
};

/* Starts f(arg) on every worker. Returns: 0; -EBUSY where one still runs a function (then none is started); -EINVAL. */
int rte_eal_mp_remote_launch(lcore_function_t* f, void* arg, enum rte_rmt_call_main_t call_main);

enum rte_lcore_state_t rte_eal_get_lcore_state(unsigned int worker_id);

/* Waits for the lcore's function to end; what it wrote is seen afterwards. Returns: its result; 0 where none has run;
 * -EINVAL for an id that is no lcore's. */
int rte_eal_wait_lcore(unsigned worker_id);

/* Waits for all workers. */
void rte_eal_mp_wait_lcore(void);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_LAUNCH_H */
