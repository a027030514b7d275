// Where the command's words go: headings, tables, a progress bar; colours and box characters only where they work.
//
// Standard output gets the report; standard error gets errors and the progress bar, the latter only on a terminal.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace extmem::cli {

enum class Tone : std::uint8_t { plain, bold, dim, good, bad, warn, accent };

class Console {
 public:
  /// Colours: standard output is a terminal, NO_COLOR is not set (or empty), TERM is not "dumb", and not `no_color`.
  static Console create(bool no_color);

  /// Nothing more to standard output: a document of JSON goes there.
  void hush() { quiet_ = true; }
  [[nodiscard]] bool quiet() const { return quiet_; }
  [[nodiscard]] bool colors() const { return colors_; }
  [[nodiscard]] bool unicode() const { return unicode_; }
  [[nodiscard]] unsigned width() const { return width_; }
  [[nodiscard]] std::string paint(Tone tone, std::string_view text) const;
  [[nodiscard]] std::string_view either(std::string_view unicode, std::string_view ascii) const {
    return unicode_ ? unicode : ascii;
  }
  /// Text in the characters that this output takes ("µs" as "us").
  [[nodiscard]] std::string plain_text(std::string_view text) const;

  void line(std::string_view text = {}) const;
  void heading(std::string_view text) const;
  /// A label and a text that is wrapped beside it.
  void item(std::string_view label, std::string_view text, Tone tone = Tone::plain) const;
  /// The outcome of a check, and what is known of it beside it.
  void verdict(bool ok, std::string_view name, std::string_view detail) const;
  /// Standard error.
  void complain(std::string_view text) const;

  /// Draws the bar, or moves it; nothing where standard error is no terminal.
  void progress(double share, std::string_view text) const;
  /// Text in the bar's place, where nobody knows how much is left.
  void busy(std::string_view text) const;
  void progress_done() const;

 private:
  /// Broken into lines that begin at column `indent`, where the first one begins already.
  [[nodiscard]] std::string wrapped(std::string_view text, std::size_t indent, Tone tone) const;

  bool quiet_ = false;
  bool colors_ = false;
  bool unicode_ = false;
  bool progress_ = false;
  unsigned width_ = 120;  ///< where there is no terminal to ask
};

/// A table that is as wide as its cells. A heading that begins with '>' flushes its column right; one that begins
/// with '?' marks a column that is left out, the last one first, where the table would be wider than the output.
class Table {
 public:
  explicit Table(std::vector<std::string> headings);
  void row(std::vector<std::string> cells);
  [[nodiscard]] bool empty() const { return rows_.empty(); }
  void print(const Console& console) const;

 private:
  std::vector<std::string> headings_;
  std::vector<bool> right_;
  std::vector<bool> optional_;
  std::vector<std::vector<std::string>> rows_;
};

}  // namespace extmem::cli
