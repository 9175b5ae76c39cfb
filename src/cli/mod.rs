//! Command line: one table of options.
