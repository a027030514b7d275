if(NOT TARGET extmem)
  return()
endif()
