# The only list of commands. `make` alone builds the static binary.
