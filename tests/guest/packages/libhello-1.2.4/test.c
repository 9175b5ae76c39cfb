#include "hello.h"

int main (void)
{
  if (hello (stdout, "World") != 14)
    return 1;
  return hello (stdout, "") == -1 ? 0 : 2;
}
