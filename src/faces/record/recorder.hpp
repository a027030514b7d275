// Recorder: the events of this process, a buffer for each thread, on their way to the trace.
//
// What it is: what the recording library does beside calling the real malloc. Each thread fills a buffer of its own and writes it
// as one chunk; no lock anywhere.
// Thread-safety: the note_* functions by any thread; each touches only its own buffer and the table of call sites.
// Invariants:
//  1. An allocation's time is taken after the real function returned, a free's before it is called: so for each address
//     the times of allocations and frees alternate, whichever threads they are of.
//  2. The buffers of threads that ended, and of all at exit, are written.
#pragma once

#include <cstddef>
#include <cstdint>

namespace extmem::record {

/// Opens the trace ($EXTMEM_TRACE, with .PID behind it in any process but the first). Nothing is recorded where that
/// cannot be done: standard error says why. By the first thread, once.
void begin_recording() noexcept;
/// Writes everything, once, by the process that records: at exit.
void end_recording() noexcept;

void note_free(const void* p) noexcept;
void note_malloc(bool zeroed, std::size_t size, const void* p, const void* caller) noexcept;
void note_memalign(std::size_t align, std::size_t size, const void* p, const void* caller) noexcept;
/// Before the real realloc is called, and after it. `time`: what begin_realloc gave.
std::uint64_t begin_realloc() noexcept;
void note_realloc(std::uint64_t time, const void* old, std::size_t size, const void* p,
                  const void* caller) noexcept;

}  // namespace extmem::record
