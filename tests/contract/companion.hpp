// Companion: another process, a program of its own, that does what a test tells it (tests/contract/companion/main.cpp).
#pragma once

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstdint>
#include <cstdio>
#include <sstream>
#include <string>

namespace extmem::test {

class Companion {
 public:
  Companion() {
    int to[2], from[2];
    EXPECT_EQ(::pipe2(to, O_CLOEXEC), 0);
    EXPECT_EQ(::pipe2(from, O_CLOEXEC), 0);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::dup2(to[0], STDIN_FILENO);
      ::dup2(from[1], STDOUT_FILENO);
      ::execl(EXTMEM_COMPANION, EXTMEM_COMPANION, nullptr);
      ::_exit(127);
    }
    ::close(to[0]);
    ::close(from[1]);
    to_ = ::fdopen(to[1], "w");
    from_ = ::fdopen(from[0], "r");
  }
  Companion(const Companion&) = delete;
  ~Companion() {
    std::fclose(to_);  // it then ends by itself, closing its domain
    std::fclose(from_);
    if (pid_ > 0) ::waitpid(pid_, nullptr, 0);
  }

  [[nodiscard]] pid_t pid() const { return pid_; }

  void tell(const std::string& command) {
    std::fprintf(to_, "%s\n", command.c_str());
    std::fflush(to_);
  }
  std::string hear() {
    char line[1024] = {};
    if (std::fgets(line, sizeof line, from_) == nullptr) return "error 0 the companion has ended";
    std::string text = line;
    text.pop_back();
    return text;
  }
  /// What it answers.
  std::string ask(const std::string& command) { return tell(command), hear(); }
  /// 0, or the errno value that it answers.
  int code(const std::string& command) { return code_of(ask(command)); }
  static int code_of(const std::string& answer) {
    if (answer.rfind("ok", 0) == 0) return 0;
    return std::stoi(answer.substr(6));
  }
  /// The first number of a good answer.
  std::uint64_t number(const std::string& command) {
    const std::string answer = ask(command);
    EXPECT_EQ(answer.rfind("ok ", 0), 0u) << command << ": " << answer;
    return answer.size() > 3 ? std::strtoull(answer.c_str() + 3, nullptr, 10) : 0;
  }

  void stop() {
    ::kill(pid_, SIGSTOP);
    int status = 0;
    ::waitpid(pid_, &status, WUNTRACED);
  }
  void go_on() { ::kill(pid_, SIGCONT); }
  void kill() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  std::FILE* to_ = nullptr;
  std::FILE* from_ = nullptr;
};

/// A command and its words.
template <typename... Words>
std::string words(Words... all) {
  std::ostringstream out;
  ((out << all << ' '), ...);
  return out.str();
}

}  // namespace extmem::test
