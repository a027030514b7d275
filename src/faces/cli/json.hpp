// Writing JSON: as much of it as a report needs.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <type_traits>

namespace extmem::cli {

/// Builds one document. Inside an object every value has a key, inside an array none.
class Json {
 public:
  Json& object(std::string_view key = {}) { return open(key, '{'); }
  Json& array(std::string_view key = {}) { return open(key, '['); }
  Json& end();
  Json& text(std::string_view key, std::string_view value);
  Json& real(std::string_view key, double value);
  Json& boolean(std::string_view key, bool value);
  template <typename T>
  requires std::is_integral_v<T> Json& integer(std::string_view key, T value) {
    before(key);
    out_ += std::to_string(value);
    return *this;
  }
  /// Requires: everything opened was ended.
  [[nodiscard]] const std::string& document() const { return out_; }

 private:
  Json& open(std::string_view key, char bracket);
  void before(std::string_view key);
  void quote(std::string_view text);

  std::string out_;
  std::string open_;  // the brackets to close, innermost last
  bool first_ = true;
};

}  // namespace extmem::cli
