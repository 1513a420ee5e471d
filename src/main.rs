//! The `edgepush` program.

fn main() {}
