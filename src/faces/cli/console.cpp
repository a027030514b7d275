#include "faces/cli/console.hpp"

#include <fmt/core.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>

namespace extmem::cli {
namespace {

constexpr unsigned kIndent = 2;
constexpr unsigned kLabel = 14;

std::string environment(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}

bool utf8_locale() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    std::string value = environment(name);
    if (value.empty()) continue;
    std::transform(value.begin(), value.end(), value.begin(),
                   [](unsigned char c) { return static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c); });
    return value.find("UTF-8") != std::string::npos || value.find("UTF8") != std::string::npos;
  }
  return false;
}

std::size_t columns_of(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

}  // namespace

Console Console::create(bool no_color) {
  Console console;
  const bool terminal = isatty(STDOUT_FILENO) == 1;
  const bool dumb = environment("TERM") == "dumb";
  console.colors_ = terminal && !no_color && !dumb && environment("NO_COLOR").empty();
  console.unicode_ = utf8_locale();
  console.progress_ = isatty(STDERR_FILENO) == 1 && !dumb;
  winsize size{};
  if (terminal && ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0)
    console.width_ = size.ws_col;
  console.width_ = std::clamp(console.width_, 60u, 140u);
  return console;
}

std::string Console::paint(Tone tone, std::string_view text) const {
  if (!colors_ || tone == Tone::plain || text.empty()) return std::string(text);
  const char* code = "0";
  switch (tone) {
    case Tone::plain:
      break;
    case Tone::bold:
      code = "1";
      break;
    case Tone::dim:
      code = "2";
      break;
    case Tone::good:
      code = "32";
      break;
    case Tone::bad:
      code = "1;31";
      break;
    case Tone::warn:
      code = "33";
      break;
    case Tone::accent:
      code = "36";
      break;
  }
  return fmt::format("\x1b[{}m{}\x1b[0m", code, text);
}

std::string Console::plain_text(std::string_view text) const {
  std::string result(text);
  if (unicode_) return result;
  for (std::size_t at = result.find("µ"); at != std::string::npos; at = result.find("µ", at))
    result.replace(at, 2, "u");
  return result;
}

void Console::line(std::string_view text) const {
  if (!quiet_) fmt::print("{}\n", text);
}

void Console::heading(std::string_view text) const { line("\n" + paint(Tone::bold, text)); }

std::string Console::wrapped(std::string_view text, std::size_t indent, Tone tone) const {
  const std::size_t room = width_ - indent;
  std::string out;
  std::string line;
  const auto flush = [&](bool last) {
    out += paint(tone, line);
    if (!last) out += "\n" + std::string(indent, ' ');
    line.clear();
  };
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find_first_of(" \n", at), text.size());
    const std::string_view word = text.substr(at, end - at);
    if (!line.empty() && columns_of(line) + 1 + columns_of(word) > room) flush(false);
    if (!line.empty()) line += ' ';
    line += word;
    if (end < text.size() && text[end] == '\n') flush(false);
    at = end + 1;
  }
  flush(true);
  return plain_text(out);
}

void Console::item(std::string_view label, std::string_view text, Tone tone) const {
  const std::string head = std::string(kIndent, ' ') + paint(Tone::dim, fmt::format("{:<{}}", label, kLabel));
  line(head + wrapped(text, kIndent + kLabel, tone));
}

void Console::verdict(bool ok, std::string_view name, std::string_view detail) const {
  const std::string mark =
      ok ? paint(Tone::good, either("✓", "ok    ")) : paint(Tone::bad, either("✗", "FAILED"));
  std::string head = std::string(kIndent, ' ') + mark + " " + std::string(name);
  const std::size_t column = kIndent + (unicode_ ? 1 : 6) + 1 + columns_of(name);
  constexpr std::size_t kDetail = 50;
  if (!detail.empty()) {
    head += column < kDetail - 1 ? std::string(kDetail - column, ' ') : "\n" + std::string(kDetail, ' ');
    head += wrapped(detail, kDetail, Tone::dim);
  }
  line(head);
}

void Console::complain(std::string_view text) const {
  std::fflush(stdout);
  fmt::print(stderr, "extmem: {}\n", text);
}

void Console::progress(double share, std::string_view text) const {
  if (!progress_) return;
  constexpr unsigned kBar = 32;
  const auto eighths = static_cast<unsigned>(std::clamp(share, 0.0, 1.0) * kBar * 8);
  std::string bar;
  if (unicode_) {
    constexpr const char* kParts[] = {"", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
    for (unsigned i = 0; i < eighths / 8; ++i) bar += "█";
    bar += kParts[eighths % 8];
  } else {
    bar.assign(eighths / 8, '#');
  }
  std::fflush(stdout);
  const std::string padding(kBar - std::min<std::size_t>(kBar, columns_of(bar)), ' ');
  fmt::print(stderr, "\r\x1b[K  {}{}{}{} {}", either("▕", "["), bar, padding, either("▏", "]"), text);
  std::fflush(stderr);
}

void Console::busy(std::string_view text) const {
  if (!progress_) return;
  std::fflush(stdout);
  fmt::print(stderr, "\r\x1b[K  {}", text);
  std::fflush(stderr);
}

void Console::progress_done() const {
  if (!progress_) return;
  fmt::print(stderr, "\r\x1b[K");
  std::fflush(stderr);
}

Table::Table(std::vector<std::string> headings) : headings_(std::move(headings)) {
  for (std::string& heading : headings_) {
    const auto take = [&](char mark) {
      const bool marked = !heading.empty() && heading[0] == mark;
      if (marked) heading.erase(0, 1);
      return marked;
    };
    optional_.push_back(take('?'));
    right_.push_back(take('>'));
  }
}

void Table::row(std::vector<std::string> cells) {
  cells.resize(headings_.size());
  rows_.push_back(std::move(cells));
}

void Table::print(const Console& console) const {
  constexpr std::size_t kGap = 2;
  std::vector<std::size_t> widths;
  for (const std::string& heading : headings_) widths.push_back(columns_of(heading));
  for (const auto& row : rows_) {
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], columns_of(row[i]));
  }
  std::vector<bool> shown(headings_.size(), true);
  std::size_t length = kIndent - kGap;
  for (const std::size_t width : widths) length += width + kGap;
  for (std::size_t i = headings_.size(); i-- > 0 && length > console.width();) {
    if (!optional_[i]) continue;
    shown[i] = false;
    length -= widths[i] + kGap;
  }
  const auto text = [&](const std::vector<std::string>& cells) {
    std::string line;
    for (std::size_t i = 0; i < cells.size(); ++i) {
      if (!shown[i]) continue;
      const std::string padding(widths[i] - columns_of(cells[i]), ' ');
      line += std::string(line.empty() ? kIndent : kGap, ' ');
      line += right_[i] ? padding + cells[i] : cells[i] + padding;
    }
    while (!line.empty() && line.back() == ' ') line.pop_back();
    return line;
  };
  std::string rule(kIndent, ' ');
  for (std::size_t i = kIndent; i < length; ++i) rule += console.either("─", "-");
  console.line(console.paint(Tone::dim, text(headings_)));
  console.line(console.paint(Tone::dim, rule));
  for (const auto& row : rows_) console.line(console.plain_text(text(row)));
}

}  // namespace extmem::cli
