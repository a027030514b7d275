/* The same library from C: a heap, tags, constraints, and what happens to a double free. */
#define _DEFAULT_SOURCE /* MAP_ANONYMOUS */
#include <extmem/extmem.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define CHECK(call)                                                                                       \
  do {                                                                                                    \
    int rc = (call);                                                                                      \
    if (rc != 0) {                                                                                        \
      fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, strerror(-rc), extmem_last_error_message()); \
      exit(1);                                                                                            \
    }                                                                                                     \
  } while (0)

static int count_held(const extmem_walk_entry_t* entry, void* arg) {
  size_t* held = arg;
  if (entry->held) ++*held;
  return 0; /* go on */
}

int main(void) {
  const size_t length = 4u << 20;
  void* memory = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    perror("mmap");
    return 1;
  }

  extmem_domain_t* domain = NULL;
  extmem_heap_t heap;
  CHECK(extmem_domain_create(NULL, &domain));
  CHECK(extmem_heap_create(domain, "packets", NULL, &heap));

  extmem_region_spec_t spec = EXTMEM_REGION_SPEC_INIT;
  spec.base = memory;
  spec.length = length;
  extmem_region_id_t region;
  CHECK(extmem_region_add(domain, heap, &spec, &region));

  /* A label for what this part of the program allocates, and a constraint: never across a 4 KiB boundary. */
  extmem_alloc_options_t options = EXTMEM_ALLOC_OPTIONS_INIT;
  CHECK(extmem_tag_intern(domain, "receive ring", &options.tag));
  options.align = 128;
  options.nocross = 4096;
  void* buffers[32];
  for (int i = 0; i < 32; ++i) CHECK(extmem_heap_allocate(heap, 1500, &options, &buffers[i]));
  memset(buffers[0], 0, 1500);

  extmem_tag_stats_t tags[4];
  size_t count = 0;
  CHECK(extmem_heap_get_tag_stats(heap, tags, 4, &count));
  for (size_t i = 0; i < count && i < 4; ++i) {
    printf("%-14s %3llu live, %6llu bytes\n", tags[i].name[0] != '\0' ? tags[i].name : "(untagged)",
           (unsigned long long)tags[i].live_count, (unsigned long long)tags[i].live_bytes);
  }
  size_t held = 0;
  extmem_walk_options_t walk = EXTMEM_WALK_OPTIONS_INIT;
  walk.objects = true;
  CHECK(extmem_heap_walk(heap, &walk, count_held, &held));
  if (held != 32) return 1;

  CHECK(extmem_free(heap, buffers[7]));
  if (extmem_free(heap, buffers[7]) == 0) return 1; /* a second free is always noticed */
  printf("a second free: %s\n", extmem_last_error_message());

  /* The region is still in use, and the answer says by whom. */
  extmem_holder_report_t holders;
  if (extmem_region_remove(domain, region, &holders, sizeof holders) == 0) return 1;
  printf("still held: %llu by \"%s\"\n", (unsigned long long)holders.holders[0].count,
         holders.holders[0].tag);
  for (int i = 0; i < 32; ++i) {
    if (i != 7) CHECK(extmem_free(heap, buffers[i]));
  }
  CHECK(extmem_region_remove(domain, region, &holders, sizeof holders));
  CHECK(extmem_domain_close(domain));
  munmap(memory, length);
  return 0;
}
