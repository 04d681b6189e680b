// Continues a prompt: generate RUN PROMPT [TOKENS]
#include <wavroute/error.h>
#include <wavroute/generate.h>

#include <cstdlib>
#include <iostream>

int main(int argc, char** argv) {
  if (argc < 3) {
    std::cerr << "usage: generate RUN PROMPT [TOKENS]\n";
    return 2;
  }
  try {
    const wavroute::TextModel model = wavroute::load_text_model(argv[1]);
    wavroute::TextOptions options;
    options.temperature = 0.0;  // always the likeliest token
    if (argc > 3) options.tokens = std::atoll(argv[3]);
    std::cout << argv[2];
    wavroute::continue_text(model, argv[2], options, [](std::string_view piece) {
      std::cout << piece << std::flush;
      return true;
    });
    std::cout << "\n";
  } catch (const wavroute::Error& error) {
    std::cerr << "generate: " << error.what() << "\nhint: " << error.hint() << "\n";
    return error.exit_code();
  }
}
