# Finds zstd by its header and library: not every system's package brings a CMake package.
#
# Defines: zstd::zstd.

find_path(zstd_INCLUDE_DIR zstd.h)
find_library(zstd_LIBRARY NAMES zstd)
mark_as_advanced(zstd_INCLUDE_DIR zstd_LIBRARY)

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(zstd
  REQUIRED_VARS zstd_LIBRARY zstd_INCLUDE_DIR
  REASON_FAILURE_MESSAGE "./dev setup installs libzstd-dev (a .deps of before it: rm -r .deps, then ./dev setup --prefix)")

if(zstd_FOUND AND NOT TARGET zstd::zstd)
  add_library(zstd::zstd UNKNOWN IMPORTED)
  set_target_properties(zstd::zstd PROPERTIES
    IMPORTED_LOCATION "${zstd_LIBRARY}" INTERFACE_INCLUDE_DIRECTORIES "${zstd_INCLUDE_DIR}")
endif()
