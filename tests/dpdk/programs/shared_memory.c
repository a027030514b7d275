/* Real processes, started by exec, on one set of heaps: internal and external memory, memzones, attaching and detaching,
 * and going on after kill -9 of either.
 *
 * run: --no-huge
 * The program starts itself again as a process that does what it is told on its standard input. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <rte_eal.h>
#include <rte_malloc.h>
#include <rte_memory.h>
#include <rte_memzone.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "expect.h"

#define PAGE 4096u
#define LENGTH (16 * PAGE)

/* ---- the process that is told what to do ---- */

static void* pointer(const char* text) { return (void*)(uintptr_t)strtoull(text, NULL, 16); }
static void reply_pointer(const void* p) { printf("%" PRIxPTR "\n", (uintptr_t)p); }
/* The return value, and rte_errno where it is below 0. */
static void reply_result(int result) { printf("%d %d\n", result, result < 0 ? rte_errno : 0); }

static int events;
static void count_event(enum rte_mem_event what, const void* addr, size_t len, void* arg) {
  (void)what;
  (void)addr;
  (void)len;
  ++*(int*)arg;
}

static void obey(char* line) {
  char* w[6] = {NULL, NULL, NULL, NULL, NULL, NULL};
  int n = 0;
  char* word;
  for (word = strtok(line, " \n"); word != NULL && n < 6; word = strtok(NULL, " \n")) w[n++] = word;
  rte_errno = 0;
  if (n == 0) return;
  if (strcmp(w[0], "malloc") == 0) {
    reply_pointer(rte_zmalloc_socket(NULL, strtoull(w[1], NULL, 0), 0, atoi(w[2])));
  } else if (strcmp(w[0], "from") == 0) {
    reply_pointer(rte_zmalloc_from_heap(w[1], NULL, strtoull(w[2], NULL, 0), 0));
  } else if (strcmp(w[0], "free") == 0) {
    rte_free(pointer(w[1]));
    reply_result(rte_malloc_validate(pointer(w[1]), NULL));
  } else if (strcmp(w[0], "write") == 0) {
    strcpy((char*)pointer(w[1]), w[2]);
    reply_result(0);
  } else if (strcmp(w[0], "read") == 0) {
    printf("%s\n", (const char*)pointer(w[1]));
  } else if (strcmp(w[0], "reserve") == 0) {
    const struct rte_memzone* mz = rte_memzone_reserve(w[1], strtoull(w[2], NULL, 0), SOCKET_ID_ANY, 0);
    reply_pointer(mz == NULL ? NULL : mz->addr);
  } else if (strcmp(w[0], "lookup") == 0) {
    const struct rte_memzone* mz = rte_memzone_lookup(w[1]);
    reply_pointer(mz == NULL ? NULL : mz->addr);
  } else if (strcmp(w[0], "unreserve") == 0) {
    printf("%d\n", rte_memzone_free(rte_memzone_lookup(w[1])));
  } else if (strcmp(w[0], "map") == 0) { /* address, path */
    const int fd = open(w[2], O_RDWR | O_CLOEXEC);
    void* p = mmap(pointer(w[1]), LENGTH, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd, 0);
    close(fd);
    reply_pointer(p == MAP_FAILED ? NULL : p);
  } else if (strcmp(w[0], "create") == 0) {
    reply_result(rte_malloc_heap_create(w[1]));
  } else if (strcmp(w[0], "destroy") == 0) {
    reply_result(rte_malloc_heap_destroy(w[1]));
  } else if (strcmp(w[0], "socket") == 0) {
    reply_result(rte_malloc_heap_get_socket(w[1]));
  } else if (strcmp(w[0], "external") == 0) {
    printf("%d\n", rte_malloc_heap_socket_is_external(atoi(w[1])));
  } else if (strcmp(w[0], "add") == 0) {
    reply_result(rte_malloc_heap_memory_add(w[1], pointer(w[2]), LENGTH, NULL, 0, PAGE));
  } else if (strcmp(w[0], "remove") == 0) {
    reply_result(rte_malloc_heap_memory_remove(w[1], pointer(w[2]), LENGTH));
  } else if (strcmp(w[0], "attach") == 0) {
    reply_result(rte_malloc_heap_memory_attach(w[1], pointer(w[2]), LENGTH));
  } else if (strcmp(w[0], "detach") == 0) {
    reply_result(rte_malloc_heap_memory_detach(w[1], pointer(w[2]), LENGTH));
  } else if (strcmp(w[0], "register") == 0) {
    reply_result(rte_extmem_register(pointer(w[1]), LENGTH, NULL, 0, PAGE));
  } else if (strcmp(w[0], "unregister") == 0) {
    reply_result(rte_extmem_unregister(pointer(w[1]), LENGTH));
  } else if (strcmp(w[0], "xattach") == 0) {
    reply_result(rte_extmem_attach(pointer(w[1]), LENGTH));
  } else if (strcmp(w[0], "xdetach") == 0) {
    reply_result(rte_extmem_detach(pointer(w[1]), LENGTH));
  } else if (strcmp(w[0], "known") == 0) {
    printf("%d\n", rte_mem_virt2memseg_list(pointer(w[1])) != NULL);
  } else if (strcmp(w[0], "flags") == 0) { /* of all pages of the list */
    struct rte_memseg_list* list = rte_mem_virt2memseg_list(pointer(w[1]));
    size_t done;
    for (done = 0; done < list->len; done += list->page_sz)
      rte_mem_virt2memseg(RTE_PTR_ADD(list->base_va, done), list)->flags = (uint32_t)atoi(w[2]);
    reply_result(0);
  } else if (strcmp(w[0], "events") == 0) {
    printf("%d\n", events);
    events = 0;
  } else if (strcmp(w[0], "stats") == 0) {
    struct rte_malloc_socket_stats s;
    if (rte_malloc_get_socket_stats(atoi(w[1]), &s) == 0) {
      printf("%zu %zu %zu %u %u %zu\n", s.heap_totalsz_bytes, s.heap_freesz_bytes, s.greatest_free_size,
             s.free_count, s.alloc_count, s.heap_allocsz_bytes);
    } else {
      printf("no\n");
    }
  } else if (strcmp(w[0], "quit") == 0) {
    reply_result(rte_eal_cleanup());
    exit(0);
  } else {
    printf("what?\n");
  }
}

