// Memory as hexadecimal numbers.
#include <rte_hexdump.h>

#include <algorithm>
#include <cctype>
#include <cstdio>

extern "C" {

void rte_hexdump(FILE* f, const char* title, const void* buf, unsigned int len) {
  constexpr unsigned kPerLine = 16;
  const auto* bytes = static_cast<const unsigned char*>(buf);
  std::fprintf(f, "%s at [%p], len=%u\n", title != nullptr ? title : "  Dump data", buf, len);
  for (unsigned at = 0; at < len; at += kPerLine) {
    const unsigned here = std::min(kPerLine, len - at);
    std::fprintf(f, "%08X:", at);
    for (unsigned i = 0; i < kPerLine; ++i) {
      if (i < here) {
        std::fprintf(f, " %02X", bytes[at + i]);
      } else {
        std::fputs("   ", f);
      }
    }
    std::fputs(" | ", f);
    for (unsigned i = 0; i < here; ++i) std::fputc(std::isprint(bytes[at + i]) != 0 ? bytes[at + i] : '.', f);
    std::fputc('\n', f);
  }
  std::fflush(f);
}

void rte_memdump(FILE* f, const char* title, const void* buf, unsigned int len) {
  const auto* bytes = static_cast<const unsigned char*>(buf);
  if (title != nullptr) std::fprintf(f, "%s: ", title);
  for (unsigned i = 0; i < len; ++i) std::fprintf(f, i == 0 ? "%02x" : ":%02x", bytes[i]);
  std::fputc('\n', f);
  std::fflush(f);
}

}  // extern "C"
