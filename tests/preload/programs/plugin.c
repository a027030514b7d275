/* A library that allocates in its constructor and frees in its destructor. */
#include <stdlib.h>
#include <string.h>

char* made_text(void);
void take_text(char* theirs);
static char* text;

__attribute__((constructor(101))) static void begin(void) {
  text = malloc(1000);
  if (text != NULL) strcpy(text, "made in a library");
}
__attribute__((destructor(101))) static void end(void) { free(text); }

char* made_text(void) {
  char* copy = malloc(100);
  if (copy != NULL) strcpy(copy, text);
  return copy;
}

void take_text(char* theirs) { free(theirs); }
