#include "hello.h"

/* Does not compile: the demo shows what becomes of that. */
int hello (FILE *out, const char *name)
{
  return *name == '\0' ? -1 : fprintf (out, "Hello, %s!\n", nmae);
}
