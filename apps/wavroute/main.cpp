#include "base/output.h"
#include "command.h"

int main(int argc, char** argv) {
  wavroute::prepare_streams();
  return wavroute::app::run_command(argc, argv);
}
