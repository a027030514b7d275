/* rte_errno.h: a variable of each thread, and texts. */
#include <errno.h>
#include <pthread.h>
#include <string.h>

#include <rte_errno.h>

#include "check.h"

static int seen_by_thread = -1;

static void* other_thread(void* arg) {
  (void)arg;
  seen_by_thread = rte_errno;
  rte_errno = EBUSY;
  return NULL;
}

int main(void) {
  pthread_t thread;
  CHECK(rte_errno == 0);
  rte_errno = ENOMEM;
  CHECK(pthread_create(&thread, NULL, other_thread, NULL) == 0);
  CHECK(pthread_join(thread, NULL) == 0);
  CHECK(seen_by_thread == 0);
  CHECK(rte_errno == ENOMEM);

  CHECK(strcmp(rte_strerror(ENOMEM), strerror(ENOMEM)) == 0);
  CHECK(strcmp(rte_strerror(0), strerror(0)) == 0);
  CHECK(strcmp(rte_strerror(E_RTE_SECONDARY), "Invalid call in secondary process") == 0);
  CHECK(strcmp(rte_strerror(E_RTE_NO_CONFIG), "Missing rte_config structure") == 0);
  CHECK(strcmp(rte_strerror(999999), "Unknown error 999999") == 0);
  CHECK(strcmp(rte_strerror(-3), "Unknown error -3") == 0);
  CHECK(RTE_MIN_ERRNO == 1000 && E_RTE_SECONDARY == 1001 && E_RTE_NO_CONFIG == 1002 && RTE_MAX_ERRNO == 1003);
  return 0;
}
