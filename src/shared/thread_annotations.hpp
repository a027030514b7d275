// Clang's thread-safety annotations; nothing for other compilers.
#pragma once

#if defined(__clang__)
#define EXTMEM_ANNOTATE_(x) __attribute__((x))
#else
#define EXTMEM_ANNOTATE_(x)
#endif

#define EXTMEM_CAPABILITY(name) EXTMEM_ANNOTATE_(capability(name))
#define EXTMEM_SCOPED_CAPABILITY EXTMEM_ANNOTATE_(scoped_lockable)
#define EXTMEM_GUARDED_BY(lock) EXTMEM_ANNOTATE_(guarded_by(lock))
#define EXTMEM_REQUIRES(...) EXTMEM_ANNOTATE_(requires_capability(__VA_ARGS__))
#define EXTMEM_ACQUIRE(...) EXTMEM_ANNOTATE_(acquire_capability(__VA_ARGS__))
#define EXTMEM_TRY_ACQUIRE(...) EXTMEM_ANNOTATE_(try_acquire_capability(__VA_ARGS__))
#define EXTMEM_RELEASE(...) EXTMEM_ANNOTATE_(release_capability(__VA_ARGS__))
#define EXTMEM_NO_THREAD_SAFETY_ANALYSIS EXTMEM_ANNOTATE_(no_thread_safety_analysis)
