/* The bridge to DPDK, as an installed library. No EAL runs here, and the bridge says so. */
#include <errno.h>
#include <extmem/dpdk_bridge.h>
#include <stdio.h>

int main(void) {
  extmem_domain_t* domain = NULL;
  extmem_heap_t heap;
  extmem_dpdk_lease_t* lease = NULL;
  if (extmem_domain_create(NULL, &domain) != 0 || extmem_heap_create(domain, "h", NULL, &heap) != 0) return 1;
  if (extmem_dpdk_lend(domain, heap, 0, &lease) != -ENODEV) return 1;
  printf("%s\n", extmem_dpdk_last_error_message());
  return extmem_domain_close(domain) == 0 ? 0 : 1;
}
