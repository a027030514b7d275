// What the commands share that look at named domains and change them.
#pragma once

#include <CLI/App.hpp>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>

#include "extmem/domain.hpp"
#include "faces/cli/console.hpp"
#include "faces/cli/json.hpp"
#include "faces/preload/backing_word.hpp"

namespace extmem::cli {

/// Why a command ends early: its exit code, and what was wrong and what to do about it, for standard error.
class Failure : public std::runtime_error {
 public:
  /// `error_number`: errno where a call failed; 0: none did.
  Failure(int code, const std::string& what, int error_number = 0)
      : std::runtime_error(what), code_(code), error_number_(error_number) {}
  /// The exit code is that of a mistake in the command line for EINVAL and ENAMETOOLONG, else kImpossible.
  Failure(const std::string& doing, Error error);
  [[nodiscard]] int code() const { return code_; }
  [[nodiscard]] int error_number() const { return error_number_; }

 private:
  int code_;
  int error_number_;
};

/// Tells a failure: on standard error, and with --json also as a document. The document goes where those of the command go:
/// to standard output, but for `run` and `record`, where that is the program's, to standard error. Returns the exit code.
int tell_failure(const std::string& command, bool json, const Failure& failure);

/// What a failed call said: "... (ENOENT)".
std::string reason(Error error);

template <typename T>
T need(Result<T>&& result, const std::string& doing) {
  if (!result) throw Failure(doing, result.error());
  if constexpr (!std::is_void_v<T>) return std::move(result).value();
}
template <typename T>
T need(Result<T>& result, const std::string& doing) {
  return need(std::move(result), doing);
}

struct ShellOptions {
  std::string directory;  ///< runtime directory; empty: the usual one
  bool json = false;      ///< one document instead of text: docs/cli-json.md
  bool no_color = false;

  [[nodiscard]] const char* where() const { return directory.empty() ? nullptr : directory.c_str(); }
};

/// Adds --json and --no-color, and --directory where the command is about domains.
std::shared_ptr<ShellOptions> add_shell_options(CLI::App& command, bool domains = true);
/// The command's words: "heap create".
std::string path_of(const CLI::App& command);
/// What the command does: `work` returns the exit code, or throws Failure or Impossible.
void set_work(CLI::App& command, int& exit_code, std::shared_ptr<ShellOptions> options,
              std::function<int(const Console&)> work);

/// The start of a document: an object with "command" and "schema"; the caller ends it.
Json begin_json(const std::string& command);
void print_json(const Json& json);

/// Opens a domain that exists, as a participant. Throws Failure.
Domain open_domain(const ShellOptions& options, const std::string& name, const Console& console);
Heap find_heap(const Domain& domain, const std::string& name, const Console& console);
/// The region of that number, as `extmem ls` shows it: "3", or "3.7" with its generation. Throws Failure.
RegionInfo find_region(const Domain& domain, const std::string& number);

/// Bytes, with an optional K, M, G or T behind them. Throws Failure.
std::uint64_t parse_bytes(const std::string& text, const char* option);
/// Seconds: "10", "2.5", "300ms", "10s", "5m". Throws Failure.
double parse_seconds(const std::string& text, const char* option);

/// Who is in the way, one line each, to standard error; as an array "holders" with --json.
void complain_holders(const Console& console, const HolderReport& report);
void add_holders(Json& json, const HolderReport& report);

/// A progress bar that appears once the work has taken a second.
class Progress {
 public:
  explicit Progress(const Console& console) : console_(console) {}
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  ~Progress();
  void show(double share, const std::string& text);

 private:
  const Console& console_;
  double shown_ = -1;
  double started_ = now();
  static double now();
};

/// While it lives and once a second has passed: on a terminal, what is being done and for how long.
class Busy {
 public:
  Busy(const Console& console, std::string what);
  Busy(const Busy&) = delete;
  Busy& operator=(const Busy&) = delete;
  ~Busy();

 private:
  const Console& console_;
  std::string what_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;   // guarded by mutex_
  bool shown_ = false;  // the thread's, until it is joined
  std::thread thread_;
};

/// While it lives, SIGINT and SIGTERM only set a flag.
class Interrupts {
 public:
  Interrupts();
  ~Interrupts();
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  [[nodiscard]] static bool seen();
};

}  // namespace extmem::cli
