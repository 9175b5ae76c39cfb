/* Writes a greeting to `out`; returns its length, or -1 for an empty name. */
#include <stdio.h>

int hello (FILE *out, const char *name);
