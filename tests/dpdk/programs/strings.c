/* rte_string_fns.h and rte_uuid.h. */
#include <errno.h>
#include <string.h>

#include <rte_errno.h>
#include <rte_string_fns.h>
#include <rte_uuid.h>

#include "check.h"

static int copying(void) {
  char small[8];
  CHECK(rte_strlcpy(small, "hello", sizeof small) == 5 && strcmp(small, "hello") == 0);
  CHECK(rte_strlcpy(small, "hello world", sizeof small) == 11 && strcmp(small, "hello w") == 0);
  CHECK(strlcpy(small, "abc", sizeof small) == 3 && strlcat(small, "defghi", sizeof small) == 9);
  CHECK(strcmp(small, "abcdefg") == 0);
  CHECK(rte_strlcat(small, "x", 3) == 4 && strcmp(small, "abcdefg") == 0);
  CHECK(rte_strlcpy(NULL, "abc", 0) == 3);

  rte_errno = 0;
  CHECK(rte_strscpy(small, "hello", sizeof small) == 5 && strcmp(small, "hello") == 0 && rte_errno == 0);
  CHECK(rte_strscpy(small, "1234567", sizeof small) == 7 && strcmp(small, "1234567") == 0 && rte_errno == 0);
  CHECK(rte_strscpy(small, "12345678", sizeof small) == -E2BIG && strcmp(small, "1234567") == 0);
  CHECK(rte_errno == E2BIG);
  rte_errno = 0;
  CHECK(rte_strscpy(small, "x", 0) == -E2BIG && rte_errno == E2BIG && small[0] == '1');
  return 0;
}

static int splitting(void) {
  char text[] = "a,b,,c,";
  char again[] = "a,b,c";
  char one[] = "abc";
  char* tokens[8];
  CHECK(rte_strsplit(text, sizeof text - 1, tokens, 8, ',') == 4);
  CHECK(strcmp(tokens[0], "a") == 0 && strcmp(tokens[1], "b") == 0 && strcmp(tokens[2], "") == 0);
  CHECK(strcmp(tokens[3], "c") == 0);
  CHECK(rte_strsplit(again, sizeof again - 1, tokens, 2, ',') == 2 && strcmp(tokens[1], "b,c") == 0);
  CHECK(rte_strsplit(one, sizeof one, tokens, 8, ',') == 1 && strcmp(tokens[0], "abc") == 0);
  CHECK(rte_strsplit(one, 0, tokens, 8, ',') == 0);
  errno = 0;
  CHECK(rte_strsplit(NULL, 1, tokens, 8, ',') == -1 && errno == EINVAL);
  return 0;
}

static int uuids(void) {
  const rte_uuid_t known = RTE_UUID_INIT(0x6ba7b810, 0x9dad, 0x11d1, 0x80b4, 0x00c04fd430c8ULL);
  rte_uuid_t uuid, zero;
  char text[RTE_UUID_STRLEN];
  memset(zero, 0, sizeof zero);
  CHECK(rte_uuid_is_null(zero) && !rte_uuid_is_null(known));
  CHECK(rte_uuid_parse("6BA7B810-9dad-11d1-80b4-00c04fd430c8", uuid) == 0);
  CHECK(rte_uuid_compare(uuid, known) == 0 && rte_uuid_compare(zero, known) < 0 &&
        rte_uuid_compare(known, zero) > 0);
  CHECK(rte_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430c", uuid) == -1);
  CHECK(rte_uuid_parse("6ba7b81009dad-11d1-80b4-00c04fd430c8", uuid) == -1);
  CHECK(rte_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430cg", uuid) == -1);
  CHECK(rte_uuid_parse("6ba7b810-9dad-11d1-80b4-00c04fd430c8a", uuid) == -1);
  CHECK(rte_uuid_compare(uuid, known) == 0);
  rte_uuid_unparse(known, text, sizeof text);
  CHECK(strcmp(text, "6ba7b810-9dad-11d1-80b4-00c04fd430c8") == 0);
  rte_uuid_copy(uuid, zero);
  CHECK(rte_uuid_is_null(uuid));
  return 0;
}

int main(void) { return copying() || splitting() || uuids(); }
