// A small check that a document is well-formed XML: elements nest, attributes are quoted, text is escaped UTF-8.
#pragma once

#include <cctype>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace extmem::test {

inline bool valid_utf8(std::string_view s) {
  for (std::size_t i = 0; i < s.size();) {
    const auto lead = static_cast<unsigned char>(s[i]);
    const std::size_t n = lead < 0x80         ? 1
                          : (lead >> 5) == 6  ? 2
                          : (lead >> 4) == 14 ? 3
                          : (lead >> 3) == 30 ? 4
                                              : 0;
    if (n == 0 || i + n > s.size()) return false;
    for (std::size_t k = 1; k < n; ++k) {
      if ((static_cast<unsigned char>(s[i + k]) & 0xc0) != 0x80) return false;
    }
    if (n == 1 && lead < 0x20 && lead != '\n') return false;  // tabs are not written either
    i += n;
  }
  return true;
}

/// What is wrong with the document; "" when nothing is.
inline std::string xml_error(std::string_view doc) {
  if (!valid_utf8(doc)) return "not UTF-8, or control characters";
  const auto bad_text = [](std::string_view text) {
    for (std::size_t i = 0; i < text.size(); ++i) {
      if (text[i] == '<') return true;
      if (text[i] != '&') continue;
      const std::string_view rest = text.substr(i, 7);
      bool known = false;
      for (const char* entity : {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"})
        known = known || rest.starts_with(entity);
      if (!known) return true;
    }
    return false;
  };
  std::vector<std::string> open;
  std::size_t at = doc.starts_with("<?xml") ? doc.find("?>") + 2 : 0;
  bool seen_root = false;
  while (at < doc.size()) {
    const std::size_t tag = doc.find('<', at);
    if (tag == std::string_view::npos) break;
    if (bad_text(doc.substr(at, tag - at))) return "bad text near " + std::string(doc.substr(at, 40));
    std::size_t end = tag + 1;
    char quote = 0;
    for (; end < doc.size() && (quote != 0 || doc[end] != '>'); ++end) {
      if (quote == 0 && (doc[end] == '"' || doc[end] == '\'')) {
        if (doc[end - 1] != '=') return "stray quote near " + std::string(doc.substr(tag, 60));
        quote = doc[end];
      } else if (doc[end] == quote) {
        quote = 0;
      } else if (doc[end] == '<') {
        return "'<' inside a tag: " + std::string(doc.substr(tag, 60));
      }
    }
    if (end == doc.size()) return "tag never ends: " + std::string(doc.substr(tag, 60));
    std::string_view body = doc.substr(tag + 1, end - tag - 1);
    if (body.starts_with("/")) {
      if (open.empty() || open.back() != body.substr(1))
        return "closes what is not open: " + std::string(body);
      open.pop_back();
    } else {
      if (open.empty() && seen_root) return "a second root";
      seen_root = true;
      const std::string name(body.substr(0, body.find_first_of(" /")));
      std::set<std::string> names;
      for (std::size_t eq = body.find("=\""); eq != std::string_view::npos;) {
        std::size_t from = eq;
        while (from > 0 && body[from - 1] != ' ') --from;
        if (!names.insert(std::string(body.substr(from, eq - from))).second)
          return "attribute twice: " + std::string(body);
        const std::size_t close = body.find('"', eq + 2);
        if (bad_text(body.substr(eq + 2, close - eq - 2))) return "bad attribute: " + std::string(body);
        eq = body.find("=\"", close);
      }
      if (!body.ends_with("/")) open.push_back(name);
    }
    at = end + 1;
  }
  if (!open.empty()) return "never closed: " + open.back();
  return seen_root ? "" : "no element";
}

}  // namespace extmem::test
