// Strings: splitting, copying, sizes with a suffix, UUIDs.
#include <rte_errno.h>
#include <rte_string_fns.h>
#include <rte_uuid.h>

#include <cctype>
#include <cerrno>
#include <climits>
#include <cstdio>
#include <cstdlib>
#include <cstring>

extern "C" {

int rte_strsplit(char* string, int stringlen, char** tokens, int maxtokens, char delim) {
  if (string == nullptr || tokens == nullptr) {
    errno = EINVAL;
    return -1;
  }
  int count = 0;
  bool begins = true;
  for (int i = 0; i < stringlen && string[i] != '\0' && (!begins || count < maxtokens); ++i) {
    if (begins) {
      begins = false;
      tokens[count++] = string + i;
    }
    // The last token keeps its delimiters.
    if (string[i] == delim && count < maxtokens) {
      string[i] = '\0';
      begins = true;
    }
  }
  return count;
}

ssize_t rte_strscpy(char* dst, const char* src, size_t dsize) {
  const size_t length = ::strnlen(src, dsize);
  if (length < dsize) {
    std::memcpy(dst, src, length + 1);
    return static_cast<ssize_t>(length);
  }
  if (dsize != 0) {
    std::memcpy(dst, src, dsize - 1);
    dst[dsize - 1] = '\0';
  }
  rte_errno = E2BIG;
  return -E2BIG;
}

uint64_t rte_str_to_size(const char* str) {
  if (str == nullptr) {
    errno = EINVAL;
    return 0;
  }
  while (std::isspace(static_cast<unsigned char>(*str)) != 0) ++str;
  if (*str == '-') {
    errno = EINVAL;
    return 0;
  }
  errno = 0;
  char* end = nullptr;
  const unsigned long long number = std::strtoull(str, &end, 0);
  if (errno != 0) return 0;
  if (*end == ' ') ++end;
  int shift = 0;
  switch (std::tolower(static_cast<unsigned char>(*end))) {
    case 'g':
      shift = 30;
      break;
    case 'm':
      shift = 20;
      break;
    case 'k':
      shift = 10;
      break;
    default:
      break;
  }
  if (number > ULLONG_MAX >> shift) {
    errno = ERANGE;
    return 0;
  }
  return number << shift;
}

bool rte_uuid_is_null(const rte_uuid_t uu) {
  const rte_uuid_t null{};
  return std::memcmp(uu, null, sizeof(rte_uuid_t)) == 0;
}

int rte_uuid_compare(const rte_uuid_t a, const rte_uuid_t b) { return std::memcmp(a, b, sizeof(rte_uuid_t)); }

int rte_uuid_parse(const char* in, rte_uuid_t uu) {
  if (in == nullptr || ::strnlen(in, RTE_UUID_STRLEN) != RTE_UUID_STRLEN - 1) return -1;
  rte_uuid_t parsed{};
  size_t digits = 0;
  for (size_t i = 0; i < RTE_UUID_STRLEN - 1; ++i) {
    const bool dash = i == 8 || i == 13 || i == 18 || i == 23;
    const auto c = static_cast<unsigned char>(in[i]);
    if (dash != (c == '-') || (!dash && std::isxdigit(c) == 0)) return -1;
    if (dash) continue;
    const int value = std::isdigit(c) != 0 ? c - '0' : std::tolower(c) - 'a' + 10;
    unsigned char& byte = parsed[digits++ / 2];
    byte = static_cast<unsigned char>(byte << 4 | value);
  }
  rte_uuid_copy(uu, parsed);
  return 0;
}

void rte_uuid_unparse(const rte_uuid_t uu, char* out, size_t len) {
  std::snprintf(out, len, "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", uu[0],
                uu[1], uu[2], uu[3], uu[4], uu[5], uu[6], uu[7], uu[8], uu[9], uu[10], uu[11], uu[12], uu[13],
                uu[14], uu[15]);
}

}  // extern "C"
