/* Uses extmem from C as any program would: lends it memory, allocates, frees. */
#include <extmem/extmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { kLength = 1 << 20 };

static int fail(const char* what) {
  fprintf(stderr, "%s: %s\n", what, extmem_last_error_message());
  return 1;
}

int main(void) {
  if (strcmp(extmem_version(), EXTMEM_VERSION_STRING) != 0) return fail("header and library differ");

  extmem_domain_t* domain = NULL;
  if (extmem_domain_create(NULL, &domain) != 0) return fail("extmem_domain_create");
  extmem_heap_t heap;
  if (extmem_heap_create(domain, "consumer", NULL, &heap) != 0) return fail("extmem_heap_create");

  void* memory = aligned_alloc(4096, kLength);
  extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
  spec.base = memory;
  spec.length = kLength;
  extmem_region_id_t region;
  if (memory == NULL || extmem_region_add(domain, heap, &spec, &region) != 0)
    return fail("extmem_region_add");

  char* text = extmem_malloc(heap, 100);
  if (text == NULL) return fail("extmem_malloc");
  if (text < (char*)memory || text >= (char*)memory + kLength) return fail("not in the memory that was lent");
  strcpy(text, "hello");
  if (extmem_free(heap, text) != 0) return fail("extmem_free");
  if (extmem_free(heap, text) == 0) return fail("a double free was accepted");

  if (extmem_domain_close(domain) != 0) return fail("extmem_domain_close");
  free(memory);
  return 0;
}
