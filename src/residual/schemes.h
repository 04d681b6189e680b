// Declares the function that every scheme file defines; schemes.def is the list.
#pragma once

#include "wavroute/residual.h"

namespace wavroute::schemes {

#define SCHEME(name) [[nodiscard]] SchemeInfo name();
#include "residual/schemes.def"
#undef SCHEME

}  // namespace wavroute::schemes
