/* The version of these headers. CMake and the shared library's name take theirs from here. */
#ifndef EXTMEM_VERSION_H
#define EXTMEM_VERSION_H

#define EXTMEM_VERSION_MAJOR 0
#define EXTMEM_VERSION_MINOR 1
#define EXTMEM_VERSION_PATCH 0
#define EXTMEM_VERSION_STRING "0.1.0"

#endif /* EXTMEM_VERSION_H */
