// What option parsing needs of the log beyond rte_log.h.
#pragma once

#include <cstdio>

namespace extmem::dpdk {

/// Does what --log-level says: LEVEL, PATTERN:LEVEL, or EXPRESSION,LEVEL; a level is a number or a (begun) name.
/// Returns: false where the text is none of these.
bool set_log_level(const char* text);
/// What --log-level=help prints: the types and levels that there are.
void print_log_help(std::FILE* out);

}  // namespace extmem::dpdk