static int be_told(int argc, char** argv) {
  char line[512];
  setvbuf(stdout, NULL, _IOLBF, 0);
  if (rte_eal_init(argc, argv) < 0) {
    printf("failed %d\n", rte_errno);
    return 0;
  }
  if (rte_mem_event_callback_register("count", count_event, &events) != 0) return 1;
  printf("ready\n");
  while (fgets(line, sizeof line, stdin) != NULL) obey(line);
  return 0;
}

/* ---- the process that tells ---- */

struct process {
  pid_t pid;
  FILE *to, *from;
  char answer[512];
};

static const char* hear(struct process* p) {
  if (fgets(p->answer, sizeof p->answer, p->from) == NULL) strcpy(p->answer, "gone\n");
  p->answer[strcspn(p->answer, "\n")] = '\0';
  return p->answer;
}
__attribute__((format(printf, 2, 3))) static const char* ask(struct process* p, const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(p->to, format, arguments);
  va_end(arguments);
  fputc('\n', p->to);
  fflush(p->to);
  return hear(p);
}

/* Starts a process of that type and file prefix; its first answer is then in p->answer. */
static void start(struct process* p, const char* type, const char* prefix, const char* more) {
  int down[2], up[2];
  char type_option[64], prefix_option[64];
  memset(p, 0, sizeof *p);
  snprintf(type_option, sizeof type_option, "--proc-type=%s", type);
  snprintf(prefix_option, sizeof prefix_option, "--file-prefix=%s", prefix);
  if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0) abort();
  p->pid = fork();
  if (p->pid == 0) {
    dup2(down[0], 0);
    dup2(up[1], 1);
    execl("/proc/self/exe", "told", "--no-huge", "--no-pci", "--no-telemetry", type_option, prefix_option,
          more, (char*)NULL);
    _exit(127);
  }
  close(down[0]);
  close(up[1]);
  p->to = fdopen(down[1], "w");
  p->from = fdopen(up[0], "r");
  hear(p);
}
static void reap(struct process* p) {
  fclose(p->to);
  fclose(p->from);
  EXPECT(waitpid(p->pid, NULL, 0) == p->pid);
}
static void end(struct process* p) {
  EXPECT(strcmp(ask(p, "quit"), "0 0") == 0);
  reap(p);
}
static void kill_it(struct process* p) {
  kill(p->pid, SIGKILL);
  reap(p);
}
static int is(const char* answer, const char* expected) {
  if (strcmp(answer, expected) == 0) return 1;
  printf("got '%s', expected '%s'\n", answer, expected);
  return 0;
}
static int failed_with(const char* answer, int error) {
  char expected[32];
  snprintf(expected, sizeof expected, "-1 %d", error);
  return is(answer, expected);
}
static int init_failed_with(const char* answer, int error) {
  char expected[32];
  snprintf(expected, sizeof expected, "failed %d", error);
  return is(answer, expected);
}

