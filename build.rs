//! Tells the program which target it is compiled for: `config` chooses a generic board by it.

fn main() {
    let target = std::env::var("TARGET").expect("cargo names the target to each build script");
    println!("cargo::rustc-env=EDGEPUSH_TARGET={target}");
    println!("cargo::rerun-if-changed=build.rs");
}
