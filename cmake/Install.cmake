# What `cmake --install` lays down: both libraries, headers, the command, man pages, a CMake package
# (extmem::extmem, extmem::extmem_static, extmem::extmem_dpdk, extmem::extmem_dpdk_static), extmem.pc and
# extmem-dpdk.pc; the bridge to DPDK where it is built. tests/consumer builds against the result.

# docs/man/NAME.SECTION.scd -> man/NAME.SECTION; `man` exists even while there is nothing to build.
file(GLOB man_sources CONFIGURE_DEPENDS ${PROJECT_SOURCE_DIR}/docs/man/*.scd)
if(NOT EXTMEM_DPDK_BRIDGE)
  list(FILTER man_sources EXCLUDE REGEX "dpdk-bridge")
endif()
find_program(SCDOC_PROGRAM scdoc)
set(man_pages "")
if(SCDOC_PROGRAM)
  foreach(source IN LISTS man_sources)
    get_filename_component(page ${source} NAME_WLE)
    string(REGEX MATCH "[0-9]$" section ${page})
    set(output ${PROJECT_BINARY_DIR}/man/${page})
    add_custom_command(OUTPUT ${output} DEPENDS ${source} VERBATIM
      COMMAND ${CMAKE_COMMAND} -E make_directory ${PROJECT_BINARY_DIR}/man
      COMMAND sh -c "\"$1\" <\"$2\" >\"$3.part\" && mv \"$3.part\" \"$3\"" sh
        ${SCDOC_PROGRAM} ${source} ${output})
    list(APPEND man_pages ${output})
    install(FILES ${output} DESTINATION ${CMAKE_INSTALL_MANDIR}/man${section})
  endforeach()
elseif(man_sources)
  message(STATUS "scdoc is not installed: no man pages")
endif()
add_custom_target(man ALL DEPENDS ${man_pages})

if(NOT TARGET extmem)
  return()
endif()
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/extmem)

install(TARGETS extmem extmem_static EXPORT extmem)
set(left_out PATTERN dpdk_bridge.h EXCLUDE)
if(TARGET extmem_dpdk)
  # It finds libextmem.so next to it, wherever the tree was installed.
  set_target_properties(extmem_dpdk PROPERTIES INSTALL_RPATH $ORIGIN)
  install(TARGETS extmem_dpdk extmem_dpdk_static EXPORT extmem)
else()
  list(APPEND left_out PATTERN dpdk EXCLUDE)
endif()
install(DIRECTORY include/extmem DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} ${left_out})
if(TARGET extmem_cli)
  # The command finds the library next to it, wherever the tree was installed.
  file(RELATIVE_PATH to_lib /${CMAKE_INSTALL_BINDIR} /${CMAKE_INSTALL_LIBDIR})
  set_target_properties(extmem_cli PROPERTIES INSTALL_RPATH $ORIGIN/${to_lib})
  install(TARGETS extmem_cli)

  # Completion scripts are what the command itself says of its commands and options.
  if(NOT CMAKE_CROSSCOMPILING OR CMAKE_CROSSCOMPILING_EMULATOR)
    set(completion_dir ${PROJECT_BINARY_DIR}/completions)
    foreach(shell IN ITEMS bash zsh fish)
      add_custom_command(OUTPUT ${completion_dir}/extmem.${shell} DEPENDS extmem_cli VERBATIM
        COMMAND ${CMAKE_COMMAND} -E make_directory ${completion_dir}
        COMMAND sh -c "\"$1\" completion \"$2\" >\"$3.part\" && mv \"$3.part\" \"$3\"" sh
          $<TARGET_FILE:extmem_cli> ${shell} ${completion_dir}/extmem.${shell})
    endforeach()
    add_custom_target(completions ALL DEPENDS
      ${completion_dir}/extmem.bash ${completion_dir}/extmem.zsh ${completion_dir}/extmem.fish)
    install(FILES ${completion_dir}/extmem.bash RENAME extmem
      DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
    install(FILES ${completion_dir}/extmem.zsh RENAME _extmem DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
    install(FILES ${completion_dir}/extmem.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
  else()
    message(STATUS "cross-compiling: no completion scripts, for they come from the command itself")
  endif()
endif()

if(TARGET extmem_preload)
  install(TARGETS extmem_preload extmem_record)
endif()
if(TARGET extmem_cli)
  # What extmem(1) points to.
  install(FILES docs/cli-json.md docs/trace.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
endif()

file(RELATIVE_PATH to_prefix /prefix/${CMAKE_INSTALL_LIBDIR}/pkgconfig /prefix)
if(EXTMEM_DPDK_BRIDGE)
  # By CMake the shared library (extmem::dpdk_bridge); the static one by pkg-config, which knows what it needs of DPDK.
  install(TARGETS extmem_dpdk_bridge EXPORT extmem)
  install(TARGETS extmem_dpdk_bridge_static)
  install(FILES include/extmem/dpdk_bridge.h DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/extmem)
  configure_file(cmake/extmem-dpdk-bridge.pc.in extmem-dpdk-bridge.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/extmem-dpdk-bridge.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
  # It finds libextmem.so next to itself, wherever the tree was installed.
  set_target_properties(extmem_dpdk_bridge PROPERTIES INSTALL_RPATH $ORIGIN)
endif()

install(EXPORT extmem NAMESPACE extmem:: DESTINATION ${package_dir} FILE extmem-targets.cmake)
configure_package_config_file(cmake/extmem-config.cmake.in extmem-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(extmem-config-version.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/extmem-config.cmake ${PROJECT_BINARY_DIR}/extmem-config-version.cmake
  DESTINATION ${package_dir})

configure_file(cmake/extmem.pc.in extmem.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/extmem.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
if(TARGET extmem_dpdk)
  configure_file(cmake/extmem-dpdk.pc.in extmem-dpdk.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/extmem-dpdk.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endif()