static void test_joining(void) {
  struct process primary, secondary, third;
  start(&secondary, "secondary", "joining", "-m16");
  EXPECT(init_failed_with(secondary.answer, ENOENT)); /* nobody has begun */
  reap(&secondary);
  start(&primary, "primary", "joining", "-m16");
  EXPECT(is(primary.answer, "ready"));
  start(&third, "primary", "joining", "-m16");
  EXPECT(init_failed_with(third.answer, EBUSY)); /* somebody is */
  reap(&third);
  start(&secondary, "secondary", "joining", "-m16");
  EXPECT(is(secondary.answer, "ready"));
  start(&third, "auto", "joining", "-m16");
  EXPECT(is(third.answer, "ready")); /* secondary, then */
  end(&third);
  /* Another prefix is another world. */
  start(&third, "primary", "elsewhere", "-m16");
  EXPECT(is(third.answer, "ready"));
  EXPECT(is(ask(&primary, "create h"), "0 0"));
  EXPECT(failed_with(ask(&third, "socket h"), ENOENT));
  EXPECT(is(ask(&secondary, "socket h"), "256 0"));
  end(&third);
  end(&secondary);
  end(&primary);
}

static void test_internal(void) {
  struct process one, two;
  char p[64], q[64], zone[64], before[512];
  start(&one, "primary", "internal", "-m16");
  start(&two, "secondary", "internal", "-m16");
  EXPECT(is(one.answer, "ready") && is(two.answer, "ready"));
  strcpy(before, ask(&one, "stats 0"));
  EXPECT(is(ask(&two, "stats 0"), before));
  strcpy(p, ask(&one, "malloc 1000 0"));
  EXPECT(is(ask(&one, "write %s hello", p), "0 0"));
  EXPECT(is(ask(&two, "read %s", p), "hello")); /* the same address */
  strcpy(q, ask(&two, "malloc 1000 0"));
  EXPECT(strcmp(q, "0") != 0 && strcmp(p, q) != 0);
  EXPECT(failed_with(ask(&two, "free %s", p), 0)); /* whoever allocated it */
  EXPECT(failed_with(ask(&one, "free %s", q), 0));
  /* Memzones. */
  strcpy(zone, ask(&two, "reserve zone 5000"));
  EXPECT(is(ask(&one, "lookup zone"), zone));
  EXPECT(is(ask(&one, "reserve zone 5000"), "0"));
  EXPECT(is(ask(&two, "write %s zoned", zone), "0 0"));
  EXPECT(is(ask(&one, "read %s", zone), "zoned"));
  EXPECT(is(ask(&one, "unreserve zone"), "0"));
  EXPECT(is(ask(&two, "lookup zone"), "0"));
  EXPECT(is(ask(&one, "stats 0"), before));
  /* Growth of one is there for the other. */
  strcpy(p, ask(&two, "malloc 50000000 0"));
  EXPECT(strcmp(p, "0") != 0);
  EXPECT(is(ask(&two, "write %s grown", p), "0 0"));
  EXPECT(is(ask(&one, "lookup nothing"), "0")); /* any call looks around */
  EXPECT(is(ask(&one, "read %s", p), "grown"));
  EXPECT(is(ask(&one, "events"), "1"));
  EXPECT(failed_with(ask(&one, "free %s", p), 0));
  /* The other lets go of it when it next looks, and then it goes. */
  EXPECT(is(ask(&two, "events"), "1"));
  EXPECT(is(ask(&two, "lookup nothing"), "0"));
  EXPECT(is(ask(&two, "events"), "1"));
  EXPECT(is(ask(&one, "stats 0"), before));
  EXPECT(is(ask(&one, "events"), "1"));
  EXPECT(is(ask(&two, "stats 0"), before));
  end(&two);
  end(&one);
}

