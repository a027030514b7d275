// on_slots: threads that each are one slot of a CoreWorld.
#pragma once

#include <cstdint>
#include <thread>
#include <vector>

namespace extmem::alloc {

/// Runs body(slot) on slots 1..n at once.
template <typename Body>
void on_slots(std::uint32_t n, Body&& body) {
  std::vector<std::thread> threads;
  for (std::uint32_t slot = 1; slot <= n; ++slot) threads.emplace_back([&, slot] { body(slot); });
  for (std::thread& thread : threads) thread.join();
}

}  // namespace extmem::alloc
