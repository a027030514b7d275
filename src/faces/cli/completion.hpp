// Shell completion, made from the tree of commands that CLI11 parses by: what completes is what is accepted.
#pragma once

#include <CLI/App.hpp>
#include <string>
#include <vector>

namespace extmem::cli {

struct CompletionOption {
  std::vector<std::string> names;  ///< "--json", "-h"; none for a positional
  std::string description;
  std::string value;                 ///< "" for a flag; FILE, DIR, DOMAIN, HEAP, REGION, SIZE, ...
  bool many = false;                 ///< a positional that takes all that follow
  std::vector<std::string> choices;  ///< where only these are accepted
};

struct CompletionNode {
  std::string path;  ///< "heap create"; "" for the command itself
  std::string name;
  std::string description;
  std::vector<CompletionOption> options;
  std::vector<CompletionOption> positionals;
  std::vector<CompletionNode> children;
};

/// Hidden commands are left out.
CompletionNode completion_tree(const CLI::App& app);

/// What `extmem complete` is asked for to complete such a value: "domains", "heaps", "regions"; empty: it is not.
const char* names_of(const CompletionOption& option);
/// Whether it is a path.
bool is_file(const CompletionOption& option);

std::string bash_completion(const CompletionNode& root);
std::string zsh_completion(const CompletionNode& root);
std::string fish_completion(const CompletionNode& root);

}  // namespace extmem::cli
