//! Processes: pidfd, parent-death signal, descriptors handed to a child.