/* What one process wants to keep is kept, and used again, whoever empties it. */
static void test_keeping(void) {
  struct process one, two;
  char p[64], before[512], kept[512];
  start(&one, "primary", "keeping", "-m16");
  start(&two, "secondary", "keeping", "-m16");
  EXPECT(is(one.answer, "ready") && is(two.answer, "ready"));
  strcpy(before, ask(&one, "stats 0"));
  strcpy(p, ask(&two, "malloc 50000000 0"));
  EXPECT(is(ask(&one, "lookup nothing"), "0"));
  EXPECT(is(ask(&one, "flags %s 1", p), "0 0"));
  EXPECT(failed_with(ask(&two, "free %s", p), 0));
  EXPECT(is(ask(&one, "lookup nothing"), "0"));
  EXPECT(is(ask(&one, "events"), "1"));
  strcpy(kept, ask(&one, "stats 0"));
  EXPECT(strcmp(kept, before) != 0);
  EXPECT(is(ask(&two, "stats 0"), kept));
  EXPECT(is(ask(&one, "stats 0"), kept));
  EXPECT(is(ask(&one, "known %s", p), "1"));
  EXPECT(is(ask(&two, "malloc 50000000 0"), p));
  EXPECT(failed_with(ask(&one, "free %s", p), 0));
  EXPECT(is(ask(&one, "flags %s 0", p), "0 0"));
  (void)ask(&two, "stats 0"); /* lets go */
  EXPECT(is(ask(&one, "stats 0"), before));
  EXPECT(is(ask(&two, "stats 0"), before));
  end(&two);
  end(&one);
}

/* A file and an address that are free in every process. */
struct external {
  int fd;
  char path[64];
  char address[64];
};
static void make_external(struct external* e, uint64_t address) {
  e->fd = memfd_create("external", MFD_CLOEXEC);
  EXPECT(e->fd >= 0 && ftruncate(e->fd, LENGTH) == 0);
  snprintf(e->path, sizeof e->path, "/proc/%d/fd/%d", (int)getpid(), e->fd);
  snprintf(e->address, sizeof e->address, "%" PRIx64, address);
}

