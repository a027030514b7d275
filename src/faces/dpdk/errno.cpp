// rte_errno and the texts of its values.
#include <rte_errno.h>

#include <cstdio>
#include <cstring>

extern "C" {

RTE_DEFINE_PER_LCORE(int, _rte_errno);

const char* rte_strerror(int errnum) {
  static thread_local char text[256];
  switch (errnum) {
    case E_RTE_SECONDARY:
      return "Invalid call in secondary process";
    case E_RTE_NO_CONFIG:
      return "Missing rte_config structure";
    default:
      break;
  }
  const char* known = errnum >= 0 && errnum < RTE_MAX_ERRNO ? strerrordesc_np(errnum) : nullptr;
  if (known != nullptr) return known;
  std::snprintf(text, sizeof(text), "Unknown error %d", errnum);
  return text;
}

}  // extern "C"
