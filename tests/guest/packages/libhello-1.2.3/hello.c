#include "hello.h"

int hello (FILE *out, const char *name)
{
  return *name == '\0' ? -1 : fprintf (out, "Hello, %s!\n", name);
}
