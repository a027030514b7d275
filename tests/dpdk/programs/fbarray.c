/* rte_fbarray.h as a program uses it: an array of records of this process alone (--in-memory). */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <rte_eal.h>
#include <rte_errno.h>
#include <rte_fbarray.h>

#define CHECK(condition)                                                   \
  do {                                                                     \
    if (!(condition)) {                                                    \
      printf("%s:%d: %s does not hold\n", __FILE__, __LINE__, #condition); \
      return 1;                                                            \
    }                                                                      \
  } while (0)

struct record {
  int number;
  char text[12];
};

int main(int argc, char** argv) {
  struct rte_fbarray array, same_name, zero;
  struct record* record;
  int index;
  memset(&zero, 0, sizeof(zero));
  CHECK(rte_eal_init(argc, argv) >= 0);

  CHECK(rte_fbarray_init(&array, "records", 100, sizeof(struct record)) == 0);
  CHECK(strcmp(array.name, "records") == 0);
  CHECK(array.count == 0 && array.len == 100 && array.elt_sz == sizeof(struct record));
  for (index = 0; index < 70; index++) {
    const int free_one = rte_fbarray_find_next_free(&array, 0);
    CHECK(free_one == index);
    record = (struct record*)rte_fbarray_get(&array, (unsigned int)free_one);
    CHECK(record != NULL && record->number == 0);
    record->number = index;
    CHECK(rte_fbarray_set_used(&array, (unsigned int)free_one) == 0);
    CHECK(rte_fbarray_find_idx(&array, record->text) == index);
  }
  CHECK(array.count == 70);
  CHECK(rte_fbarray_is_used(&array, 69) == 1 && rte_fbarray_is_used(&array, 70) == 0);
  CHECK(rte_fbarray_find_biggest_free(&array, 0) == 70);
  CHECK(rte_fbarray_find_contig_free(&array, 70) == 30);
  CHECK(rte_fbarray_find_next_n_free(&array, 0, 31) == -1 && rte_errno == ENOSPC);
  CHECK(rte_fbarray_find_next_used(&array, 70) == -1 && rte_errno == ENOENT);
  CHECK(rte_fbarray_set_free(&array, 100) == -1 && rte_errno == EINVAL);
  rte_fbarray_dump_metadata(&array, stdout);

  /* Nothing is shared: names are nobody's, and there is nothing that another process made. */
  CHECK(rte_fbarray_init(&same_name, "records", 10, 1) == 0);
  CHECK(rte_fbarray_destroy(&same_name) == 0);
  CHECK(rte_fbarray_attach(&array) == -1 && rte_errno == EEXIST);

  CHECK(rte_fbarray_destroy(&array) == 0);
  CHECK(memcmp(&array, &zero, sizeof(zero)) == 0);
  CHECK(rte_fbarray_destroy(&array) == -1 && rte_errno == ENOENT);
  CHECK(rte_eal_cleanup() == 0);
  return 0;
}
