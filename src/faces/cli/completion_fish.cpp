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
  if (option.value == "FILE") return " -r -F";
  if (option.value == "DIR") return " -x -a '(__fish_complete_directories)'";
  if (option.value == "DOMAIN") return " -x -a '(extmem complete-domains 2>/dev/null)'";
  return " -x";
}

void paths(const CompletionNode& node, std::string& out) {
  for (const CompletionNode& child : node.children) {
    out += " " + in_quotes(node.path + ":" + child.name);
    paths(child, out);
  }
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
    } else if (p.value == "DOMAIN" || !p.choices.empty()) {
      out += fmt::format("{}{}\n", start, value_of(p));
    }
  }
  for (const CompletionNode& child : node.children) write(child, out);
}

}  // namespace

std::string fish_completion(const CompletionNode& root) {
  std::string known;
  paths(root, known);
  std::string out = fmt::format(R"(# fish completion for extmem. Made by: extmem completion fish
function __extmem_at
    set -l path ''
    for word in (commandline -opc)[2..-1]
        if contains -- "$path:$word"{}
            set path (string trim -- "$path $word")
        end
    end
    test "$path" = "$argv[1]"
end
complete -c extmem -f
)",
                                known);
  write(root, out);
  return out;
}

}  // namespace extmem::cli
