// The completion script for fish.
#include <fmt/core.h>

#include "faces/cli/completion.hpp"

namespace extmem::cli {
namespace {

std::string in_quotes(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'' || c == '\\') out += '\\';
    out += c == '\n' ? ' ' : c;
  }
  return "'" + out + "'";
}

/// How the value of an option or a positional is completed.
std::string value_of(const CompletionOption& option) {
  std::string words;
  for (const std::string& choice : option.choices) words += (words.empty() ? "" : " ") + choice;
  if (!words.empty()) return " -x -a " + in_quotes(words);
  if (is_file(option)) return " -r -F";
  if (option.value == "DIR") return " -x -a '(__fish_complete_directories)'";
  if (const std::string names = names_of(option); !names.empty())
    return fmt::format(" -x -a '(__extmem_names {})'", names);
  return " -x";
}

void paths(const CompletionNode& node, std::string& out) {
  for (const CompletionNode& child : node.children) {
    out += " " + in_quotes(node.path + ":" + child.name);
    paths(child, out);
  }
}

/// The options that take a value, each as "path:--option".
void valued(const CompletionNode& node, std::string& out) {
  for (const CompletionOption& option : node.options) {
    if (option.value.empty()) continue;
    for (const std::string& name : option.names) out += " " + in_quotes(node.path + ":" + name);
  }
  for (const CompletionNode& child : node.children) valued(child, out);
}

void write(const CompletionNode& node, std::string& out) {
  const std::string start = fmt::format("complete -c extmem -n \"__extmem_at {}\"", in_quotes(node.path));
  for (const CompletionNode& child : node.children)
    out += fmt::format("{} -f -a {} -d {}\n", start, child.name, in_quotes(child.description));
  for (const CompletionOption& option : node.options) {
    std::string line = start;
    for (const std::string& name : option.names)
      line += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
    if (!option.value.empty()) line += value_of(option);
    out += line + " -d " + in_quotes(option.description) + "\n";
  }
  for (std::size_t i = 0; i < node.positionals.size(); ++i) {
    const CompletionOption& p = node.positionals[i];
    if (p.value == "PROGRAM") {
      out += fmt::format("{} -a '(__fish_complete_subcommand)'\n", start);
    } else if (is_file(p) || *names_of(p) != '\0' || !p.choices.empty()) {
      out += fmt::format("complete -c extmem -n \"__extmem_at {} {}{}\"{}\n", in_quotes(node.path), i,
                         p.many ? " many" : "", value_of(p));
    }
  }
  for (const CompletionNode& child : node.children) write(child, out);
}

}  // namespace

std::string fish_completion(const CompletionNode& root) {
  std::string known;
  std::string values;
  paths(root, known);
  valued(root, values);
  std::string out = fmt::format(R"(# fish completion for extmem. Made by: extmem completion fish
# What the line says so far: the command, its arguments, and which domains are meant.
function __extmem_read
    set -g __extmem_path ''
    set -g __extmem_args
    set -g __extmem_domain
    set -g __extmem_directory
    set -l pending ''
    for word in (commandline -opc)[2..-1]
        if test -n "$pending"
            test $pending = --directory; and set __extmem_directory --directory=$word
            test $pending = --domain; and set __extmem_domain $word
            set pending ''
        else if contains -- "$__extmem_path:$word"{}
            set __extmem_path (string trim -- "$__extmem_path $word")
            set __extmem_args
        else if contains -- "$__extmem_path:$word"{}
            set pending $word
        else if string match -q -- '--directory=*' $word
            set __extmem_directory $word
        else if string match -q -- '--domain=*' $word
            set __extmem_domain (string replace -- --domain= '' $word)
        else if not string match -q -- '-*' $word
            set -a __extmem_args $word
        end
    end
    set -q __extmem_domain[1]; or set __extmem_domain $__extmem_args[1]
end
# Whether that command is being completed, and of its arguments the one of that number, or one behind it.
function __extmem_at
    __extmem_read
    test "$__extmem_path" = "$argv[1]"; or return 1
    set -l place (count $__extmem_args)
    set -q argv[2]; or return 0
    test $place -eq $argv[2]; and return 0
    set -q argv[3]; and test $place -gt $argv[2]
end
function __extmem_names
    __extmem_read
    extmem complete $__extmem_directory $argv[1] $__extmem_domain 2>/dev/null
end
complete -c extmem -f
)",
                                known, values);
  write(root, out);
  return out;
}

}  // namespace extmem::cli
