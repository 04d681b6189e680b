# Finds libtorch inside an installed torch wheel (CPU or CUDA) without TorchConfig.cmake, which
# demands a CUDA toolkit for a CUDA wheel.
#
# Reads:   WAVROUTE_PYTHON (cache or environment): the interpreter with the wheel;
#          else ./.venv/bin/python, else python3. Where a Python package is built (SKBUILD): the
#          interpreter that builds it.
# Defines: TorchWheel_ROOT, TorchWheel_VERSION, TorchWheel_CUDA (ON for a CUDA wheel),
#          TorchWheel_CUDA_VERSION (13.0; empty for others)
#          TorchWheel::torch  headers and libraries
#          TorchWheel::openmp the OpenMP library of libtorch's threads
#          TorchWheel::fmt    only the fmt headers that torch bundles; src/base/fmt.cpp is the library

if(NOT WAVROUTE_PYTHON)
  if(SKBUILD AND Python_EXECUTABLE)
    set(_python ${Python_EXECUTABLE})
  elseif(DEFINED ENV{WAVROUTE_PYTHON} AND NOT "$ENV{WAVROUTE_PYTHON}" STREQUAL "")
    set(_python "$ENV{WAVROUTE_PYTHON}")
  elseif(EXISTS ${PROJECT_SOURCE_DIR}/.venv/bin/python)
    set(_python ${PROJECT_SOURCE_DIR}/.venv/bin/python)
  else()
    find_program(_python python3 NO_CACHE)
  endif()
  set(WAVROUTE_PYTHON "${_python}" CACHE FILEPATH "The Python interpreter that owns the torch wheel")
endif()

# find_spec does not import torch: it costs milliseconds, and works without its dependencies.
execute_process(
  COMMAND "${WAVROUTE_PYTHON}" -c "import importlib.util as u, os, re
p = os.path.dirname(u.find_spec('torch').origin)
print(p)
v = open(p + '/version.py').read()
print(re.search(r'__version__ = .([0-9.]+)', v).group(1))
print((re.search(r'^cuda.* = .([0-9.]+)', v, re.M) or [0, ''])[1])"
  OUTPUT_VARIABLE _torch ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE RESULT_VARIABLE _failed)
if(NOT _failed)
  string(REPLACE "\n" ";" _torch "${_torch}")
  list(GET _torch 0 TorchWheel_ROOT)
  list(GET _torch 1 TorchWheel_VERSION)
  list(LENGTH _torch _count)
  set(TorchWheel_CUDA_VERSION "")
  if(_count GREATER 2)
    list(GET _torch 2 TorchWheel_CUDA_VERSION)
  endif()
endif()

include(FindPackageHandleStandardArgs)
find_package_handle_standard_args(TorchWheel
  REQUIRED_VARS TorchWheel_ROOT VERSION_VAR TorchWheel_VERSION
  REASON_FAILURE_MESSAGE "${WAVROUTE_PYTHON} has no torch: run ./dev setup or set WAVROUTE_PYTHON to an interpreter that has")

if(TorchWheel_FOUND AND NOT TARGET TorchWheel::torch)
  if(TorchWheel_VERSION VERSION_LESS 2.11 OR TorchWheel_VERSION VERSION_GREATER_EQUAL 2.16)
    message(WARNING "torch ${TorchWheel_VERSION} is outside the range that is supported, 2.11 to 2.15")
  endif()
  # A compiler that has the C++ library only as an archive links it into the program beside the
  # shared one of libtorch, and each frees memory of the other: "free(): invalid pointer".
  if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
    execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=libstdc++.so
      OUTPUT_VARIABLE _stdcxx ERROR_QUIET OUTPUT_STRIP_TRAILING_WHITESPACE)
    if(_stdcxx STREQUAL "libstdc++.so")
      message(FATAL_ERROR "a compiler with a shared libstdc++ was expected, ${CMAKE_CXX_COMPILER} "
                          "has none: name another one by CXX or -DCMAKE_CXX_COMPILER")
    endif()
  endif()
  set(_lib ${TorchWheel_ROOT}/lib)
  add_library(TorchWheel::torch INTERFACE IMPORTED)
  target_include_directories(TorchWheel::torch SYSTEM INTERFACE
    ${TorchWheel_ROOT}/include ${TorchWheel_ROOT}/include/torch/csrc/api/include)
  # --no-as-needed: libtorch_cuda registers its kernels when it is loaded; no symbol of it is referenced.
  set(_link -Wl,--no-as-needed ${_lib}/libtorch_cpu.so ${_lib}/libc10.so)
  set(TorchWheel_CUDA OFF)
  if(EXISTS ${_lib}/libtorch_cuda.so)
    set(TorchWheel_CUDA ON)
    list(APPEND _link ${_lib}/libtorch_cuda.so ${_lib}/libc10_cuda.so
         -Wl,--allow-shlib-undefined)  # the CUDA runtime comes from the wheel's own rpath
  endif()
  target_link_libraries(TorchWheel::torch INTERFACE ${_link} -Wl,--as-needed)

  # A second OpenMP library in the process would bring a second set of threads.
  file(GLOB _openmp ${_lib}/libgomp*.so* ${TorchWheel_ROOT}/../torch.libs/libgomp*.so*)
  if(NOT _openmp)
    set(_openmp -fopenmp)
  endif()
  list(GET _openmp 0 _openmp)
  add_library(TorchWheel::openmp INTERFACE IMPORTED)
  target_link_libraries(TorchWheel::openmp INTERFACE ${_openmp})

  # A folder with nothing but fmt in it, so that torch-free code can't see torch's headers.
  set(_headers ${PROJECT_BINARY_DIR}/fmt-headers)
  file(MAKE_DIRECTORY ${_headers})
  file(CREATE_LINK ${TorchWheel_ROOT}/include/fmt ${_headers}/fmt SYMBOLIC)
  add_library(TorchWheel::fmt INTERFACE IMPORTED)
  target_include_directories(TorchWheel::fmt SYSTEM INTERFACE ${_headers})
endif()
