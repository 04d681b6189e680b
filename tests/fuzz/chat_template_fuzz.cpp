// A chat template, rendered with conversations.
#include "base/utf8.h"
#include "chat/template.h"
#include "fuzz.h"

using namespace wavroute;

WAVROUTE_FUZZ_TARGET(text) {
  fuzz::accepts([&] {
    const ChatTemplate chat(text, "input");
    const ChatMessage user = {"user", " a\n'\"\xE4\xB8\xAD "}, answer = {"assistant", "b"};
    for (const ChatInput& input :
         {ChatInput{{{"system", "s"}, user, answer, user}, true, "<s>", "</s>"},
          ChatInput{{user}, false, "", ""}, ChatInput{}}) {
      fuzz::accepts([&] {
        const std::string result = chat.render(input, {});
        fuzz::require(is_utf8(result), "what is printed is UTF-8");
        fuzz::require(chat.render(input, {}) == result, "and the same again");
      });
    }
  });
}
