// The open domains of this process: who the hooks of threads' exits and of forks must visit.
#pragma once

#include "extmem/result.hpp"

namespace extmem::heap {

class DomainState;

/// Makes every fork of this process tell its open domains. Errors: ENOMEM.
Result<void> watch_forks() noexcept;
/// In a fork's child, on its only thread, before it writes to any region: gives each private domain of this process its own
/// copy of what lies in shared mappings of backings. The parent should write nothing there meanwhile.
/// Errors: ENOMEM, EIO...: what was not copied is still the parent's.
Result<void> copy_for_child() noexcept;
void enlist(DomainState* state) noexcept;
/// Returns when no thread's exit hook is looking at the domain any more.
void delist(DomainState* state) noexcept;

}  // namespace extmem::heap
