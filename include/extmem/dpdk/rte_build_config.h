/* What the build found: the machine these headers are for. Included by rte_config.h.
 *
 * Found by the compiler's own macros, so that one installed tree serves every compiler and needs no -march.
 */
#ifndef EXTMEM_DPDK_RTE_BUILD_CONFIG_H
#define EXTMEM_DPDK_RTE_BUILD_CONFIG_H

#if defined(__x86_64__)
#define RTE_ARCH x86_64
#define RTE_ARCH_X86 1
#define RTE_ARCH_X86_64 1
#define RTE_ARCH_64 1
#elif defined(__aarch64__)
#define RTE_ARCH arm64
#define RTE_ARCH_ARM64 1
#define RTE_ARCH_64 1
#elif defined(__LP64__)
#define RTE_ARCH_64 1
#else
#error "extmem's DPDK interface needs a 64-bit machine"
#endif

#define RTE_ENV_FREEBSD 0
#define RTE_ENV_LINUX 1
#define RTE_ENV_WINDOWS 2
#define RTE_EXEC_ENV linux
#define RTE_EXEC_ENV_LINUX 1
#define RTE_EXEC_ENV_IS_FREEBSD 0
#define RTE_EXEC_ENV_IS_LINUX 1
#define RTE_EXEC_ENV_IS_WINDOWS 0

#define RTE_CACHE_LINE_SIZE 64

#define RTE_MAX_LCORE 128
#define RTE_MAX_NUMA_NODES 32

#endif /* EXTMEM_DPDK_RTE_BUILD_CONFIG_H */
