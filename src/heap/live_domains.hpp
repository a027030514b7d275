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
/// For a process whose objects nobody else knows, as those of malloc: they are garbage when its program ends by itself, and no heap is to
/// keep them (OnDeath::keep is for those who are killed). Until the process is gone they stay as they are: it may go on to use
/// and free them, and whoever recovers it frees the rest. Both may be called in signal handlers. Require: no domain is
/// being opened or closed in this process.
void end_by_exec() noexcept;  ///< an exec will be such an end
void end_now() noexcept;      ///< the program ends now
void enlist(DomainState* state) noexcept;
/// Returns when no thread's exit hook is looking at the domain any more.
void delist(DomainState* state) noexcept;

}  // namespace extmem::heap
