//! The `edgepush` binary: hands its arguments to the commands.

fn main() {}
