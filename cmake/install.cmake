# What `cmake --install` installs: the C++ package and the command; and, only by --component python,
# what the Python package's wheel is made of besides its sources (docs/packages.md).
include(GNUInstallDirs)
include(CMakePackageConfigHelpers)

# ---- the C++ package ---------------------------------------------------------------------------
set(config ${CMAKE_INSTALL_LIBDIR}/cmake/wavroute)
set(torch_library_folder ${TorchWheel_ROOT}/lib)
# The wheel stands in one place with torch, whatever that is; other programs have torch where it was.
set(beside_torch "$ORIGIN/../torch/lib")
if(SKBUILD)
  set_target_properties(wavroute_library PROPERTIES INSTALL_RPATH "${beside_torch}")
else()
  set_target_properties(wavroute_library PROPERTIES
    INSTALL_RPATH "${beside_torch};${torch_library_folder}")
endif()
file(RELATIVE_PATH to_library /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
set_target_properties(wavroute_thin PROPERTIES INSTALL_RPATH "$ORIGIN/${to_library};$ORIGIN/..")

install(TARGETS wavroute_library wavroute_thin EXPORT wavroute
        RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(DIRECTORY include/wavroute DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h)
install(EXPORT wavroute NAMESPACE wavroute:: FILE wavrouteTargets.cmake DESTINATION ${config})
configure_package_config_file(cmake/wavrouteConfig.cmake.in wavrouteConfig.cmake
                              INSTALL_DESTINATION ${config})
write_basic_package_version_file(wavrouteConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${CMAKE_CURRENT_BINARY_DIR}/wavrouteConfig.cmake
              ${CMAKE_CURRENT_BINARY_DIR}/wavrouteConfigVersion.cmake cmake/FindTorchWheel.cmake
        DESTINATION ${config})
install(FILES LICENSE DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY ${WAVROUTE_PAGES}/man1 DESTINATION ${CMAKE_INSTALL_MANDIR})
install(FILES ${WAVROUTE_PAGES}/wavroute
        DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)

# ---- the wheel ---------------------------------------------------------------------------------
install(TARGETS wavroute_library wavroute_thin
        RUNTIME DESTINATION wavroute/bin COMPONENT python EXCLUDE_FROM_ALL
        LIBRARY DESTINATION wavroute COMPONENT python NAMELINK_SKIP EXCLUDE_FROM_ALL)
install(FILES ${PROJECT_BINARY_DIR}/python/wavroute/_build.py DESTINATION wavroute
        COMPONENT python EXCLUDE_FROM_ALL)
if(NOT SKBUILD)
  install(CODE "file(RPATH_CHANGE FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/wavroute/$<TARGET_FILE_NAME:wavroute_library>\"
    OLD_RPATH \"${beside_torch}:${torch_library_folder}\" NEW_RPATH \"${beside_torch}\")"
    COMPONENT python EXCLUDE_FROM_ALL)
endif()
