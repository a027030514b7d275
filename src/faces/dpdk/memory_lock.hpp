// The memory lock: while a walk reads, no memory goes.
//
// What it is: a readers-writer lock of this process that a thread may take again. Walks hold it for reading; removing,
// detaching and giving memory back hold it for writing. Adding does not need it: what is added shows up in later walks.
//
// It never closes a circle with the locks of the domain. Inside a memory event callback this thread has the domain's region
// lock, which alone keeps all memory in place, so there the lock is only counted. And who already has the region lock
// when memory is to go (a heap that gives memory back) does not wait: try_write() fails, and the memory stays.
// Thread-safety: any thread.
#pragma once

namespace extmem::dpdk {

class MemoryLock {
 public:
  static void read() noexcept;
  static void end_read() noexcept;
  /// False where waiting would never end: this thread reads (a walk), or is inside a memory event callback.
  [[nodiscard]] static bool write() noexcept;
  /// False also where another thread reads or writes just now.
  [[nodiscard]] static bool try_write() noexcept;
  static void end_write() noexcept;
};

class ReadMemory {
 public:
  ReadMemory() noexcept { MemoryLock::read(); }
  ReadMemory(const ReadMemory&) = delete;
  ReadMemory& operator=(const ReadMemory&) = delete;
  ~ReadMemory() { MemoryLock::end_read(); }
};

class WriteMemory {
 public:
  enum class How : bool { wait, try_once };
  explicit WriteMemory(How how = How::wait) noexcept
      : held_(how == How::wait ? MemoryLock::write() : MemoryLock::try_write()) {}
  WriteMemory(const WriteMemory&) = delete;
  WriteMemory& operator=(const WriteMemory&) = delete;
  ~WriteMemory() {
    if (held_) MemoryLock::end_write();
  }
  [[nodiscard]] bool held() const noexcept { return held_; }

 private:
  bool held_;
};

/// Whether this thread is inside a memory event callback or an allocation validator.
bool in_callback() noexcept;

/// Marks that it is.
class InCallback {
 public:
  InCallback() noexcept;
  InCallback(const InCallback&) = delete;
  InCallback& operator=(const InCallback&) = delete;
  ~InCallback();
};

}  // namespace extmem::dpdk
