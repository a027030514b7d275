// The open domains of this process: who the thread exit hook must visit.
#pragma once

#include "extmem/result.hpp"

namespace extmem::heap {

class DomainState;

/// Makes every fork of this process tell its open domains. Errors: ENOMEM.
Result<void> watch_forks() noexcept;
void enlist(DomainState* state) noexcept;
/// Returns when no thread's exit hook is looking at the domain any more.
void delist(DomainState* state) noexcept;

}  // namespace extmem::heap
