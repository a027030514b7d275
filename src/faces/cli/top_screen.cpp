#include "faces/cli/top_screen.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <ctime>

#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/text.hpp"

// Last: curses.h has macros of common words.
#define NCURSES_NOMACROS 1
#include <curses.h>
#include <clocale>

namespace extmem::cli {
namespace {

constexpr short kHead = 1, kGrows = 2, kShrinks = 3;

/// The terminal in curses' hands; given back whatever happens.
class Curses {
 public:
  explicit Curses(bool colors) {
    (void)std::setlocale(LC_ALL, "");
    screen_ = ::newterm(nullptr, stdout, stdin);
    if (screen_ == nullptr)
      throw Failure(
          kImpossible,
          "top needs a terminal on which it can move about (TERM says which): use --once for plain text");
    ::cbreak();
    ::noecho();
    ::keypad(stdscr, TRUE);
    ::set_escdelay(50);
    (void)::curs_set(0);
    if (colors && ::has_colors()) {
      ::start_color();
      ::use_default_colors();
      ::init_pair(kHead, COLOR_CYAN, -1);
      ::init_pair(kGrows, COLOR_YELLOW, -1);
      ::init_pair(kShrinks, COLOR_GREEN, -1);
      colors_ = true;
    }
  }
  Curses(const Curses&) = delete;
  Curses& operator=(const Curses&) = delete;
  ~Curses() {
    ::endwin();
    ::delscreen(screen_);
  }
  void paint(short pair, bool on) const {
    if (!colors_) return;
    if (on) {
      ::attron(COLOR_PAIR(pair));
    } else {
      ::attroff(COLOR_PAIR(pair));
    }
  }

 private:
  SCREEN* screen_ = nullptr;
  bool colors_ = false;
};

std::size_t columns_of(const std::string& text) {
  return static_cast<std::size_t>(std::count_if(
      text.begin(), text.end(), [](char c) { return (static_cast<unsigned char>(c) & 0xc0) != 0x80; }));
}

/// Cut or padded to exactly `width` characters.
std::string fit(const std::string& text, std::size_t width, bool right) {
  std::string out;
  std::size_t used = 0;
  for (std::size_t at = 0; at < text.size() && used < width; ++used) {
    const std::size_t length = std::max<std::size_t>(utf8_length(text, at), 1);
    out += text.substr(at, length);
    at += length;
  }
  const std::string padding(width - used, ' ');
  return right ? padding + out : out + padding;
}

struct Column {
  const char* name;
  std::size_t width;
  bool right;
  unsigned rank;  ///< those with the highest go first where the screen is narrow
};

class Screen {
 public:
  Screen(TopModel& model, TopSettings settings, const Console& console)
      : model_(model), s_(std::move(settings)), console_(console), curses_(console.colors()) {}

  void run() {
    const Interrupts interrupts;
    look();
    while (!Interrupts::seen()) {
      draw();
      ::timeout(paused_ ? 500 : std::max(1, static_cast<int>((s_.delay - watch_.seconds()) * 1000)));
      const int key = ::getch();
      if (key == 'q' || (key == 27 && !typing_)) return;
      if (key == 12) (void)::clearok(curscr, TRUE);  // Ctrl-L
      if (key != ERR && key != 12) press(key);
      if (!paused_ && watch_.seconds() >= s_.delay) look();
    }
  }

 private:
  void look() {
    model_.look(s_.view);
    watch_ = Stopwatch();
  }

  void press(int key) {
    if (typing_) return type(key);
    switch (key) {
      case 'h':
        return change_view(TopView::heaps);
      case 't':
        return change_view(TopView::tags);
      case 'p':
        return change_view(TopView::processes);
      case '\t':
        return change_view(s_.view == TopView::heaps  ? TopView::tags
                           : s_.view == TopView::tags ? TopView::processes
                                                      : TopView::heaps);
      case 'b':
        s_.sort = TopSort::bytes;
        break;
      case 'r':
        s_.sort = TopSort::rate;
        break;
      case 'c':
        s_.sort = TopSort::count;
        break;
      case 'n':
        s_.sort = TopSort::name;
        break;
      case 'i':
        s_.reversed = !s_.reversed;
        break;
      case '/':
        typing_ = true;
        before_typing_ = s_.filter;
        break;
      case ' ':
        paused_ = !paused_;
        break;
      case '+':
        s_.delay = std::min(s_.delay * 2, 60.0);
        break;
      case '-':
        s_.delay = std::max(s_.delay / 2, 0.1);
        break;
      case KEY_UP:
        first_ = first_ == 0 ? 0 : first_ - 1;
        break;
      case KEY_DOWN:
        ++first_;
        break;
      case KEY_PPAGE:
        first_ -= std::min<std::size_t>(first_, static_cast<std::size_t>(LINES) / 2);
        break;
      case KEY_NPAGE:
        first_ += static_cast<std::size_t>(LINES) / 2;
        break;
      case KEY_HOME:
        first_ = 0;
        break;
      default:  // KEY_RESIZE: drawn anew
        break;
    }
  }

