# Writes the files FILES of FOLDER into the C++ source OUT, as wavroute::page_file(name).
set(cases "")
foreach(name IN LISTS FILES)
  file(READ "${FOLDER}/${name}" content)
  string(APPEND cases "  if (name == \"${name}\") return R\"page_file(${content})page_file\";\n")
endforeach()
file(WRITE "${OUT}" "#include \"report/page_file.h\"

namespace wavroute {

std::string_view page_file(std::string_view name) {
${cases}  return {};
}

}  // namespace wavroute
")
