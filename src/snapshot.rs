//! A snapshot of a machine, owned by a guard.