  void type(int key) {
    if (key == '\n' || key == '\r' || key == KEY_ENTER) {
      typing_ = false;
    } else if (key == 27) {
      typing_ = false;
      s_.filter = before_typing_;
    } else if (key == KEY_BACKSPACE || key == 127 || key == 8) {
      while (!s_.filter.empty() && (static_cast<unsigned char>(s_.filter.back()) & 0xc0) == 0x80)
        s_.filter.pop_back();
      if (!s_.filter.empty()) s_.filter.pop_back();
    } else if (key == 21) {  // Ctrl-U
      s_.filter.clear();
    } else if (key >= 32 && key < 256 && s_.filter.size() < 64) {
      s_.filter += static_cast<char>(key);
    }
    first_ = 0;
  }

  void change_view(TopView view) {
    if (view == s_.view) return;
    s_.view = view;
    first_ = 0;
    look();
  }

  void put(int line, const std::string& text) const {
    if (line < 0 || line >= LINES) return;
    (void)::mvaddstr(line, 0, fit(text, static_cast<std::size_t>(COLS), false).c_str());
  }

  [[nodiscard]] std::string name(const std::string& text) const { return shown(text, console_.unicode()); }

  [[nodiscard]] std::vector<Column> columns(const std::vector<TopRow>& rows) const {
    std::size_t domain = 6, heap = 4, label = 4;
    for (const TopRow& row : rows) {
      domain = std::max(domain, columns_of(name(row.domain)));
      heap = std::max(heap, columns_of(name(row.heap)));
      label = std::max(label, columns_of(name(row.label)));
    }
    std::vector<Column> all{
        {"domain", std::min<std::size_t>(domain, 24), false, 5},
        {"heap", std::min<std::size_t>(heap, 24), false, s_.view == TopView::heaps ? 0u : 4u}};
    if (s_.view == TopView::processes) all.push_back({"pid", 8, true, 3});
    if (s_.view == TopView::tags) all.push_back({"tag", std::min<std::size_t>(label, 32), false, 0});
    if (s_.view == TopView::processes)
      all.push_back({"process", std::min<std::size_t>(std::max<std::size_t>(label, 7), 24), false, 0});
    all.push_back({"held", 10, true, 0});
    all.push_back({"change", 13, true, 2});
    all.push_back({"objects", 13, true, 6});
    all.push_back({"objects/s", 12, true, 7});
    if (s_.view == TopView::heaps) {
      all.push_back({"memory", 10, true, 8});
      all.push_back({"full", 17, false, 9});
    }
    const auto width = [&] {
      std::size_t sum = 0;
      for (const Column& c : all) sum += c.width + 2;
      return sum;
    };
    while (width() > static_cast<std::size_t>(COLS) && all.size() > 2) {
      const auto last = std::max_element(all.begin(), all.end(),
                                         [](const Column& a, const Column& b) { return a.rank < b.rank; });
      if (last->rank == 0) break;
      all.erase(last);
    }
    return all;
  }

  [[nodiscard]] std::string cell(const TopRow& row, const std::string& column) const {
    if (column == "domain") return name(row.domain);
    if (column == "heap") return name(row.heap);
    if (column == "tag" || column == "process") return name(row.label);
    if (column == "pid") return row.pid == 0 ? "-" : std::to_string(row.pid);
    if (column == "held") return bytes_text(row.bytes);
    if (column == "change") return rate_text(row.byte_rate);
    if (column == "objects") return count_text(row.count);
    if (column == "objects/s") return row.count_rate == 0 ? "0" : fmt::format("{:+.0f}", row.count_rate);
    if (column == "memory") return bytes_text(row.total);
    if (row.total == 0) return "-";
    const double share = static_cast<double>(row.bytes) / static_cast<double>(row.total);
    const auto cells = static_cast<std::size_t>(std::lround(share * 10));
    std::string bar;
    for (std::size_t i = 0; i < 10; ++i)
      bar += i < cells ? console_.either("█", "#") : console_.either("░", ".");
    return bar + fmt::format("{:>5.1f} %", share * 100);
  }

