// Writes a capture for the packet source: COUNT packets with numbers, checksums and random lengths, in the pcap format.
//
//   make_capture FILE COUNT [LONGEST [SEED]]
#include <algorithm>
#include <random>
#include <vector>

#include "packets.hpp"

using namespace packets;

int main(int argc, char** argv) {
  if (argc < 3) give_up("usage", "make_capture FILE COUNT [LONGEST [SEED]]");
  const std::uint64_t count = std::strtoull(argv[2], nullptr, 10);
  const std::size_t most = kEthernet + sizeof(Payload) + 1400;
  const std::size_t longest = std::min(most, argc > 3 ? std::strtoul(argv[3], nullptr, 10) : most);
  const std::size_t shortest = 60;
  if (longest < shortest) give_up("LONGEST", "a frame has at least 60 bytes");
  std::minstd_rand random(argc > 4 ? static_cast<unsigned>(std::strtoul(argv[4], nullptr, 10)) : 1);

  std::FILE* const file = std::fopen(argv[1], "wb");
  if (file == nullptr) give_up(argv[1], std::strerror(errno));
  const auto put = [&](const void* bytes, std::size_t n) {
    if (std::fwrite(bytes, 1, n, file) != n) give_up(argv[1], std::strerror(errno));
  };
  struct Header {
    std::uint32_t magic = 0xa1b2c3d4;  // times in microseconds
    std::uint16_t major = 2, minor = 4;
    std::uint32_t zone = 0, accuracy = 0, snap_length = 65535, link = 1;  // Ethernet
  } const header;
  put(&header, sizeof header);
  std::vector<unsigned char> frame(longest);
  for (std::uint64_t number = 0; number < count; ++number) {
    const auto length = static_cast<std::uint32_t>(shortest + random() % (longest - shortest + 1));
    std::fill_n(frame.begin(), 6, static_cast<unsigned char>(0xff));                        // to all
    std::copy_n("\x02\x00\x00\x00\x00\x01", 6, reinterpret_cast<char*>(frame.data()) + 6);  // a local address
    frame[12] = kEtherType >> 8;
    frame[13] = kEtherType & 0xff;
    unsigned char* const bytes = frame.data() + kEthernet + sizeof(Payload);
    Payload payload{};
    payload.magic = Payload::kMagic;
    payload.length = static_cast<std::uint32_t>(length - kEthernet - sizeof payload);
    payload.number = number;
    std::generate_n(bytes, payload.length, [&] { return static_cast<unsigned char>(random()); });
    payload.sum = sum_of(bytes, payload.length);
    std::memcpy(frame.data() + kEthernet, &payload, sizeof payload);
    const std::uint32_t record[] = {static_cast<std::uint32_t>(number / 1'000'000),
                                    static_cast<std::uint32_t>(number % 1'000'000), length, length};
    put(record, sizeof record);
    put(frame.data(), length);
  }
  if (std::fclose(file) != 0) give_up(argv[1], std::strerror(errno));
  return 0;
}
