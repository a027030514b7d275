/* The version of DPDK whose interface this is: 22.11. RTE_LIB_EXTMEM (rte_config.h) tells that it is extmem. */
#ifndef EXTMEM_DPDK_RTE_VERSION_H
#define EXTMEM_DPDK_RTE_VERSION_H

#include <stdio.h>
#include <string.h>

#include <rte_compat.h>
#include <rte_config.h>

#ifdef __cplusplus
extern "C" {
#endif

#define RTE_VERSION_NUM(a, b, c, d) ((a) << 24 | (b) << 16 | (c) << 8 | (d))
#define RTE_VERSION RTE_VERSION_NUM(RTE_VER_YEAR, RTE_VER_MONTH, RTE_VER_MINOR, RTE_VER_RELEASE)

/* The parts of the version that the library was built as, and all of it: "DPDK 22.11.0 (extmem 0.1.0)". */
const char* rte_version_prefix(void);
unsigned int rte_version_year(void);
unsigned int rte_version_month(void);
unsigned int rte_version_minor(void);
const char* rte_version_suffix(void);
unsigned int rte_version_release(void);
const char* rte_version(void);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_VERSION_H */