  void draw() {
    ::erase();
    const std::vector<TopRow> rows = model_.rows(s_.sort, s_.reversed, s_.filter);
    const TopSums& sums = model_.sums();
    char clock[16] = "";
    const std::time_t now = std::time(nullptr);
    std::tm local{};
    if (::localtime_r(&now, &local) != nullptr) (void)std::strftime(clock, sizeof clock, "%H:%M:%S", &local);
    put(0, fmt::format("extmem top  {}  held {} of {}  {}, {}{}", clock, bytes_text(sums.held),
                       bytes_text(sums.total), plural(sums.domains, "domain"),
                       plural(sums.processes, "process", "processes"),
                       sums.dead == 0 ? std::string() : fmt::format(", {} dead", sums.dead)));
    std::string state = fmt::format("{} by {}{}, every {:g} s", view_text(s_.view), sort_text(s_.sort),
                                    s_.reversed ? ", reversed" : "", s_.delay);
    if (paused_) state += ", PAUSED";
    if (!s_.filter.empty()) state += fmt::format(", only \"{}\"", name(s_.filter));
    if (!model_.troubles().empty()) state += ", " + model_.troubles().front();
    ::attron(A_DIM);
    put(1, state);
    ::attroff(A_DIM);

    const std::vector<Column> all = columns(rows);
    std::string head;
    for (const Column& c : all) head += fit(c.name, c.width, c.right) + "  ";
    ::attron(A_REVERSE);
    put(3, head);
    ::attroff(A_REVERSE);
    const std::size_t room = LINES > 6 ? static_cast<std::size_t>(LINES - 5) : 1;
    first_ = std::min(first_, rows.size() > room ? rows.size() - room : 0);
    int line = 4;
    for (std::size_t i = first_; i < rows.size() && i < first_ + room; ++i, ++line)
      draw_row(rows[i], all, line);
    if (rows.empty()) put(line, s_.filter.empty() ? "nothing is held here" : "nothing has that in its name");
    if (typing_) {
      put(LINES - 1, "filter: " + name(s_.filter) + "_   (Enter: keep, Esc: as before)");
    } else {
      curses_.paint(kHead, true);
      put(LINES - 1,
          "q quit  h heaps  t tags  p processes  / filter   sort: b bytes  r change  c objects  n name  i "
          "invert   "
          "space pause  +/- delay");
      curses_.paint(kHead, false);
    }
    ::refresh();
  }

  void draw_row(const TopRow& row, const std::vector<Column>& all, int line) const {
    const int end = COLS;
    int at = 0;
    for (const Column& c : all) {
      if (at >= end) break;
      const short pair = row.byte_rate > 0 ? kGrows : kShrinks;
      const bool changes = std::string_view(c.name) == "change" && row.byte_rate != 0;
      if (changes) curses_.paint(pair, true);
      const std::size_t width = std::min(c.width, static_cast<std::size_t>(end - at));
      (void)::mvaddstr(line, at, fit(cell(row, c.name), width, c.right).c_str());
      if (changes) curses_.paint(pair, false);
      at += static_cast<int>(c.width) + 2;
    }
    if (!row.stable && at <= end && at >= 1) (void)::mvaddstr(line, std::min(at, end) - 1, "~");
  }

  TopModel& model_;
  TopSettings s_;
  const Console& console_;
  Curses curses_;
  Stopwatch watch_;
  std::size_t first_ = 0;
  bool paused_ = false;
  bool typing_ = false;
  std::string before_typing_;
};

}  // namespace

std::string rate_text(double rate) {
  if (rate == 0) return "0";
  return (rate > 0 ? "+" : "-") + bytes_text(static_cast<std::uint64_t>(std::abs(rate))) + "/s";
}

const char* view_text(TopView view) {
  return view == TopView::heaps ? "heaps" : view == TopView::tags ? "tags" : "processes";
}

const char* sort_text(TopSort sort) {
  return sort == TopSort::bytes   ? "bytes"
         : sort == TopSort::rate  ? "change"
         : sort == TopSort::count ? "objects"
                                  : "name";
}

void run_top_screen(TopModel& model, TopSettings settings, const Console& console) {
  Screen(model, std::move(settings), console).run();
}

}  // namespace extmem::cli
