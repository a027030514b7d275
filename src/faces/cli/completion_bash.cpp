// The completion script for bash. It needs nothing of the package bash-completion.
#include <fmt/core.h>

#include <functional>

#include "faces/cli/completion.hpp"

namespace extmem::cli {
namespace {

std::string join(const std::vector<std::string>& words, const char* between) {
  std::string text;
  for (const std::string& word : words) text += (text.empty() ? "" : between) + word;
  return text;
}

/// What completes a value: a line that sets COMPREPLY from "$cur".
std::string reply(const CompletionOption& option) {
  if (!option.choices.empty())
    return fmt::format("COMPREPLY=($(compgen -W '{}' -- \"$cur\"))", join(option.choices, " "));
  if (is_file(option)) return "COMPREPLY=($(compgen -f -- \"$cur\"))";
  if (option.value == "DIR") return "COMPREPLY=($(compgen -d -- \"$cur\"))";
  if (const std::string names = names_of(option); !names.empty()) return "_extmem_names " + names;
  return "COMPREPLY=()";
}

void walk(const CompletionNode& node, const std::function<void(const CompletionNode&)>& visit) {
  visit(node);
  for (const CompletionNode& child : node.children) walk(child, visit);
}

}  // namespace

std::string bash_completion(const CompletionNode& root) {
  std::string paths;
  std::string valued;
  std::string values;
  std::string words;
  std::string places;
  walk(root, [&](const CompletionNode& node) {
    std::vector<std::string> offered;
    for (const CompletionNode& child : node.children) {
      offered.push_back(child.name);
      paths += (paths.empty() ? "" : "|") + fmt::format("'{}:{}'", node.path, child.name);
    }
    for (const CompletionOption& option : node.options) {
      for (const std::string& name : option.names) {
        if (name.starts_with("--")) offered.push_back(name);
        if (option.value.empty()) continue;
        valued += (valued.empty() ? "" : "|") + fmt::format("'{}:{}'", node.path, name);
        values += fmt::format("    '{}:{}') {}; return ;;\n", node.path, name, reply(option));
      }
    }
    for (std::size_t i = 0; i < node.positionals.size(); ++i) {
      if (node.positionals[i].value == "PROGRAM") continue;  // after --, see below
      places += fmt::format("    '{}:'{}) {} ;;\n", node.path,
                            node.positionals[i].many ? std::string("*") : fmt::format("{}", i),
                            reply(node.positionals[i]));
    }
    words += fmt::format("    '{}') words='{}' ;;\n", node.path, join(offered, " "));
  });
  return fmt::format(R"(# bash completion for extmem. Made by: extmem completion bash
# Names that need no quoting; what is behind the tab describes them.
_extmem_names() {{
  local names=$(extmem complete "${{directory[@]}}" "$1" "$domain" 2>/dev/null | cut -f1)
  COMPREPLY=($(compgen -W "$names" -- "$cur"))
}}
_extmem() {{
  local cur=${{COMP_WORDS[COMP_CWORD]}} path='' place=0 skip=0 pending='' i word words='' domain='' directory=()
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    word=${{COMP_WORDS[i]}}
    if ((skip)); then
      [[ $word == '=' ]] && continue  # --option=value is three words here
      skip=0
      [[ $pending == --directory ]] && directory=("--directory=$word")
      [[ $pending == --domain ]] && domain=$word
      continue
    fi
    pending=''
    if [[ $word == -- && ($path == run || $path == record) ]]; then
      if ((i + 1 == COMP_CWORD)); then COMPREPLY=($(compgen -c -f -- "$cur")); else COMPREPLY=($(compgen -f -- "$cur")); fi
      return
    fi
    case "$path:$word" in
      {}) path="${{path:+$path }}$word"; place=0; continue ;;
      {}) pending=$word; skip=1; continue ;;
    esac
    [[ $word == -* ]] && continue
    ((place == 0)) && domain=${{domain:-$word}}
    ((place++))
  done
  if ((skip)); then
    [[ $cur == '=' ]] && cur=''
    case "$path:$pending" in
{}    esac
  fi
  case "$path" in
{}  esac
  if [[ $cur != -* ]]; then
    case "$path:$place" in
{}    esac
    ((${{#COMPREPLY[@]}})) && return
  fi
  COMPREPLY=($(compgen -W "$words" -- "$cur"))
}}
complete -o filenames -F _extmem extmem
)",
                     paths, valued, values, words, places);
}

}  // namespace extmem::cli
