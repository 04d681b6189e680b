// Parquet files, read by pyarrow in a child process.
#pragma once

#include <string>

#include "data/documents.h"
#include "data/stop_check.h"

namespace wavroute {

// Gives the strings of the column format.field, row by row; a null is an empty document. UserError
// where the file is no Parquet file or has no such column of strings, and where `python` can't be
// run or has no pyarrow. Throws ReadingStopped; the child process has then ended.
void read_parquet(const std::string& path, const DocumentFormat& format, const std::string& python,
                  const StopCheck& is_stopped, const OnDocument& on_document);

}  // namespace wavroute
