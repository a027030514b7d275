/* Copying strings into buffers of a known size, and splitting them.
 *
 * Thread-safety: plain computations.
 */
#ifndef EXTMEM_DPDK_RTE_STRING_FNS_H
#define EXTMEM_DPDK_RTE_STRING_FNS_H

#include <stdio.h>
#include <string.h>
#include <sys/types.h>

#include <rte_common.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Cuts `string`, of at most `stringlen` bytes, at each `delim` by writing zeros into it, into at most `maxtokens`
 * tokens; the last one has the rest. Returns: how many; -1 with errno EINVAL for a NULL pointer. */
int rte_strsplit(char* string, int stringlen, char** tokens, int maxtokens, char delim);

/* Copies what fits into `size` bytes, with the final zero. Returns: strlen(src); it was cut where that is >= size. */
static inline size_t rte_strlcpy(char* dst, const char* src, size_t size) {
  size_t length = strlen(src);
  if (size != 0) {
    size_t copied = length < size ? length : size - 1;
    memcpy(dst, src, copied);
    dst[copied] = '\0';
  }
  return length;
}

/* The same, behind what `dst` holds. Returns: the length that was wanted. */
static inline size_t rte_strlcat(char* dst, const char* src, size_t size) {
  size_t length = 0;
  while (length < size && dst[length] != '\0') length++;
  if (length == size) return size + strlen(src);
  return length + rte_strlcpy(dst + length, src, size - length);
}

/* A C library may have its own by now, perhaps as macros. */
#if !defined(strlcpy) && !(defined(__GLIBC__) && (__GLIBC__ > 2 || (__GLIBC__ == 2 && __GLIBC_MINOR__ >= 38)))
#define strlcpy(dst, src, size) rte_strlcpy(dst, src, size)
#define strlcat(dst, src, size) rte_strlcat(dst, src, size)
#endif

/* Copies what fits into `dsize` bytes, with the final zero. Returns: the length copied; -E2BIG, and rte_errno E2BIG,
 * where it was cut or dsize is 0. */
ssize_t rte_strscpy(char* dst, const char* src, size_t dsize);

#ifdef __cplusplus
}
#endif

#endif /* EXTMEM_DPDK_RTE_STRING_FNS_H */
