//! Which machines this host has, and what each of them needs.

pub mod tree;
pub mod trouble;
