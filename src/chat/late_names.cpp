#include "chat/late_names.h"

#include <set>
#include <utility>

namespace wavroute::chat {
namespace {

class Reader {
 public:
  explicit Reader(const Expression* target) {
    if (target != nullptr) add(*target);
  }

  // Statements in the order in which they stand; what loops and blocks hold is of scopes of theirs.
  void read(const Body& body, bool is_branch) {
    for (const Statement& statement : body) {
      switch (statement.kind) {
        case StatementKind::kPrint:
        case StatementKind::kFor:
          add(statement.value);
          break;
        case StatementKind::kSet:
          add(statement.value);
          set(statement.target, is_branch);
          break;
        case StatementKind::kSetBlock:
          set(statement.target, is_branch);
          break;
        case StatementKind::kIf:
          for (const Branch& branch : statement.branches) {
            add(branch.condition);
            read(branch.body, /*is_branch=*/true);
          }
          read(statement.otherwise, /*is_branch=*/true);
          break;
        default:
          break;
      }
    }
  }
  [[nodiscard]] std::vector<std::string> take() { return std::move(late_); }

 private:
  void add(const Expression& expression) {
    if (expression.kind == ExpressionKind::kName) seen_.insert(expression.name);
    for (const Expression& part : expression.parts) add(part);
  }

  void set(const Expression& target, bool is_branch) {
    if (target.kind == ExpressionKind::kTuple) {
      for (const Expression& part : target.parts) set(part, is_branch);
    } else if (target.kind == ExpressionKind::kName) {
      const bool is_new = seen_.insert(target.name).second;
      if (is_new && !is_branch) late_.push_back(target.name);
    } else {
      add(target);
    }
  }

  std::set<std::string> seen_;
  std::vector<std::string> late_;
};

}  // namespace

std::vector<std::string> late_names(const Body& body, const Expression* target) {
  Reader reader(target);
  reader.read(body, /*is_branch=*/false);
  return reader.take();
}

}  // namespace wavroute::chat
