// The completion script for zsh: a function for each command, as _arguments wants it.
#include <fmt/core.h>

#include <algorithm>

#include "faces/cli/completion.hpp"

namespace extmem::cli {
namespace {

/// Inside '...' and of _arguments: brackets and colons have a meaning there.
std::string quoted(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\'') {
      out += "'\\''";
    } else if (c == '[' || c == ']' || c == ':' || c == '\\') {
      out += '\\';
      out += c;
    } else {
      out += c == '\n' ? ' ' : c;
    }
  }
  return out;
}

std::string action(const CompletionOption& option) {
  if (!option.choices.empty()) {
    std::string words;
    for (const std::string& choice : option.choices) words += (words.empty() ? "" : " ") + choice;
    return "(" + words + ")";
  }
  if (is_file(option)) return "_files";
  if (option.value == "DIR") return "_files -/";
  if (const std::string names = names_of(option); !names.empty()) return "_extmem_" + names;
  return " ";
}

std::string function_of(const CompletionNode& node) {
  std::string name = "_extmem";
  if (!node.path.empty()) name += "_" + node.path;
  std::replace(name.begin(), name.end(), ' ', '_');
  return name;
}

void write(const CompletionNode& node, std::string& out) {
  for (const CompletionNode& child : node.children) write(child, out);
  out += fmt::format("{}() {{\n", function_of(node));
  std::string arguments;
  for (const CompletionOption& option : node.options) {
    for (const std::string& name : option.names) {
      const std::string value =
          option.value.empty() ? "" : fmt::format(":{}:{}", quoted(option.value), action(option));
      // "=": the value may stand behind it, or be the next word.
      const char* equals = !value.empty() && name.starts_with("--") ? "=" : "";
      arguments += fmt::format(" \\\n    '{}{}[{}]{}'", name, equals, quoted(option.description), value);
    }
  }
  if (node.children.empty()) {
    for (std::size_t i = 0; i < node.positionals.size(); ++i) {
      const CompletionOption& p = node.positionals[i];
      arguments += p.value == "PROGRAM"
                       ? std::string(" \\\n    '*::program:_normal'")
                       : fmt::format(" \\\n    '{}:{}:{}'", p.many ? std::string("*") : std::to_string(i + 1),
                                     quoted(p.value), action(p));
    }
    out += fmt::format("  local line\n  typeset -A opt_args\n  _arguments -S{}\n}}\n", arguments);
    return;
  }
  out += "  local context state state_descr line\n  typeset -A opt_args\n";
  out += fmt::format("  _arguments -C{} \\\n    '1:command:->command' '*::argument:->argument'\n", arguments);
  out += "  case $state in\n    command)\n      local -a commands=(\n";
  for (const CompletionNode& child : node.children)
    out += fmt::format("        '{}:{}'\n", child.name, quoted(child.description));
  out += "      )\n      _describe command commands ;;\n    argument)\n      case $words[1] in\n";
  for (const CompletionNode& child : node.children)
    out += fmt::format("        {}) {} ;;\n", child.name, function_of(child));
  out += "      esac ;;\n  esac\n}\n";
}

}  // namespace

std::string zsh_completion(const CompletionNode& root) {
  std::string out =
      "#compdef extmem\n# zsh completion for extmem. Made by: extmem completion zsh\n"
      "_extmem_names() {\n"
      "  local directory=${opt_args[--directory]} domain=${opt_args[--domain]:-$line[1]}\n"
      "  local -a names=(${(f)\"$(extmem complete ${directory:+--directory=$directory} $1 $domain "
      "2>/dev/null)\"})\n"
      "  names=(${names//$'\\t'/:})\n  _describe -V ${1%s} names\n}\n"
      "_extmem_domains() { _extmem_names domains }\n"
      "_extmem_heaps() { _extmem_names heaps }\n"
      "_extmem_regions() { _extmem_names regions }\n";
  write(root, out);
  // Autoloaded from a folder of $fpath, or sourced.
  out += "if [[ $funcstack[1] == _extmem ]]; then _extmem \"$@\"; else compdef _extmem extmem; fi\n";
  return out;
}

}  // namespace extmem::cli
