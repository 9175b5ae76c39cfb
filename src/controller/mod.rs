//! Controllers: who is asked for tasks and told the results.

pub mod failure;
pub mod http;
mod roots;
mod transport;
pub mod url;
