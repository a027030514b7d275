// `extmem completion SHELL`: prints what makes the shell complete commands, options, values and names of domains.
#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/completion.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/format.hpp"
#include "faces/cli/look.hpp"
#include "faces/cli/text.hpp"

namespace extmem::cli {
namespace {

std::vector<std::string> split(const std::string& text, char at) {
  std::vector<std::string> parts;
  std::size_t begin = 0;
  for (std::size_t end = 0; end != std::string::npos; begin = end + 1) {
    end = text.find(at, begin);
    parts.push_back(text.substr(begin, end == std::string::npos ? end : end - begin));
  }
  return parts;
}

CompletionOption option_of(const CLI::Option& option) {
  CompletionOption made;
  for (const std::string& name : option.get_snames()) made.names.push_back("-" + name);
  for (const std::string& name : option.get_lnames()) made.names.push_back("--" + name);
  made.description = option.get_description();
  if (option.get_items_expected_max() == 0) return made;
  made.many = option.get_items_expected_max() > 1;
  // "TEXT:{binned,exact}": the type, then what the validators say of themselves.
  const std::string type = option.get_type_name();
  made.value = type.substr(0, type.find_first_of(":{ "));
  if (made.value.empty()) made.value = "VALUE";
  const std::size_t open = type.find('{');
  if (const std::size_t close = type.find('}'); open != std::string::npos && close != std::string::npos)
    made.choices = split(type.substr(open + 1, close - open - 1), ',');
  return made;
}

CompletionNode node_of(const CLI::App& app, const std::string& path) {
  CompletionNode node{path, app.get_name(), app.get_description(), {}, {}, {}};
  for (const CLI::Option* option : app.get_options()) {
    if (option->get_positional()) {
      node.positionals.push_back(option_of(*option));
    } else {
      node.options.push_back(option_of(*option));
    }
  }
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (child->get_group().empty()) continue;  // hidden
    node.children.push_back(
        node_of(*child, path.empty() ? child->get_name() : path + " " + child->get_name()));
  }
  return node;
}

/// One a line, with a description behind a tab. Only names that need no quoting in any shell: what others chose must not
/// be run by the one that completes it.
void offer(const std::string& name, const std::string& description) {
  const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
    return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
  });
  if (plain && !name.starts_with('-')) fmt::print("{}\t{}\n", name, description);
}

int print_names(const ShellOptions& shell, const std::string& kind, const std::string& domain) {
  if (kind == "domains") {
    for (const std::string& name : domain_names(shell)) offer(name, "domain");
    return kPassed;
  }
  if (domain.empty()) return kPassed;
  const Console console = Console::create(true);
  Inspector inspector = open_inspector(shell, domain, console);
  const DomainLook look = look_at(inspector, domain, {false, false, true, false});
  if (kind == "heaps") {
    for (const HeapLook& heap : look.heaps) offer(heap.info.name, plural(heap.info.regions, "region"));
  } else {
    for (const RegionInfo& r : look.regions)
      offer(std::to_string(r.id.slot),
            fmt::format("{} of {}, heap {}", bytes_text(r.length), preload::backing_word(r.kind),
                        shown(look.heap_name(r.heap_id), false)));
  }
  return kPassed;
}

}  // namespace

CompletionNode completion_tree(const CLI::App& app) { return node_of(app, ""); }

const char* names_of(const CompletionOption& option) {
  return option.value == "DOMAIN"   ? "domains"
         : option.value == "HEAP"   ? "heaps"
         : option.value == "REGION" ? "regions"
                                    : "";
}

bool is_file(const CompletionOption& option) { return option.value == "FILE" || option.value == "TRACE"; }

void add_completion_command(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("completion", "Print the completion script of a shell");
  command->footer(
      "An installed extmem has them where the shells look. Else, for this session:\n"
      "  bash  source <(extmem completion bash)\n"
      "  zsh   source <(extmem completion zsh)\n"
      "  fish  extmem completion fish | source");
  auto shell = std::make_shared<std::string>();
  command->add_option("shell", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  auto shared = add_shell_options(*command, false);
  set_work(*command, exit_code, shared, [shell, shared, &app](const Console&) {
    const CompletionNode root = completion_tree(app);
    const std::string script = *shell == "bash"  ? bash_completion(root)
                               : *shell == "zsh" ? zsh_completion(root)
                                                 : fish_completion(root);
    if (shared->json) {
      Json json = begin_json("completion");
      print_json(json.text("shell", *shell).text("script", script).end());
    } else {
      fmt::print("{}", script);
    }
    return kPassed;
  });

  CLI::App* names = app.add_subcommand("complete", "What the completion scripts ask")->group("");
  struct Asked {
    std::string kind;
    std::string domain;
  };
  auto asked = std::make_shared<Asked>();
  auto options = std::make_shared<ShellOptions>();
  names->add_option("--directory", options->directory);
  names->add_option("kind", asked->kind)->required()->check(CLI::IsMember({"domains", "heaps", "regions"}));
  names->add_option("domain", asked->domain);
  set_work(*names, exit_code, options,
           [=](const Console&) { return print_names(*options, asked->kind, asked->domain); });
}

}  // namespace extmem::cli