static void test_external(void) {
  struct process one, two;
  struct external e;
  char p[64], q[64], socket[64], before[512];
  int id;
  make_external(&e, UINT64_C(0x300000000000));
  start(&one, "primary", "external", "-m16");
  start(&two, "secondary", "external", "-m16");
  EXPECT(is(one.answer, "ready") && is(two.answer, "ready"));
  EXPECT(is(ask(&one, "create h"), "0 0"));
  strcpy(socket, ask(&one, "socket h"));
  id = atoi(socket);
  EXPECT(is(ask(&two, "socket h"), socket));
  EXPECT(is(ask(&two, "external %d", id), "1"));
  EXPECT(is(ask(&one, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&one, "add h %s", e.address), "0 0"));
  EXPECT(is(ask(&one, "events"), "1"));
  strcpy(before, ask(&one, "stats %d", id));
  EXPECT(is(ask(&two, "stats %d", id), before));
  EXPECT(is(ask(&two, "known %s", e.address), "0"));
  EXPECT(is(ask(&two, "malloc 100 %d", id), "0"));               /* not attached here */
  EXPECT(failed_with(ask(&two, "add h %s", e.address), EEXIST)); /* the heap has that address */
  EXPECT(failed_with(ask(&two, "detach h %s", e.address), ENOENT));
  EXPECT(failed_with(ask(&one, "attach h %s", e.address), EEXIST));
  EXPECT(is(ask(&two, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&two, "attach h %s", e.address), "0 0"));
  EXPECT(is(ask(&two, "events"), "1"));
  EXPECT(failed_with(ask(&two, "attach h %s", e.address), EEXIST));
  EXPECT(is(ask(&two, "known %s", e.address), "1"));
  strcpy(p, ask(&two, "from h 100"));
  EXPECT(is(ask(&two, "write %s hello", p), "0 0"));
  EXPECT(is(ask(&one, "read %s", p), "hello"));
  strcpy(q, ask(&one, "malloc 100 %d", id));
  EXPECT(strcmp(q, "0") != 0 && strcmp(p, q) != 0);
  EXPECT(failed_with(ask(&one, "remove h %s", e.address), EBUSY)); /* in use */
  EXPECT(failed_with(ask(&one, "free %s", p), 0));
  EXPECT(failed_with(ask(&two, "free %s", q), 0));
  EXPECT(is(ask(&one, "stats %d", id), before));
  EXPECT(failed_with(ask(&one, "remove h %s", e.address), EBUSY)); /* attached elsewhere */
  EXPECT(is(ask(&two, "detach h %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&two, "detach h %s", e.address), ENOENT));
  EXPECT(is(ask(&two, "known %s", e.address), "0"));
  /* Any process may remove. */
  EXPECT(is(ask(&two, "attach h %s", e.address), "0 0"));
  EXPECT(is(ask(&one, "detach h %s", e.address), "0 0"));
  EXPECT(is(ask(&two, "remove h %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&one, "attach h %s", e.address), ENOENT));
  EXPECT(is(ask(&two, "destroy h"), "0 0"));
  EXPECT(failed_with(ask(&one, "socket h"), ENOENT));
  EXPECT(is(ask(&one, "malloc 100 %d", id), "0"));
  /* Registered memory. */
  EXPECT(is(ask(&two, "register %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&one, "register %s", e.address), EEXIST));
  EXPECT(is(ask(&one, "known %s", e.address), "0"));
  EXPECT(is(ask(&one, "xattach %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&one, "xattach %s", e.address), EEXIST));
  EXPECT(is(ask(&one, "known %s", e.address), "1"));
  EXPECT(failed_with(ask(&two, "unregister %s", e.address), EBUSY));
  EXPECT(is(ask(&one, "xdetach %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&one, "xdetach %s", e.address), ENOENT));
  EXPECT(is(ask(&two, "unregister %s", e.address), "0 0"));
  EXPECT(failed_with(ask(&two, "unregister %s", e.address), ENOENT));
  close(e.fd);
  end(&two);
  end(&one);
}

static void test_kill_secondary(void) {
  struct process one, two;
  struct external e;
  char p[64], q[64], zone[64];
  int id;
  make_external(&e, UINT64_C(0x310000000000));
  start(&one, "primary", "killed2", "-m16");
  start(&two, "secondary", "killed2", "-m16");
  EXPECT(is(one.answer, "ready") && is(two.answer, "ready"));
  /* The secondary makes the heap, adds the memory, and dies. */
  EXPECT(is(ask(&two, "create h"), "0 0"));
  id = atoi(ask(&two, "socket h"));
  EXPECT(is(ask(&two, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&two, "add h %s", e.address), "0 0"));
  EXPECT(is(ask(&one, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&one, "attach h %s", e.address), "0 0"));
  strcpy(p, ask(&two, "malloc 100 %d", id));
  EXPECT(is(ask(&two, "write %s mine", p), "0 0"));
  strcpy(q, ask(&two, "malloc 100 0"));
  strcpy(zone, ask(&two, "reserve zone 1000"));
  kill_it(&two);
  EXPECT(is(ask(&one, "read %s", p), "mine")); /* it is the heap's, not the process' */
  EXPECT(is(ask(&one, "lookup zone"), zone));
  EXPECT(failed_with(ask(&one, "remove h %s", e.address), EBUSY));
  EXPECT(failed_with(ask(&one, "free %s", p), 0));
  EXPECT(failed_with(ask(&one, "free %s", q), 0));
  EXPECT(is(ask(&one, "unreserve zone"), "0"));
  EXPECT(is(ask(&one, "remove h %s", e.address), "0 0"));
  EXPECT(is(ask(&one, "destroy h"), "0 0"));
  EXPECT(strncmp(ask(&one, "stats 0"), "16777216 16777216 16777216 1 0 0", 30) == 0);
  close(e.fd);
  end(&one);
}

static void test_kill_primary(void) {
  struct process one, two, three;
  struct external e;
  char p[64], q[64], zone[64], socket[64];
  int id;
  make_external(&e, UINT64_C(0x320000000000));
  start(&one, "primary", "killed1", "-m16");
  start(&two, "secondary", "killed1", "-m16");
  EXPECT(is(one.answer, "ready") && is(two.answer, "ready"));
  EXPECT(is(ask(&one, "create h"), "0 0"));
  strcpy(socket, ask(&one, "socket h"));
  id = atoi(socket);
  EXPECT(is(ask(&one, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&one, "add h %s", e.address), "0 0"));
  EXPECT(is(ask(&two, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&two, "attach h %s", e.address), "0 0"));
  strcpy(p, ask(&one, "malloc 100 %d", id));
  EXPECT(is(ask(&one, "write %s mine", p), "0 0"));
  strcpy(zone, ask(&one, "reserve zone 1000"));
  EXPECT(is(ask(&one, "write %s zoned", zone), "0 0"));
  kill_it(&one);
  /* The other goes on with everything: no lock is held, nothing is lost. */
  EXPECT(is(ask(&two, "read %s", p), "mine"));
  EXPECT(is(ask(&two, "lookup zone"), zone));
  strcpy(q, ask(&two, "malloc 100 %d", id));
  EXPECT(strcmp(q, "0") != 0);
  EXPECT(failed_with(ask(&two, "free %s", q), 0));
  strcpy(q, ask(&two, "malloc 50000000 0")); /* grows */
  EXPECT(strcmp(q, "0") != 0);
  EXPECT(failed_with(ask(&two, "free %s", q), 0));
  /* A new primary joins what there is. */
  start(&three, "primary", "killed1", "-m16");
  EXPECT(is(three.answer, "ready"));
  EXPECT(is(ask(&three, "socket h"), socket));
  EXPECT(is(ask(&three, "lookup zone"), zone));
  EXPECT(is(ask(&three, "read %s", zone), "zoned"));
  EXPECT(is(ask(&three, "map %s %s", e.address, e.path), e.address));
  EXPECT(is(ask(&three, "attach h %s", e.address), "0 0"));
  EXPECT(is(ask(&three, "read %s", p), "mine"));
  EXPECT(failed_with(ask(&three, "free %s", p), 0));
  kill_it(&two);
  EXPECT(is(ask(&three, "remove h %s", e.address), "0 0"));
  EXPECT(is(ask(&three, "destroy h"), "0 0"));
  kill_it(&three);
  /* All are dead: the next primary begins anew. */
  start(&one, "primary", "killed1", "-m16");
  EXPECT(is(one.answer, "ready"));
  EXPECT(is(ask(&one, "lookup zone"), "0"));
  EXPECT(is(ask(&one, "stats 0"), "16777216 16777216 16777216 1 0 0"));
  close(e.fd);
  end(&one);
}

int main(int argc, char** argv) {
  if (strcmp(argv[0], "told") == 0) return be_told(argc, argv);
  signal(SIGPIPE, SIG_IGN);
  test_joining();
  test_internal();
  test_keeping();
  test_external();
  test_kill_secondary();
  test_kill_primary();
  return failures != 0;
}
