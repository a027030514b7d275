// One of two processes on one heap, of which bench/driver/kill.py kills one at a random moment.
//
//   PROGRAM create|join NAME FILE     FILE: memory for a heap that needs some, in a tmpfs
//
// It says "ready", then obeys lines on its standard input; each answer is one line.
//   hold           allocates kHeld objects and fills them                                    -> held
//   loop KIND SEED allocates and frees on a thread, until it is killed or told "use"         -> looping
//   use KIND       ends the loop, then allocates, fills, checks and frees, and checks what
//                  it holds                                                                  -> used | wrong TEXT
//   look           whether the heap is sound, and how many objects it has beyond those held  -> sound N | torn TEXT
// "use" runs on a thread of its own: where it hangs in a dead process' lock, "look" is still answered.
// KIND: pair (64 B), random (16 B to 8 KiB, 1000 live), memzone (of 4 KiB, by name).
#pragma once

#include <unistd.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <random>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

namespace kill_bench {

constexpr std::size_t kHeld = 100;
constexpr std::size_t kLive = 1000;
constexpr std::size_t kPairBytes = 64;
constexpr std::size_t kBiggest = 8192;
constexpr std::size_t kHeapBytes = std::size_t{32} << 20;

/// One write, so that lines of two threads do not mix.
inline void say(std::string line) {
  line += '\n';
  if (::write(STDOUT_FILENO, line.data(), line.size()) < 0) _exit(1);  // the driver is gone
}

/// An object with its content.
struct Object {
  unsigned char* at = nullptr;
  std::size_t size = 0;
  unsigned char fill = 0;

  [[nodiscard]] bool intact() const {
    for (std::size_t i = 0; i < size; ++i) {
      if (at[i] != fill) return false;
    }
    return true;
  }
};

/// `Heap` is a struct of static functions: open, allocate, release, zone_reserve, zone_free, look.
template <typename Heap>
class Process {
 public:
  int run(int argc, char** argv) {
    if (argc != 4) {
      say("fail usage: create|join NAME FILE");
      return 2;
    }
    if (const std::string reason = Heap::open(std::string(argv[1]) == "create", argv[2], argv[3]);
        !reason.empty()) {
      say("fail " + reason);
      return 1;
    }
    say("ready");
    std::string line;
    while (std::getline(std::cin, line)) {
      std::istringstream words(line);
      std::string verb, kind;
      unsigned seed = 0;
      words >> verb >> kind >> seed;
      if (verb == "hold") {
        say(hold() ? "held" : "fail no memory to hold");
      } else if (verb == "loop") {
        loop_ = std::thread([this, kind, seed] { loop(kind, seed); });
      } else if (verb == "use") {
        std::thread([this, kind] {
          stop_.store(true, std::memory_order_relaxed);
          if (loop_.joinable()) loop_.join();
          say(use(kind));
        }).detach();
      } else if (verb == "look") {
        say(Heap::look(held_.size()));
      }
    }
    _exit(0);  // a thread may hang in the heap, and what is left is the driver's to remove
  }

 private:
  static bool make(Object& object, std::size_t size, unsigned char fill) {
    object = {static_cast<unsigned char*>(Heap::allocate(size)), size, fill};
    if (object.at == nullptr) return false;
    std::memset(object.at, fill, size);
    return true;
  }

  bool hold() {
    held_.resize(kHeld);
    for (std::size_t i = 0; i < kHeld; ++i) {
      if (!make(held_[i], 16 + 37 * i, static_cast<unsigned char>(i + 1))) return false;
    }
    return true;
  }

  void loop(const std::string& kind, unsigned seed) {
    std::minstd_rand random(seed);
    std::vector<void*> live(kind == "random" ? kLive : 0);
    for (void*& p : live) p = Heap::allocate(16 + random() % (kBiggest - 15));
    const std::string zone = "loop-" + std::to_string(::getpid());
    say("looping");
    while (!stop_.load(std::memory_order_relaxed)) {  // pairs with nothing: only that it is seen
      if (kind == "pair") {
        void* p = Heap::allocate(kPairBytes);
        if (p != nullptr) (void)Heap::release(p);
      } else if (kind == "random") {
        void*& p = live[random() % live.size()];
        if (p != nullptr) (void)Heap::release(p);
        p = Heap::allocate(16 + random() % (kBiggest - 15));
      } else if (Heap::zone_reserve(zone.c_str())) {
        (void)Heap::zone_free(zone.c_str());
      }
    }
    for (void* p : live) {
      if (p != nullptr) (void)Heap::release(p);
    }
  }

  std::string use(const std::string& kind) {
    if (kind == "memzone") {
      for (int i = 0; i < 100; ++i) {
        if (!Heap::zone_reserve("use")) return "wrong a memzone cannot be reserved";
        if (!Heap::zone_free("use")) return "wrong a memzone cannot be freed";
      }
    }
    std::minstd_rand random(1);
    std::vector<Object> live(kLive);
    for (std::size_t i = 0; i < kLive; ++i) {
      const std::size_t size = kind == "random" ? 16 + random() % (kBiggest - 15) : kPairBytes;
      if (!make(live[i], size, static_cast<unsigned char>(random()))) return "wrong nothing can be allocated";
    }
    for (const Object& object : live) {
      if (!object.intact()) return "wrong two objects overlap";
      if (!Heap::release(object.at)) return "wrong an object cannot be freed";
    }
    for (const Object& object : held_) {
      if (!object.intact()) return "wrong an object of the survivor was overwritten";
    }
    return "used";
  }

  std::vector<Object> held_;
  std::thread loop_;
  std::atomic<bool> stop_{false};
};

}  // namespace kill_bench
