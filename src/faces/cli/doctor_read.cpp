#include <unistd.h>

#include <charconv>
#include <fstream>
#include <sstream>

#include "faces/cli/doctor.hpp"

namespace extmem::cli::doctor {

std::string first_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::string chosen(const std::filesystem::path& path) {
  std::istringstream words(first_line(path));
  for (std::string word; words >> word;) {
    if (word.size() > 2 && word.front() == '[') return word.substr(1, word.size() - 2);
  }
  return {};
}

std::int64_t number_in(const std::filesystem::path& path, std::int64_t otherwise) {
  const std::string line = first_line(path);
  std::int64_t value = 0;
  const auto read = std::from_chars(line.data(), line.data() + line.size(), value);
  return read.ec == std::errc() ? value : otherwise;
}

bool has_capability(unsigned capability) {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("CapEff:")) continue;
    return (std::stoull(line.substr(7), nullptr, 16) >> capability & 1) != 0;
  }
  return false;
}

std::string as_root() { return ::geteuid() == 0 ? "" : "sudo "; }

}  // namespace extmem::cli::doctor
