// `extmem completion SHELL`: prints what makes the shell complete commands, options, values and names of domains.
#include <fmt/core.h>

#include <algorithm>
#include <cctype>
#include <memory>

#include "faces/cli/commands.hpp"
#include "faces/cli/completion.hpp"
#include "faces/cli/exit_code.hpp"
#include "faces/cli/look.hpp"

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

/// Names that need no quoting in any shell; one a line.
int print_domains(const ShellOptions& shell) {
  for (const std::string& name : domain_names(shell)) {
    const bool plain = std::all_of(name.begin(), name.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || c == '_' || c == '-' || c == '.';
    });
    if (plain) fmt::print("{}\n", name);
  }
  return kPassed;
}

}  // namespace

CompletionNode completion_tree(const CLI::App& app) { return node_of(app, ""); }

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
  command->callback([shell, &app, &exit_code] {
    const CompletionNode root = completion_tree(app);
    fmt::print("{}", *shell == "bash"  ? bash_completion(root)
                     : *shell == "zsh" ? zsh_completion(root)
                                       : fish_completion(root));
    exit_code = kPassed;
  });

  CLI::App* names = app.add_subcommand("complete-domains", "What the completion scripts ask")->group("");
  auto options = std::make_shared<ShellOptions>();
  names->add_option("--directory", options->directory);
  set_work(*names, exit_code, options, [options](const Console&) { return print_domains(*options); });
}

}  // namespace extmem::cli
