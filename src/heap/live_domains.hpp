// The open domains of this process: who the thread exit hook must visit.
#pragma once

namespace extmem::heap {

class DomainState;

void enlist(DomainState* state) noexcept;
/// Returns when no thread's exit hook is looking at the domain any more.
void delist(DomainState* state) noexcept;

}  // namespace extmem::heap
