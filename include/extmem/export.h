/* EXTMEM_API marks what libextmem.so exports; everything else is hidden (see also src/extmem.map). */
#ifndef EXTMEM_EXPORT_H
#define EXTMEM_EXPORT_H

#if defined(__GNUC__)
#define EXTMEM_API __attribute__((visibility("default")))
#else
#define EXTMEM_API
#endif

#endif /* EXTMEM_EXPORT_H */
