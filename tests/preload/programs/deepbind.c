// A library that dlopen loads with RTLD_DEEPBIND, as PHP does with its extensions: it and the program free each other's memory.
// Its name has no folder: the program's RUNPATH says where it is.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int main(void) {
  void* library = dlopen("preload_plugin.so", RTLD_NOW | RTLD_DEEPBIND);
  if (library == NULL) return printf("deepbind: failed: %s\n", dlerror()), 1;
  char* (*made_text)(void) = NULL;
  void (*take_text)(char*) = NULL;
  *(void**)&made_text = dlsym(library, "made_text");
  *(void**)&take_text = dlsym(library, "take_text");
  if (made_text == NULL || take_text == NULL) return puts("deepbind: failed: no such function"), 1;
  for (int i = 0; i < 1000; ++i) {
    char* theirs = made_text();
    if (strcmp(theirs, "made in a library") != 0) return puts("deepbind: failed: another text"), 1;
    free(theirs);
    char* ours = malloc(100);
    strcpy(ours, "made in the program");
    take_text(ours);
  }
  if (dlclose(library) != 0) return puts("deepbind: failed: dlclose"), 1;
  if (dlopen("no such library", RTLD_NOW | RTLD_DEEPBIND) != NULL)
    return puts("deepbind: failed: no error"), 1;
  puts("deepbind: passed");
  return 0;
}
