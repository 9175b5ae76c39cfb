//! Controllers: who hands out tasks and takes results.
