// Starting and ending the memory of the DPDK face: opening and closing the domain.
#include <cstring>
#include <string_view>
#include <utility>

#include "faces/dpdk/eal.hpp"
#include "faces/dpdk/memory_domain.hpp"

namespace extmem::dpdk {
namespace {

constinit Domain the_domain{};

Result<Domain> open_domain(const EalOptions& options) noexcept {
  if (!options.shared()) return Domain::create();
  std::array<char, kMaxNameLength + 1> name{"dpdk-"};
  const std::size_t room = name.size() - 1 - std::strlen(name.data());
  std::strncat(name.data(), options.file_prefix.data(), room);
  OpenOptions open{};
  if (options.process == RTE_PROC_SECONDARY) open.mode = OpenMode::open_only;
  return Domain::open(std::string_view(name.data()), open);
}

}  // namespace

Domain& domain() noexcept { return the_domain; }

int memory_init(const EalOptions& options) noexcept {
  auto opened = open_domain(options);
  if (!opened) return fail(opened.error().code());
  the_domain = std::move(*opened);
  return 0;
}

void memory_cleanup() noexcept { the_domain = Domain{}; }

}  // namespace extmem::dpdk
