// CrashWatch: calls a function at every crash point while it lives.
#pragma once

#include <functional>
#include <string_view>
#include <utility>

#include "base/crash_point.hpp"

namespace extmem::shared {

/// One at a time, on one thread. Crash points that the function itself passes are not reported.
class CrashWatch {
 public:
  explicit CrashWatch(std::function<void(std::string_view)> at_point) : at_point_(std::move(at_point)) {
    current() = this;
    base::crash_point_hook = [](const char* name) {
      CrashWatch* const watch = current();
      if (std::exchange(watch->inside_, true)) return;
      watch->at_point_(name);
      watch->inside_ = false;
    };
  }
  CrashWatch(const CrashWatch&) = delete;
  ~CrashWatch() { base::crash_point_hook = nullptr; }

 private:
  static CrashWatch*& current() {
    static CrashWatch* watch = nullptr;
    return watch;
  }
  std::function<void(std::string_view)> at_point_;
  bool inside_ = false;
};

}  // namespace extmem::shared
