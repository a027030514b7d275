// Program: what `extmem run` and `extmem record` turn themselves into, with a library of ours preloaded.
#pragma once

#include <string>
#include <utility>
#include <vector>

namespace extmem::cli {

/// Sets an environment variable, or takes it away where the value is empty.
void set_variable(const char* name, const std::string& value);

/// The path as it is from the root: for a program that may change its folder. Empty stays empty.
std::string from_here(const std::string& path);

/// Throws Failure where the file cannot be written: before the program runs, perhaps for hours. Leaves no file where there is none.
/// `what` goes into it, and `option` says where it is.
void check_writable(const std::string& path, const char* what, const char* option);

/// Where a library of ours is: beside the command, in the build tree and where both were installed. Empty: nowhere.
std::string find_library(const std::string& name);

class Program {
 public:
  /// `command`: of ours, for the messages ("run").
  Program(std::string command, std::vector<std::string> words)
      : command_(std::move(command)), words_(std::move(words)) {}

  /// A library in front of what is preloaded already: a name of ours, or a path.
  void preload(const std::string& library) { libraries_.push_back(library); }
  /// Becomes the program. Throws Failure where that fails.
  [[noreturn]] void become() const;

 private:
  std::string command_;
  std::vector<std::string> words_;
  std::vector<std::string> libraries_;
};

}  // namespace extmem::cli
