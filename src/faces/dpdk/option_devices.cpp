// Names of devices. There are none here, but a mistake in one is found as DPDK finds it: no bus can read it.
#include <algorithm>
#include <array>
#include <cctype>

#include "faces/dpdk/options.hpp"

namespace extmem::dpdk {
namespace {

constexpr std::array<std::string_view, 12> kBuses = {
    "pci:",   "vdev:",  "vmbus:",    "auxiliary:", "dpaa:",  "dpaa_bus:",
    "fslmc:", "ifpga:", "platform:", "cdx:",       "uacce:", "bus="};
// How the names of software devices begin.
constexpr std::array<std::string_view, 24> kDrivers = {
    "net_",     "eth_af_packet", "eth_bond",    "eth_null", "eth_pcap",   "eth_ring",  "eth_tap", "eth_vhost",
    "eth_vdev", "eth_softnic",   "virtio_user", "crypto_",  "cryptodev_", "compress_", "event_",  "baseband_",
    "rawdev_",  "raw_",          "dma_",        "dpaa",     "mempool_",   "regex_",    "vdpa_",   "gpu_"};

template <std::size_t N>
bool begins_with_one_of(std::string_view text, const std::array<std::string_view, N>& beginnings) noexcept {
  return std::any_of(beginnings.begin(), beginnings.end(), [&](std::string_view beginning) {
    return text.starts_with(beginning) && text.size() > beginning.size();
  });
}

// Takes a hexadecimal number of that many digits at most off the front, with what ends it.
bool take_field(std::string_view& text, std::size_t digits, char end) noexcept {
  std::size_t length = 0;
  while (length < text.size() && std::isxdigit(static_cast<unsigned char>(text[length])) != 0) ++length;
  if (length == 0 || length > digits ||
      (end == '\0' ? length != text.size() : !text.substr(length).starts_with(end)))
    return false;
  text.remove_prefix(std::min(length + 1, text.size()));
  return true;
}

// "0000:01:00.0", with or without the domain.
bool is_pci_address(std::string_view text) noexcept {
  const auto rest = [](std::string_view from) {
    return take_field(from, 2, ':') && take_field(from, 2, '.') && take_field(from, 2, '\0');
  };
  if (rest(text)) return true;
  return take_field(text, 8, ':') && rest(text);
}

}  // namespace

bool is_device(std::string_view text) noexcept {
  const std::string_view name = text.substr(0, text.find(','));
  return begins_with_one_of(name, kBuses) || begins_with_one_of(name, kDrivers) || is_pci_address(name);
}

bool is_software_device(std::string_view text) noexcept {
  return begins_with_one_of(text.substr(0, text.find(',')), kDrivers);
}

}  // namespace extmem::dpdk
