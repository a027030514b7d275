// A process that uses a named domain as cli tests tell it: a line of words between tabs, answered by "ok" or "error ...".
//
//   open NAME | heap NAME | region HEAP BYTES [identity] | alloc HEAP TAG SIZE COUNT | zone HEAP NAME SIZE | free | poll
//   churn HEAP SECONDS      allocates and frees all the time, in a thread of its own
#include <atomic>
#include <chrono>
#include <iostream>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "extmem/domain.hpp"

namespace {

using namespace extmem;

Domain domain;
std::vector<void*> objects;
std::vector<std::jthread> threads;

std::string answer(const Result<void>& result) {
  return result ? "ok" : std::string("error ") + result.error().message();
}
template <typename T>
std::string answer(const Result<T>& result) {
  return result ? "ok" : std::string("error ") + result.error().message();
}

std::string allocate(const std::vector<std::string>& words) {
  auto heap = domain.find_heap(words.at(1));
  if (!heap) return answer(heap);
  AllocOptions options;
  if (!words.at(2).empty()) {
    auto tag = domain.intern_tag(words[2]);
    if (!tag) return answer(tag);
    options.tag = *tag;
  }
  for (unsigned long i = 0; i < std::stoul(words.at(4)); ++i) {
    auto p = heap->allocate(std::stoul(words.at(3)), options);
    if (!p) return answer(p);
    objects.push_back(*p);
  }
  return "ok";
}

void churn(std::stop_token stop, Heap heap, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  std::vector<void*> mine;
  for (unsigned i = 0; !stop.stop_requested() && std::chrono::steady_clock::now() < end; ++i) {
    if (mine.size() < 500) {
      if (auto p = heap.allocate(16 + i * 37 % 60000); p) mine.push_back(*p);
    } else {
      for (void* p : mine) (void)heap.deallocate(p);
      mine.clear();
    }
  }
}

std::string obey(const std::vector<std::string>& words) {
  const std::string& verb = words.at(0);
  if (verb == "open") {
    auto opened = Domain::open(words.at(1));
    if (opened) domain = std::move(*opened);
    return answer(opened);
  }
  if (verb == "heap") return answer(domain.create_heap(words.at(1)));
  if (verb == "region") {
    auto heap = domain.find_heap(words.at(1));
    if (!heap) return answer(heap);
    BackingSpec spec;
    spec.kind = BackingKind::memfd;
    spec.length = std::stoul(words.at(2));
    if (words.size() > 3) spec.iova_source = IovaSource::identity;
    return answer(domain.add_backing(*heap, spec));
  }
  if (verb == "alloc") return allocate(words);
  if (verb == "zone") {
    auto heap = domain.find_heap(words.at(1));
    if (!heap) return answer(heap);
    return answer(domain.reserve_memzone(*heap, words.at(2), std::stoul(words.at(3))));
  }
  if (verb == "free") {
    for (void* p : objects) {
      if (auto freed = domain.deallocate(p); !freed) return answer(freed);
    }
    objects.clear();
    return "ok";
  }
  if (verb == "poll") return answer(domain.poll());
  if (verb == "churn") {
    auto heap = domain.find_heap(words.at(1));
    if (!heap) return answer(heap);
    threads.emplace_back(churn, *heap, std::stod(words.at(2)));
    return "ok";
  }
  return "error unknown: " + verb;
}

}  // namespace

int main() {
  for (std::string line; std::getline(std::cin, line);) {
    std::vector<std::string> words;
    std::istringstream parts(line);
    for (std::string word; std::getline(parts, word, '\t');) words.push_back(word);
    std::cout << obey(words) << std::endl;
  }
  threads.clear();
}
